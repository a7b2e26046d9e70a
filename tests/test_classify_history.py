"""A label is corrected: nothing is extracted again, the leaderboard before is kept, and the gain is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from onepass.classify.config import ClassifyConfig
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.history import history_folder
from onepass.classify.pipeline import ClassifyResult, run_probes
from onepass.classify.text import classify_text
from onepass.data.dataset import ImageDataset


def run(tmp_path: Path, **flags: object) -> ClassifyResult:
    folders = {"cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    return run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), **folders, **flags))  # type: ignore[arg-type]


def relabelled(tmp_path: Path, rows: np.ndarray) -> ImageDataset:
    """Store the digits with wrong labels in some rows."""
    data = digits()
    data.labels[rows] = (data.labels[rows] + 1) % 10
    return write_dataset(tmp_path / "store", data)


@pytest.fixture
def wrong(tmp_path: Path) -> ImageDataset:
    """Digits whose labels are wrong in half of the training rows, with their vectors."""
    rows = np.flatnonzero(digits().split == 0)[::2]
    dataset = relabelled(tmp_path, rows)
    write_features(tmp_path / "store", dataset, digits().X)
    return dataset


def test_the_leaderboard_before_is_kept_and_compared(tmp_path: Path, wrong: ImageDataset) -> None:
    before = run(tmp_path)
    assert before.correction is None
    val = np.flatnonzero(digits().split == 1)
    right = relabelled(tmp_path, val[:3])  # three labels of validation images change as well
    after = run(tmp_path)
    assert after.ran == 3 and {r.dataset_digest for r in after.results} == {right.digest}
    kept = Leaderboard.load(
        history_folder(tmp_path / "runs" / NAME, wrong.digest), NAME, wrong.digest
    )
    assert kept.results and kept.winner.id == before.winner
    assert (kept.head_folder(kept.winner) / "head.json").exists()

    change = after.correction
    assert change and change.relabelled == 3 and change.comparison.rows == len(val) - 3
    assert (change.before, change.after) == (wrong.digest, right.digest)
    assert change.before_top1 < change.after_top1 - 0.02 and change.comparison.p_value < 0.05
    expected = (change.after_top1 * (len(val) - 3)) / len(val)
    assert after.results[0].val_top1 == pytest.approx(expected, abs=3 / len(val))
    assert (
        f"on the {len(val) - 3:,} validation images with the same label in both (3 with"
        in classify_text(after)
    )


def test_what_was_promised_before_a_correction_is_promised_after(
    tmp_path: Path, wrong: ImageDataset
) -> None:
    before = run(tmp_path, at="specificity=0.8", positive="digit 8").point
    relabelled(tmp_path, np.flatnonzero(digits().split == 1)[:3])
    after = run(tmp_path).point
    assert before and after and (after.goal, after.name) == (before.goal, "digit 8")
    assert after.threshold != before.threshold  # chosen anew


def test_a_correction_that_is_taken_back_trains_nothing(
    tmp_path: Path, wrong: ImageDataset
) -> None:
    first = run(tmp_path)
    relabelled(tmp_path, np.array([0]))
    run(tmp_path)
    rows = np.flatnonzero(digits().split == 0)[::2]
    assert relabelled(tmp_path, rows).digest == wrong.digest
    again = run(tmp_path)
    assert (again.ran, again.reused) == (0, 3) and again.results == first.results


def test_the_state_before_is_the_one_left_last(tmp_path: Path, wrong: ImageDataset) -> None:
    """A, B, A again, C: the correction is measured against A, although B was trained later."""
    run(tmp_path)
    relabelled(tmp_path, np.array([0]))
    run(tmp_path)
    relabelled(tmp_path, np.flatnonzero(digits().split == 0)[::2])
    run(tmp_path)
    relabelled(tmp_path, np.array([1]))
    change = run(tmp_path).correction
    assert change and change.before == wrong.digest


def test_fresh_leaves_the_history_alone(tmp_path: Path, wrong: ImageDataset) -> None:
    run(tmp_path)
    relabelled(tmp_path, np.array([0]))
    run(tmp_path)
    kept = history_folder(tmp_path / "runs" / NAME, wrong.digest)
    before = sorted(path.read_bytes() for path in kept.rglob("*") if path.is_file())
    assert run(tmp_path, fresh=True).ran == 3 and before
    assert sorted(path.read_bytes() for path in kept.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_killed_move_is_done_again(tmp_path: Path, wrong: ImageDataset, moved: int) -> None:
    """The leaderboard moves last: whatever moved before it, the next run moves the rest."""
    run(tmp_path)
    relabelled(tmp_path, np.array([0]))
    folder = tmp_path / "runs" / NAME
    kept = history_folder(folder, wrong.digest)
    kept.mkdir(parents=True)
    for name in ("heads", "validation.npz")[:moved]:
        shutil.move(folder / name, kept / name)
    run(tmp_path)
    board = Leaderboard.load(kept, NAME, wrong.digest)
    assert (board.head_folder(board.winner) / "head.json").exists()
    assert (kept / "validation.npz").exists() and (folder / "validation.npz").exists()


def test_without_the_labels_before_nothing_is_compared(
    tmp_path: Path, wrong: ImageDataset, said
) -> None:
    run(tmp_path)
    relabelled(tmp_path, np.array([0]))
    run(tmp_path)
    (history_folder(tmp_path / "runs" / NAME, wrong.digest) / "validation.npz").write_bytes(b"no")
    assert run(tmp_path).correction is None
    assert "the state before is not compared" in said.text


def test_the_same_head_is_compared_not_a_better_one(tmp_path: Path, wrong: ImageDataset) -> None:
    """A head that was not tried before says nothing of what the correction was worth."""
    run(tmp_path)
    relabelled(tmp_path, np.array([0]))
    folders = {"cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    run_probes(ClassifyConfig(dataset=NAME, head=("centroid",), **folders))
    assert run(tmp_path, seed=1).correction is not None
    both = run_probes(ClassifyConfig(dataset=NAME, head=("logistic", "ridge"), **folders))
    assert both.correction and both.correction.probe == "toy@8 ridge"
    assert both.results[0].head == "logistic"
