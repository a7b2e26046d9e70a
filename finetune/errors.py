"""Error analysis of a finished run: `errors.json` and a contact sheet, `mistakes.png`, in its folder.

`errors.json` holds, all shares in 0 … 1:

- `run`, `split` ("val"), `rows`, `wrong`, `top1`
- `sample`: as many random rows as the report looked at: `rows`, `seed`, `wrong`, `top1`, `interval`,
  `worst_classes`, `confused_pairs`
- `worst_classes`: [{`class_id`, `class_name`, `rows`, `accuracy`}], worst first
- `confused_pairs`: [{`true_id`, `true_name`, `predicted_id`, `predicted_name`, `count`}], most first
- `mistakes`: the most confident ones: [{`row`, `file`, `true_id`, `true_name`, `predicted_id`,
  `predicted_name`, `confidence`, `true_probability`}]
- `probe`: against the frozen probe the run started from (null where that is gone): `id`, `top1`,
  `gained` and `lost` (rows that only the run, or only the probe, has right), `p_value`, `helped` and
  `harmed`: [{`class_id`, `class_name`, `rows`, `accuracy`, `probe_accuracy`, `difference`}]
- `classes`: the same fields for every class, in the order of the labels
- `epochs`: [{`epoch`, `train`, `selection`, `gap`}]; `selection` and `gap` are null where the run held
  nothing out; `final_gap`: training accuracy of the last epoch less `top1`
- `contact_sheet`: the picture's file name
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.errors import OnepassError
from onepass.cache.files import write_json
from onepass.classify.heads.base import softmax
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.mistakes import (
    class_accuracy,
    confident_mistakes,
    confused_pairs,
    confusion_matrix,
    worst_classes,
)
from onepass.classify.scores import bootstrap_interval, compare
from onepass.data.dataset import ImageDataset
from onepass.finetune.config import ErrorsConfig
from onepass.finetune.contact_sheet import contact_sheet
from onepass.finetune.session.runs import FinishedRun, open_run

log = logging.getLogger(__name__)

SAMPLE = 1000  # random validation images that the report looked at
LISTED = 10
SHEET, ERRORS = "mistakes.png", "errors.json"


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Where the analysis lies, and what it says.

    Attributes:
        path: Of `errors.json`.
        sheet: Of the contact sheet; None where nothing is wrong.
        found: What the file holds.
    """

    path: Path
    sheet: Path | None
    found: dict[str, Any]


def analyse_errors(config: ErrorsConfig) -> ErrorReport:
    """Look at what a finished run gets wrong on the reported split.

    Raises:
        MissingFileError: There is no such run.
        CorruptFileError: Its logits are damaged.
    """
    run = open_run(config.store, config.runs, config.run)
    return analyse_run(run, config.runs, seed=config.seed, pictures=config.pictures)


def analyse_run(run: FinishedRun, runs: Path, *, seed: int = 0, pictures: int = 24) -> ErrorReport:
    """Write `errors.json` and the contact sheet of a run; nothing is computed by a network.

    Args:
        run: Finished; its `val_logits.npz` is what is looked at.
        runs: Root of the results, where its probe lies.
        seed: Of the random sample.
        pictures: Mistakes on the contact sheet.
    """
    logits, rows = run.logits("val")
    dataset, truth = run.dataset, run.dataset.labels[rows]
    probabilities = softmax(logits)
    sure = confident_mistakes(probabilities, truth, pictures)
    mistakes = [_mistake(dataset, probabilities[i], int(rows[i])) for i in sure]
    taken = probabilities.argmax(axis=1)
    frozen = _probe_predictions(run, runs)
    found = {
        "run": run.name,
        "split": "val",
        **_counted(dataset, truth, taken),
        "sample": _sample(dataset, truth, taken, seed),
        "mistakes": mistakes,
        "probe": None if frozen is None else _against(run, truth, taken, frozen),
        "classes": _by_class(dataset, truth, taken, frozen),
        **_gaps(run, float(np.mean(taken == truth))),
        "contact_sheet": SHEET if mistakes else None,
    }
    sheet = run.folder / SHEET if mistakes else None
    if sheet:
        contact_sheet(sheet, [(dataset.pixels[m["row"]], m) for m in mistakes])
    write_json(run.folder / ERRORS, found)
    return ErrorReport(run.folder / ERRORS, sheet, found)


