"""What a run or a frozen probe says of some rows, and of the selection rows it never trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from onepass.cache.errors import InvalidInputError, MissingFileError
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import softmax
from onepass.classify.protocol.evaluate import FRACTION
from onepass.data.dataset import ImageDataset
from onepass.data.splits import selection_split
from onepass.finetune.session.runs import FinishedRun
from onepass.finetune.training.inference import predict_rows, restore, save_logits
from onepass.predict.views import view_text, with_view


@dataclass(frozen=True, slots=True)
class Member:
    """One voice of an ensemble.

    Attributes:
        name: DATASET/RUN, or the probe's id.
        probabilities: (n, K) float32 of the rows that are to be predicted.
        selection: (s, K) float32 of the selection rows; None where it was trained on them.
        selection_rows: (s,) which rows those are, ascending; None as well.
    """

    name: str
    probabilities: np.ndarray
    selection: np.ndarray | None
    selection_rows: np.ndarray | None


def run_member(run: FinishedRun, views: tuple[str, ...], split: str, rows: np.ndarray) -> Member:
    """Return the mean over the views of a run's probabilities.

    What it says of a split through a view is kept in its folder and not computed twice.

    Args:
        run: Finished.
        views: As `expand_views` returns them.
        split: "val" or "test".
        rows: (n,) the rows of that split.
    """
    network: list[keras.Model] = []

    def predictor() -> keras.Model:
        if not network:
            network.append(restore(run.folder, run.identity, run.dataset).predictor)
        return network[0]

    held = run.held_out()
    selection = None if held is None else _mean(run, predictor, views, "selection", held)
    probabilities = _mean(run, predictor, views, split, rows)
    return Member(run.name, probabilities, selection, held)


def _mean(
    run: FinishedRun,
    predictor: Callable[[], keras.Model],
    views: tuple[str, ...],
    part: str,
    rows: np.ndarray,
) -> np.ndarray:
    total = np.zeros((len(rows), len(run.dataset.class_ids)), np.float32)
    for view in views:
        total += softmax(_logits(run, predictor, view, part, rows))
    return total / np.float32(len(views))


def _logits(
    run: FinishedRun, predictor: Callable[[], keras.Model], view: str, part: str, rows: np.ndarray
) -> np.ndarray:
    """Return a run's logits (n, K) through one view, from its folder where they are kept."""
    kept = part + (f"+{view}" if view else "")
    try:
        logits, found = run.logits(kept)
        order = np.argsort(found, kind="stable")
        if np.array_equal(found[order], rows):
            return logits[order]
    except MissingFileError:
        pass
    label = f"{run.short}: {part}, {view_text((view,))}"
    logits = predict_rows(with_view(predictor(), view), run.dataset.pixels, rows, label)
    save_logits(run.folder / f"{kept}_logits.npz", logits, rows)
    return logits


def probe_member(runs: Path, dataset: ImageDataset, name: str, split: str) -> Member:
    """Return the stored probabilities of a probe on the leaderboard; those of the selection rows are
    by the head before it was refitted on them.

    Raises:
        UnknownNameError: There is none of that id.
        InvalidInputError: It does not know all classes.
    """
    board = Leaderboard.load(runs / dataset.name, dataset.name, dataset.digest)
    probe = board.find(name)
    kept = load_probabilities(board.head_folder(probe), probe.rows)
    if kept.val.shape[1] != len(dataset.class_ids):
        raise InvalidInputError(
            f"probe {probe.id}: knows {kept.val.shape[1]} classes, {dataset.name} has {len(dataset.class_ids)}"
        )
    _, selection = selection_split(
        dataset.labels, dataset.rows("train"), fraction=FRACTION, seed=probe.seed
    )
    of_split = kept.val if split == "val" else kept.test
    return Member(
        probe.id, of_split.astype(np.float32), kept.selection.astype(np.float32), selection
    )
