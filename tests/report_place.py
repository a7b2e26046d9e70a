"""A data set with hostile names, its leaderboard and runs of fine-tuning, as the stages leave them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from classify_store import Digits, digits

from onepass.cache.features import FeatureKey
from onepass.cache.files import write_json
from onepass.cache.provenance import digest_bytes, made_by
from onepass.cache.rows import Column, RowLayout, RowWriter
from onepass.classify.config import ClassifyConfig
from onepass.classify.heads.storage import pack_arrays
from onepass.classify.pipeline import run_probes
from onepass.data.dataset import ImageDataset, dataset_digest, dataset_path, open_dataset
from onepass.report.config import ReportConfig
from onepass.report.context import gather
from onepass.report.page import PageResult, render, write_page
from onepass.report.sections import build_sections

HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = [HOSTILE, "=1+1", "seven</svg><script>alert(2)</script>", "\u202eevil", "plain", "a&b", '"q"', "é", "x" * 90, "ten"]  # fmt: skip
RECORD = {
    "title": "Digits <b>bold</b>",
    "licence": "CC <i>BY</i>",
    "kind": "digits",
    "seed": 0,
    "published": [{"method": HOSTILE, "accuracy": 91.25, "source": "nobody"}, {"method": "bad"}],
    "notes": ["A note <script>alert(3)</script> for the reader."],
    "citation": ["Someone: Something."],
}


@dataclass(frozen=True)
class Place:
    """Where a data set and its results lie."""

    store: Path
    runs: Path
    name: str

    @property
    def dataset(self) -> ImageDataset:
        return open_dataset(self.store, self.name)

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    def write(self) -> PageResult:
        return write_page(ReportConfig(dataset=self.name, cache_dir=self.store, runs_dir=self.runs))

    def page(self) -> str:
        """The page, not written, with its unbreakable spaces as plain ones."""
        material = gather(self.store, self.runs, self.name)
        return render(material, build_sections(material)).replace("\u00a0", " ")

    def change(self, file: str, path: tuple[Any, ...], value: Any) -> None:
        """Change one value of a JSON file under the runs."""
        target = self.folder / file
        content = json.loads(target.read_text())
        inner = content
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        target.write_text(json.dumps(content))


def make_place(root: Path, classes: int = 10, name: str = "digits-test") -> Place:
    """Write a data set, four feature files and a leaderboard; no run of fine-tuning yet."""
    place = Place(root / "store", root / "runs", name)
    data = digits(classes)
    _write_dataset(place, data)
    dataset = place.dataset
    for number, (backbone, size) in enumerate([("toy", 8), ("toy", 16), ("toy<b>2", 8), ("toy<b>2", 16)]):  # fmt: skip
        width = 8 + 12 * number
        write_features(place, dataset, data.X[:, 20 : 20 + width], backbone, size, rate=400.0 / (number + 1))  # fmt: skip
    config = {"cache_dir": place.store, "runs_dir": place.runs}
    run_probes(ClassifyConfig(dataset=name, head=("ridge", "logistic"), **config))
    return place


def _write_dataset(place: Place, data: Digits) -> None:
    count = int(data.labels.max()) + 1
    ids, texts = [f"n{k:02d}" for k in range(count)], NAMES[:count]
    labels = np.where(data.split == 2, -1, data.labels).astype(np.int32)
    names = [f"{HOSTILE}{row}.png" for row in range(len(labels))]
    side = {"labels": labels, "split": data.split, "names": names}
    layout = RowLayout({"pixels": Column(data.pixels.shape[1:], "uint8")}, len(labels), 4096)
    with RowWriter(dataset_path(place.store, place.name), layout, {"kind": "pixels"}) as writer:
        writer.write(0, {"pixels": data.pixels})
        rows_digest = digest_bytes(*(writer.digests[i].encode() for i in range(layout.shards)))
        digest = dataset_digest(rows_digest, side, ids, texts)
        facts = {"class_ids": ids, "class_names": texts, "digest": digest, "record": RECORD}
        writer.finish(side, facts)


def write_features(
    place: Place, dataset: ImageDataset, X: np.ndarray, backbone: str, size: int, *, rate: float
) -> None:
    """Store vectors (N, D) as extraction does, with its speed."""
    key = FeatureKey(place.name, dataset.digest, backbone, "sha256:0", size)
    layout = RowLayout({"features": Column(X.shape[1:], X.dtype.name)}, len(X), 4096)
    speed = {"rows_per_second": rate, "bound": "device", "computed_rows": len(X), "devices": ["cpu:0"]}  # fmt: skip
    with RowWriter(key.file(place.store), layout, key.inputs()) as writer:
        writer.write(0, {"features": X})
        side = {"labels": dataset.labels, "split": dataset.split, "names": dataset.names}
        facts = {"class_ids": dataset.class_ids, "class_names": dataset.class_names}
        writer.finish(side, {**facts, "record": dataset.record, "extraction": speed})


def add_run(place: Place, name: str, *, wrong: int = 5, **result: Any) -> Path:
    """Write a finished run of fine-tuning that has all but `wrong` reported rows right."""
    dataset = place.dataset
    rows = dataset.rows("val")
    truth = dataset.labels[rows]
    logits = np.eye(len(dataset.class_ids), dtype=np.float32)[truth] * 4
    logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
    folder = begin_run(place, name)
    (folder / "val_logits.npz").write_bytes(pack_arrays({"logits": logits, "rows": rows}))
    accuracy = float(1 - wrong / len(rows))
    history = [{"epoch": e, "loss": 1 / e, "accuracy": 0.9 + e / 100, "seconds": 2.0} for e in (1, 2, 3)]  # fmt: skip
    found = {
        "run": f"{place.name}/{name}", "folder": name, "start": "toy@16 + logistic",
        "warm_start_difference": 1e-6, "history": history, "stopped": "", "probe_top1": 0.9,
        "val_top1": accuracy, "val_interval": [accuracy - 0.01, 1.0], "p_value": 0.03, "seconds": 9.0,
    }  # fmt: skip
    write_json(folder / "result.json", {**found, **result})
    return folder


def begin_run(place: Place, name: str, **identity: Any) -> Path:
    """Write what a run that is not finished has left."""
    folder = place.folder / "finetune" / name
    recipe = {"epochs": 3, "batch": 32, "learning_rate": 1e-5, "dropout": 0.0, "flip": True}
    known = {"dataset_digest": place.dataset.digest, "recipe": recipe, "rows": 0, "seed": 0}
    made = {**made_by(), "command": f"onepass finetune --run {name}"}
    write_json(folder / "config.json", {"identity": {**known, **identity}, "made_by": made})
    return folder