def _counted(dataset: ImageDataset, truth: np.ndarray, taken: np.ndarray) -> dict[str, Any]:
    """Return counts, worst classes and most-confused pairs of some rows."""
    confusion = confusion_matrix(truth, taken, len(dataset.class_ids))
    share, total = class_accuracy(confusion), confusion.sum(axis=1)
    wrong = int(np.sum(truth != taken))
    return {
        "rows": len(truth), "wrong": wrong, "top1": 1 - wrong / len(truth),
        "worst_classes": [
            {**_named(dataset, k), "rows": int(total[k]), "accuracy": float(share[k])}
            for k in worst_classes(confusion, LISTED)
        ],
        "confused_pairs": [
            {**_named(dataset, i, "true"), **_named(dataset, j, "predicted"), "count": count}
            for i, j, count in confused_pairs(confusion, LISTED)
        ],
    }  # fmt: skip


def _sample(
    dataset: ImageDataset, truth: np.ndarray, taken: np.ndarray, seed: int
) -> dict[str, Any]:
    """Return the same of random rows, as in the report."""
    count = min(SAMPLE, len(truth))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(truth))[:count])
    interval = bootstrap_interval(truth[chosen] == taken[chosen], seed)
    counted = _counted(dataset, truth[chosen], taken[chosen])
    return {"seed": seed, "interval": interval, **counted}


def _named(dataset: ImageDataset, k: int, prefix: str = "class") -> dict[str, str]:
    return {f"{prefix}_id": dataset.class_ids[k], f"{prefix}_name": dataset.class_names[k]}


def _mistake(dataset: ImageDataset, probabilities: np.ndarray, row: int) -> dict[str, Any]:
    true, taken = int(dataset.labels[row]), int(probabilities.argmax())
    return {
        "row": row, "file": dataset.names[row],
        **_named(dataset, true, "true"), **_named(dataset, taken, "predicted"),
        "confidence": float(probabilities[taken]), "true_probability": float(probabilities[true]),
    }  # fmt: skip


def _probe_predictions(run: FinishedRun, runs: Path) -> np.ndarray | None:
    """Return the classes that the frozen probe gave to the reported rows; None where it is gone."""
    name = run.dataset.name
    try:
        board = Leaderboard.load(runs / name, name, run.dataset.digest)
        probe = board.find(run.identity["probe"])
        return load_probabilities(board.head_folder(probe), probe.rows).val_predicted
    except (OnepassError, KeyError) as error:
        log.info(f"{run.name}: not compared with a frozen probe ({error})")
        return None


def _against(
    run: FinishedRun, truth: np.ndarray, taken: np.ndarray, frozen: np.ndarray
) -> dict[str, Any]:
    """Return what fine-tuning bought and what it broke."""
    test = compare("fine-tuned", "probe", taken == truth, frozen == truth)
    classes = [c for c in _by_class(run.dataset, truth, taken, frozen) if c["difference"]]
    classes.sort(key=lambda c: c["difference"])
    return {
        "id": run.identity["probe"], "top1": float(np.mean(frozen == truth)),
        "gained": test.only_first, "lost": test.only_second, "p_value": test.p_value,
        "helped": [c for c in classes[::-1] if c["difference"] > 0][:LISTED],
        "harmed": [c for c in classes if c["difference"] < 0][:LISTED],
    }  # fmt: skip


def _by_class(
    dataset: ImageDataset, truth: np.ndarray, taken: np.ndarray, frozen: np.ndarray | None
) -> list[dict[str, Any]]:
    """Return accuracy by class, of the run and of the frozen probe, in the order of the labels."""
    count = len(dataset.class_ids)
    rows = np.bincount(truth, minlength=count)
    ours = class_accuracy(confusion_matrix(truth, taken, count))
    theirs = None if frozen is None else class_accuracy(confusion_matrix(truth, frozen, count))
    return [
        {
            **_named(dataset, k), "rows": int(rows[k]),
            "accuracy": float(ours[k]) if rows[k] else None,
            "probe_accuracy": float(theirs[k]) if rows[k] and theirs is not None else None,
            "difference": float(ours[k] - theirs[k]) if rows[k] and theirs is not None else None,
        }
        for k in range(count)
    ]  # fmt: skip


def _gaps(run: FinishedRun, top1: float) -> dict[str, Any]:
    """Return how far training accuracy ran ahead of that of rows not trained on, epoch by epoch."""
    epochs = []
    for row in run.result["history"]:
        held = row.get("selection_accuracy")
        gap = None if held is None else row["accuracy"] - held
        epochs.append(
            {"epoch": row["epoch"], "train": row["accuracy"], "selection": held, "gap": gap}
        )
    return {"epochs": epochs, "final_gap": epochs[-1]["train"] - top1 if epochs else None}
