"""Wrong labels in a folder of photographs: found, named by file, corrected, without a backbone being built again."""

import csv
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import processes
import pytest

from conftest import ROOT
from onepass.data.dataset import open_dataset

CLASSES = {"goldfish": "n01443537", "black widow": "n01774384", "school bus": "n04146614", "espresso": "n07920052", "cliff": "n09246464"}  # fmt: skip
LOOP = """
import csv, json, sys
from importlib import import_module
from onepass.cache.commandline.command import main
def run(room, *words): assert main(room, import_module(f"onepass.{room}.__main__").COMMANDS, list(words)) == 0
right, table, places = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
run("classify", "--dataset", "photos", "--head", "logistic", *places)
run("classify", "inspect", "--dataset", "photos", *places)
rows = list(csv.DictReader(open(table, encoding="utf-8-sig", newline="")))
with open(table, "w", encoding="utf-8", newline="") as file:
    out = csv.DictWriter(file, rows[0]); out.writeheader()
    out.writerows({**row, "label": right.get(row["file"], row["label"])} for row in rows)
run("data", "relabel", "photos", "--labels", table, *places[:2])
run("classify", "--dataset", "photos", "--head", "logistic", *places)
assert not {"tensorflow", "keras", "jax", "torch"} & set(sys.modules)
"""


@pytest.mark.slow
def test_ten_wrong_labels_are_found_and_corrected(tiny_imagenet_zip: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    with zipfile.ZipFile(tiny_imagenet_zip) as archive:
        names = [name for name in archive.namelist() if "/train/" in name and name.endswith("JPEG")]
        for label, wnid in CLASSES.items():
            (tmp_path / "photos" / label).mkdir(parents=True)
            for name in [name for name in names if wnid in name][:120]:
                path = tmp_path / "photos" / label / Path(name).name
                path.write_bytes(archive.read(name))
    right = {}
    for path in chance.sample(sorted((tmp_path / "photos").rglob("*.JPEG")), 10):
        wrong = chance.choice([label for label in CLASSES if label != path.parent.name])
        right[f"{wrong}/{path.name}"] = path.parent.name
        path.rename(tmp_path / "photos" / wrong / path.name)
    places = ["--cache-dir", str(tmp_path / "store"), "--runs-dir", str(tmp_path / "runs")]
    for words in (
        ("data", "prepare", "folder", "--source", "photos"),
        ("extract", "--dataset", "photos", "--backbone", "efficientnet_lite0", "--size", "128"),
    ):
        done = processes.run(*words, *places[:2], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    table = tmp_path / "runs" / "photos" / "suspects.csv"
    loop = subprocess.run(
        [sys.executable, "-c", LOOP, json.dumps(right), str(table), *places],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert loop.returncode == 0, loop.stderr
    with table.open(encoding="utf-8", newline="") as file:
        suspects = list(csv.DictReader(file))
    likely = [row["file"] for row in suspects if not row["why"].startswith("possibly")]
    assert set(right) <= {row["file"] for row in suspects} and len(suspects) < 60
    assert len(set(likely) & set(right)) >= 8 and len(set(likely) - set(right)) <= 4
    dataset = open_dataset(tmp_path / "store", "photos")
    labels = dict(zip(dataset.names, dataset.labels, strict=True))
    assert all(dataset.class_ids[labels[name]] == label for name, label in right.items())
