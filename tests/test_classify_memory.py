"""A memory budget decides what is held and what is read again, and nothing of what is found."""

import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from onepass.cache import provenance
from onepass.cache.errors import CorruptFileError, UsageError
from onepass.cache.memory import (
    block_bytes,
    free_memory,
    may_be_held,
    memory_budget,
    processes_within,
    scratch,
)
from onepass.classify import metrics
from onepass.classify.analysis.label_errors import _groups, find_errors
from onepass.classify.ensemble import member_inputs
from onepass.classify.heads import lazy_rows
from onepass.classify.heads.lazy_rows import Chosen, LazyRows, Mapped, SideBySide, Stacked, take
from onepass.classify.heads.registry import find_head
from onepass.classify.heads.storage import load_head, save_head
from onepass.classify.intervals import estimates
from onepass.classify.leaderboard.records import load_probabilities, model_digest, save_outcome
from onepass.classify.protocol.evaluate import ProtocolRows, run_probe
from tests.classify_store import digits

SMALL, LARGE = 20_000, 1 << 30  # bytes


@pytest.fixture
def X(tmp_path: Path) -> np.ndarray:
    """Some digits, as a memory map of float16."""
    data = digits(4)
    data.X.astype(np.float16).tofile(tmp_path / "rows")
    return np.memmap(tmp_path / "rows", np.float16, "r", shape=data.X.shape)


def protocol() -> ProtocolRows:
    """Scattered rows, as those of a selection split are."""
    data = digits(4)
    train = np.flatnonzero(data.split == 0)
    held = np.zeros(len(train), bool)
    held[::7] = True
    val, test = (np.flatnonzero(data.split == k) for k in (1, 2))
    return ProtocolRows(train[~held], train[held], train, val, test)


@pytest.mark.parametrize("kind", ["centroid", "ridge", "lda", "logistic", "dense", "mlp", "knn"])
@pytest.mark.parametrize("views", [1, 2])
def test_a_head_is_the_same_however_little_is_held(kind: str, views: int, X: np.ndarray) -> None:
    found = []
    for limit in (SMALL, LARGE):
        with memory_budget(limit):
            head, labels = find_head(kind)(), digits(4).labels
            found.append(run_probe(head, (X,) * views, labels, protocol()))
    few, many = found
    assert isinstance(take_all(X, SMALL), LazyRows)
    for name in few.head.ARRAYS:
        np.testing.assert_array_equal(getattr(few.head, name), getattr(many.head, name))
    for name in ("selection", "val", "test"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name))


def test_as_many_processes_as_there_is_room_for_beside_this_one() -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = []
    for limit in (1, own, 3.5 * own, 100 * own):
        with memory_budget(limit):
            found.append(processes_within(8))
    assert found == [0, 0, 2, 8]


@pytest.mark.parametrize("limit", [-1, float("inf"), float("nan")])
def test_memory_is_a_number_of_bytes(limit: float) -> None:
    with pytest.raises(UsageError, match="expected a number of bytes"), memory_budget(limit):
        pass


def test_probabilities_of_many_classes_are_never_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, classes, random = 3_000, 100, np.random.default_rng(0)
    labels = np.arange(4 * rows) % classes
    X = random.standard_normal((4 * rows, 8), np.float32)
    X += random.standard_normal((classes, 8), np.float32)[labels]
    fit, held, val, test = np.arange(4 * rows).reshape(4, rows)
    split = ProtocolRows(fit, held, np.arange(2 * rows), val, test)
    for module, name in ((metrics, "BLOCK"), (metrics, "COLUMN"), (lazy_rows, "BLOCK")):
        monkeypatch.setattr(module, f"{name}_NUMBERS", 1 << 12)
    monkeypatch.setattr(provenance, "BLOCK", 1 << 16)
    found = []
    for limit in (LARGE, SMALL):
        tracemalloc.start()
        with memory_budget(limit):
            outcome = run_probe(find_head("centroid")(), X, labels, split)
            scores = estimates(labels[val], outcome.val, None)
            save_outcome(tmp_path / str(limit), outcome, labels[val])
            kept = load_probabilities(tmp_path / str(limit), split.counts())
            together = member_inputs([kept.selection, kept.val])
            said = find_head("average")(members=2).fit(together, labels[held]).logits(together)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        found.append((said, kept.val, outcome.temperature, scores))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_equal(ours, theirs)
    assert peak < rows * classes * 4, "bytes of one part's probabilities"


