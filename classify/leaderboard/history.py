"""Leaderboards of earlier states of a data set: kept, taken up again, compared with today's.

`runs/<data set>/history/<digest of the state>/` is laid out as `runs/<data set>` itself: the leaderboard,
the heads, and the labels of the validation rows that the probabilities are of.
"""

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onepass.cache.arrays import unpack_arrays, write_arrays
from onepass.cache.content import find
from onepass.cache.errors import CorruptFileError, OnepassError, Remedy
from onepass.cache.files import fsync, make_folder
from onepass.classify.config import Select
from onepass.classify.leaderboard.board import Leaderboard, LeaderboardFile, leaderboard_path
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import TOP1, Comparison, Metric, compare
from onepass.data.dataset import ImageDataset

log = logging.getLogger(__name__)

VALIDATION = "validation.npz"
KEPT = ("leaderboard.json", VALIDATION, "heads")


@dataclass(frozen=True, slots=True)
class Correction:
    """What a change of the data set was worth, on the validation images that both states label alike.

    Attributes:
        probe: Features and head, the same before and after: the best of today that were tried before too.
        before: Digest of the state before (hex).
        after: Digest of today's.
        relabelled: Validation images of both states whose label changed; they are left out.
        before_top1: Accuracy then, 0 … 1.
        after_top1: Accuracy now.
        comparison: Of the two, today's first.
    """

    probe: str
    before: str
    after: str
    relabelled: int
    before_top1: float
    after_top1: float
    comparison: Comparison


def history_folder(folder: Path, digest: str) -> Path:
    """Return where the results of one state of a data set are kept, in its folder `runs/<data set>`."""
    return folder / "history" / digest[:16]


def open_board(
    folder: Path,
    dataset: ImageDataset,
    *,
    seed: int,
    metric: Metric = TOP1,
    select: Select = "split",
    fresh: bool = False,
) -> Leaderboard:
    """Return the leaderboard of a data set as it is now, to be added to; an empty one where there is none.

    Results of another state go to the history, and are never deleted; those of this one, where it was
    left and is back, return.

    Args:
        folder: `runs/<data set>`; whoever calls holds its lock.
        dataset: As it is now.
        seed: The one that is ranked.
        metric: The one that is ranked by.
        select: Whether those are ranked that were chosen on the selection split, or by folds.
        fresh: Delete what there is of this state.
    """
    path = leaderboard_path(folder)
    state = _state(path, dataset, fresh=fresh)
    if fresh and state in ("", dataset.digest):
        path.unlink(missing_ok=True)
        shutil.rmtree(folder / "heads", ignore_errors=True)
        state = ""
    elif state != dataset.digest:
        if state:
            place = history_folder(folder, state)
            log.info(
                f"{path}: of the data set as it was before ({state[:8]}, now {dataset.digest[:8]}); kept in {place}"
            )
            path.touch()  # it may be taken up from the history, and is now the state before all the same
            _move(folder, place)
        _move(history_folder(folder, dataset.digest), folder)
    if not (folder / VALIDATION).exists() or state != dataset.digest:
        _write_validation(folder, dataset)
    board = Leaderboard(folder, dataset.name, dataset.digest)
    if path.exists():
        board = Leaderboard.load(folder, dataset.name, dataset.digest)
    return replace(board, seed=seed, select=select).ranked_by(metric, dataset.class_ids)


def _state(path: Path, dataset: ImageDataset, *, fresh: bool) -> str:
    """Return the digest of the state that a leaderboard is of; "" where there is none, or none to be kept."""
    if not path.exists():
        return ""
    try:
        return LeaderboardFile.read(path).dataset_digest
    except CorruptFileError as error:
        if fresh:
            return ""
        raise CorruptFileError(str(error), remedy=Remedy("classify anew", dataset.name)) from error


def _move(source: Path, target: Path) -> None:
    """Move a leaderboard; its file goes last, so that a killed move is done again from where it was."""
    make_folder(target)
    for name in reversed(KEPT):
        if (source / name).exists():
            if (target / name).is_dir():
                shutil.rmtree(target / name)
            (source / name).replace(target / name)
    fsync(target)


def _write_validation(folder: Path, dataset: ImageDataset) -> None:
    rows = dataset.rows("val")
    arrays = {
        "content": dataset.content[rows],
        "labels": dataset.labels[rows],
        "class_ids": np.array(dataset.class_ids, "U"),
    }
    write_arrays(folder / VALIDATION, arrays)


def previous_board(folder: Path, dataset: ImageDataset) -> Leaderboard | None:
    """Return the leaderboard of the state before; None where there is none, or none that can be read.

    Args:
        folder: `runs/<data set>`.
        dataset: As it is now.
    """
    kept = [path for path in folder.glob("history/*/leaderboard.json") if path.is_file()]
    if not kept:
        return None
    latest = max(kept, key=lambda path: path.stat().st_mtime_ns)
    try:
        digest = LeaderboardFile.read(latest).dataset_digest
        return Leaderboard.load(latest.parent, dataset.name, digest)
    except OnepassError as error:
        log.info(f"{error}; the state before is not compared")
        return None


def last_correction(board: Leaderboard, dataset: ImageDataset) -> Correction | None:
    """Compare a probe of today with the same one of the state before; None where there is none to compare.

    Args:
        board: Of today.
        dataset: As it is now.
    """
    before = previous_board(board.folder, dataset)
    if before is None or not board.ranked:
        return None
    try:
        return _compare(before, board, dataset)
    except OnepassError as error:
        log.info(f"{error}; the state before is not compared")
        return None


def _compare(before: Leaderboard, board: Leaderboard, dataset: ImageDataset) -> Correction | None:
    contents, labels, class_ids = _read_validation(before.folder)
    rows = dataset.rows("val")
    then = find(contents, dataset.content[rows])
    now = np.array(dataset.class_ids)[dataset.labels[rows]]
    both = then >= 0
    same = both & (class_ids[labels[then]] == now)
    earlier = {(probe.features_text, probe.head): probe for probe in reversed(before.ranked)}
    both_tried = [one for one in board.ranked if (one.features_text, one.head) in earlier]
    if not both_tried or not same.any():
        return None
    today = both_tried[0]
    then_probe = earlier[today.features_text, today.head]
    old = load_probabilities(before.head_folder(then_probe), then_probe.rows)
    new = load_probabilities(board.head_folder(today), today.rows)
    right = (new.val_predicted == dataset.labels[rows])[same]
    right_before = (class_ids[old.val_predicted[then]] == now)[same]
    return Correction(
        probe=f"{today.features_text} {today.head}",
        before=before.dataset_digest,
        after=dataset.digest,
        relabelled=int(both.sum() - same.sum()),
        before_top1=float(right_before.mean()),
        after_top1=float(right.mean()),
        comparison=compare(today.id, then_probe.id, right, right_before),
    )


def _read_validation(place: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return contents (n, 16), labels (n,) and class ids (K,) of the validation rows of a state."""
    path = place / VALIDATION
    try:
        arrays = unpack_arrays(path.read_bytes())
        return arrays["content"], arrays["labels"], arrays["class_ids"]
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"{path}: expected the labels of validation rows, but they cannot be read ({error})"
        ) from error
