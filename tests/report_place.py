"""A data set with hostile names, its leaderboard and fine-tuning runs, made by the real writers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from classify_store import Digits, digits
from stored import store_dataset, store_features

from onepass.cache.arrays import pack_arrays
from onepass.cache.features import FeatureKey
from onepass.cache.files import write_atomic
from onepass.cache.made_by import MadeBy
from onepass.classify.config import ClassifyConfig
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.prediction_record import (
    MemberRecord,
    PredictionRecord,
    record_path,
)
from onepass.classify.pipeline import run_probes
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.finetune.errors import analyse_run
from onepass.finetune.recipes import Recipe
from onepass.finetune.session.history import EpochRow
from onepass.finetune.session.result import RESULT, FinetuneResult
from onepass.finetune.session.run_identity import CONFIG, RunConfig, RunIdentity
from onepass.finetune.session.runs import logits_path, open_run
from onepass.report.config import ReportConfig
from onepass.report.context import open_context
from onepass.report.page import PageResult, render, write_page
from onepass.report.plot import Drawing
from onepass.report.sections import build_sections

HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = [HOSTILE, "=1+1", "seven</svg><script>alert(2)</script>", "\u202eevil", "plain", "a&b", '"q"', "é", "x" * 90, "ten"]  # fmt: skip
RECORD = {
    "title": "Digits <b>bold</b>",
    "licence": "CC <i>BY</i>",
    "kind": "digits",
    "seed": 0,
    "published": [
        {"method": HOSTILE, "accuracy": 91.25, "source": "nobody"},
        {
            "method": "frozen features",
            "accuracy": 58.2,
            "source": "Someone (2020)",
            "stage": "frozen",
        },
        {
            "method": "fine-tuned",
            "accuracy": 75.7,
            "source": "Someone (2020)",
            "stage": "fine-tuned",
        },
    ],
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
        """The page, not written, without pictures, with its no-break spaces as plain ones."""
        context = open_context(self.store, self.runs, self.name)
        with patch.object(Drawing, "svg", lambda drawing, name: drawing.alt):
            return render(context, build_sections(context)).replace("\u00a0", " ")

    def change_winner(self, **changes: Any) -> None:
        """Change the winner's line of the leaderboard."""
        board = Leaderboard.load(self.folder, self.name, self.dataset.digest)
        board.holding(replace(board.winner, **changes)).save()

    def change_result(self, run: str, **changes: Any) -> None:
        """Change what a finished run found."""
        path = self.folder / "finetune" / run / RESULT
        replace(FinetuneResult.read(path), **changes).write(path)


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
    store_dataset(
        place.store, place.name, data.pixels, labels, data.split, names, ids, texts, RECORD
    )


def write_features(
    place: Place, dataset: ImageDataset, X: np.ndarray, backbone: str, size: int, *, rate: float
) -> None:
    """Store vectors (N, D) as extraction does, with its speed."""
    key = FeatureKey(backbone, "sha256:0", size)
    speed = {"rows_per_second": rate, "bound": "device", "computed_rows": len(X), "devices": ["cpu:0"]}  # fmt: skip
    store_features(place.store, dataset, X, key, {"extraction": speed})


def add_run(place: Place, name: str, *, wrong: int = 5, **result: Any) -> Path:
    """Write a finished run of fine-tuning that misclassifies the first `wrong` validation rows."""
    dataset = place.dataset
    rows = dataset.rows("val")
    logits = np.eye(len(dataset.class_ids), dtype=np.float32)[dataset.labels[rows]] * 4
    logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
    folder = begin_run(place, name)
    arrays = pack_arrays({"logits": logits, "rows": rows})  # `save_logits` would import Keras
    write_atomic(logits_path(folder, "val"), arrays)
    accuracy = float(1 - wrong / len(rows))
    found = FinetuneResult(
        run=f"{place.name}/{name}", folder=Path(name), start="toy@16 + logistic",
        warm_start_difference=1e-6, stopped="", probe_top1=0.9, val_top1=accuracy,
        val_interval=(accuracy - 0.01, 1.0), p_value=0.03, seconds=9.0,
        history=tuple(EpochRow(e, 1 / e, 0.9 + e / 100, 2.0) for e in (1, 2, 3)),
    )  # fmt: skip
    replace(found, **result).write(folder / RESULT)
    analyse_run(open_run(place.store, place.runs, f"{place.name}/{name}"), place.runs)
    return folder


def begin_run(place: Place, name: str, created: str = "", **identity: Any) -> Path:
    """Write what a run that is not finished has left."""
    folder = place.folder / "finetune" / name
    board = Leaderboard.load(place.folder, place.name, place.dataset.digest)
    which = RunIdentity(
        dataset=place.name, dataset_digest=place.dataset.digest, probe=board.winner.id,
        features=board.winner.keys[0].recipe(), recipe=Recipe(epochs=3, batch=32, learning_rate=1e-5),
        unfreeze="all", select=True, rows=0, weights="imagenet", seed=0,
    )  # fmt: skip
    made_by = replace(MadeBy.now(), command=f"onepass finetune --run {name}")
    made_by = replace(made_by, created=created or made_by.created)
    RunConfig(replace(which, **identity), made_by).write(folder / CONFIG)
    return folder


def add_ensemble(
    place: Place,
    *members: MemberRecord,
    accuracy: float = 0.4321,
    selection: float | None = None,
    name: str = "val-average.csv",
) -> None:
    """Write the record of predictions for the validation split by several models or views."""
    record = PredictionRecord(
        dataset=place.name, dataset_digest=place.dataset.digest, split="val",
        rows=len(place.dataset.rows("val")), file_format="csv", members=members, weights="equal",
        temperature=1.25, learnt_on=0, note="", val_top1=accuracy, val_interval=(0.4, 0.46),
        log_loss=1.0, selection_top1=selection, made_by=MadeBy.now(),
    )  # fmt: skip
    record.write(record_path(place.folder / "predictions" / name))