def test_neighbours_that_are_not_held_are_stored_and_read_as_others(
    tmp_path: Path, X: np.ndarray
) -> None:
    labels, rows = digits(4).labels, protocol()
    digests, answers = [], []
    for limit in (SMALL, LARGE):
        with memory_budget(limit):
            head = find_head("knn")().fit(take(X, rows.fit), labels[rows.fit])
            save_head(head, tmp_path / str(limit))
            read = load_head(tmp_path / str(limit))
            digests.append((model_digest(head), model_digest(read)))
            answers.append(read.predict_proba(X[rows.val]))
            assert (
                isinstance(head.rows_, LazyRows)
                == isinstance(read.rows_, np.memmap)
                == (limit == SMALL)
            )
    one, other = (tmp_path / str(limit) / "arrays.npz" for limit in (SMALL, LARGE))
    assert one.read_bytes() == other.read_bytes()
    assert len({*digests[0], *digests[1]}) == 1
    np.testing.assert_array_equal(*answers)
    damaged = bytearray(one.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    one.write_bytes(damaged)
    with memory_budget(SMALL), pytest.raises(CorruptFileError, match="digest"):
        load_head(one.parent)


def take_all(X: np.ndarray, limit: int) -> object:
    with memory_budget(limit):
        return take(X, protocol().fit)


def test_lazy_rows_are_those_of_an_array(X: np.ndarray) -> None:
    rows = np.random.default_rng(0).permutation(len(X))[:90]
    wanted = {
        "chosen": (Chosen(X, rows), X[rows]),
        "stacked": (Stacked([Chosen(X, rows), X[:5]]), np.concatenate([X[rows], X[:5]])),
        "side by side": (SideBySide([X, X[:, :3]]), np.concatenate([X, X[:, :3]], axis=1)),
        "mapped": (Mapped(Chosen(X, rows), lambda some: some[:, :2] + 1, 2, X.dtype), X[rows][:, :2] + 1),
    }  # fmt: skip
    for name, (lazy, array) in wanted.items():
        assert (lazy.shape, lazy.dtype, lazy.size) == (array.shape, array.dtype, array.size), name
        for key in (slice(3, 50), slice(40, None), slice(0, 0), np.array([7, 2, 2, 60]), np.arange(4, 9)):  # fmt: skip
            np.testing.assert_array_equal(lazy[key], array[key], err_msg=name)
        np.testing.assert_array_equal(np.asarray(lazy), array, err_msg=name)


def test_a_budget_holds_in_its_block_only() -> None:
    with memory_budget(4_000):
        assert (block_bytes(), may_be_held(1_000), may_be_held(1_001)) == (1_000, True, False)
        with memory_budget(None):
            assert may_be_held(1_001)
        assert not may_be_held(1_001)
    assert 0 < free_memory() < 1 << 50


def test_thinned_rows_are_spread_over_each_class() -> None:
    labels = np.repeat([0, 1, 2], [5_000, 900, 3])
    train = np.arange(len(labels))
    held = train % 10 == 9
    rows = ProtocolRows(train[~held], train[held], train, train[:1], train[:0])
    assert rows.thinned(labels, len(train)) is rows
    fewer = rows.thinned(labels, 600)
    for name, share in (("fit", 600 / len(train)), ("train", 600 / len(train))):
        kept, whole = getattr(fewer, name), getattr(rows, name)
        assert np.all(np.diff(kept) > 0) and np.isin(kept, whole).all()
        counts, before = (np.bincount(labels[some], minlength=3) for some in (kept, whole))
        assert np.all(np.abs(counts - np.maximum(2, before * share)) <= 2)
        gaps = np.diff(kept[labels[kept] == 0])[1:]
        assert gaps.max() <= 1.5 * gaps.mean() + 1
    np.testing.assert_array_equal(fewer.selection, rows.selection)


@pytest.mark.parametrize("limit", [2_000, LARGE])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.filterwarnings("ignore:May not flag")
def test_label_errors_are_those_of_cleanlab_however_little_is_held(
    limit: int, missing: bool
) -> None:
    from cleanlab.filter import find_label_issues

    random = np.random.default_rng(0)
    truth = np.concatenate([random.integers(0, 6, 400), [6] * 5])
    scores = random.normal(size=(len(truth), 8 if missing else 7))
    scores[np.arange(len(truth)), truth] += 2.5
    given = np.where(random.random(len(truth)) < 0.2, random.integers(0, 6, len(truth)), truth)
    given[-5:] = 6
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    wanted = find_label_issues(given, chances, filter_by="both", n_jobs=1)
    with memory_budget(limit):
        found = find_errors(given, chances)
        groups = list(_groups(given, 100))
    np.testing.assert_array_equal(found, wanted)
    assert wanted.sum() > 20
    assert len(groups) > 2 and all(len(np.unique(given[rows])) >= 2 for rows in groups)
    np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(len(given)))


def test_scratch_is_held_or_lies_in_a_file() -> None:
    for limit, kind in ((1_000, np.memmap), (LARGE, np.ndarray)):
        with memory_budget(limit):
            array = scratch((50, 20), np.float32)
        assert type(array) is kind
        array[:] = 7
        assert array.sum() == 7_000
