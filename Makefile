# make demo: the whole job on real photographs.  make test: every test.  Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test check picture clean

.venv/ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

demo: .venv/ready
	$(BIN)/python -m data prepare solar-cells
	$(BIN)/python -m extract --dataset solar-cells --backbone efficientnet_lite0 --size 300
	$(BIN)/python -m classify --dataset solar-cells
	$(BIN)/python -m finetune --dataset solar-cells --epochs 4
	$(BIN)/python -m report --dataset solar-cells

test: .venv/ready
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

picture: .venv/ready
	$(BIN)/python -m report --dataset tiny-imagenet
	$(BIN)/python docs/picture.py "$${ONEPASS_RUNS:-runs}/tiny-imagenet/report.html" docs/report.png

clean:
	rm -rf .venv
