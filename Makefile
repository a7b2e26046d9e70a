# make demo: the whole job on real photographs.  make test: every test.  Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin
FOLDERS := $(shell find onepass cache data extract classify finetune predict report \
	-type d -not -name __pycache__ -not -path 'cache/store*' -not -path 'data/raw*')
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test check picture clean

.venv/dependencies: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

# The project itself, as a tree of links to its files, which mypy can follow; a folder with a file more
# or less is newer than the tree.
.venv/ready: .venv/dependencies pyproject.toml $(FOLDERS)
	rm -rf build
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-deps --editable . --config-settings editable_mode=strict
	touch $@

demo: .venv/ready
	$(BIN)/onepass data prepare solar-cells --hold-back 64
	$(BIN)/onepass extract --dataset solar-cells --backbone efficientnet_lite0 --size 224
	$(BIN)/onepass classify --dataset solar-cells --at sensitivity=0.95
	$(BIN)/onepass finetune --dataset solar-cells --run tuned --batch 16 --epochs 4
	$(BIN)/onepass predict solar-cells $${ONEPASS_CACHE:-cache/store}/solar-cells/held-out
	$(BIN)/onepass report --dataset solar-cells

# BLAS and TensorFlow keep to one thread: threads that spin while they wait would take the cores from each other.
# The order of the files is that of tests/conftest.py: slow ones first. Compiled modules are kept also where the
# environment says otherwise: each of the many processes that are started would compile them anew.
test: .venv/ready
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	cd .venv && bin/mypy --config-file ../pyproject.toml

picture: .venv/ready
	$(BIN)/onepass report --dataset tiny-imagenet
	$(BIN)/python docs/picture.py "$${ONEPASS_RUNS:-runs}/tiny-imagenet/report.html" docs/report.png 1440 900

clean:
	rm -rf .venv build *.egg-info
