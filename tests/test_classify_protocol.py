"""The protocol of honest numbers: who may read which rows, and what the figures mean."""

import numpy as np
import pytest
from classify_store import Digits, digits

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.lazy_rows import take
from onepass.classify.heads.linear.ridge import Ridge
from onepass.classify.heads.registry import PROBES, find_head
from onepass.classify.metrics import apply_temperature, most_probable, top_k
from onepass.classify.protocol.evaluate import ProtocolRows, protocol_rows, run_probe
from onepass.classify.search.search import Trial, best_trial

IDS = [f"n{k:02d}" for k in range(10)]


def digit_rows(data: Digits, seed: int = 0) -> ProtocolRows:
    return protocol_rows(data.opened(), seed)


class Spy:
    """Features that remember which rows were read."""

    def __init__(self, X: np.ndarray) -> None:
        self.X, self.shape, self.dtype = X, X.shape, X.dtype
        self.reads: list[np.ndarray] = []

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        self.reads.append(np.arange(len(self.X))[rows])
        return self.X[rows]


@pytest.mark.parametrize("kind", ["logistic", "ridge", "majority"])
def test_nothing_is_chosen_with_a_reported_row(kind: str) -> None:
    data = digits()
    rows, spy = digit_rows(data), Spy(data.X)
    reads_when: dict[str, int] = {}
    run_probe(
        find_head(kind)(), spy, data.labels, rows,
        note=lambda text: reads_when.setdefault("refitting", len(spy.reads)) if "refitting" in text else None,
    )  # fmt: skip
    before, after = (
        np.concatenate(part)
        for part in (
            spy.reads[: reads_when["refitting"]],
            spy.reads[reads_when["refitting"] :],
        )
    )
    assert set(before) <= set(rows.train)
    assert set(after) == set(rows.train) | set(rows.val) | set(rows.test)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_other_reported_rows_leave_the_same_head(kind: str) -> None:
    data = digits()
    rows = digit_rows(data)
    garbled, labels = data.X.copy(), data.labels.copy()
    generator = np.random.default_rng(5)
    for part in (rows.val, rows.test):
        garbled[part] = generator.normal(size=garbled[part].shape)
        labels[part] = generator.permutation(labels[part])
    honest = run_probe(find_head(kind)(), data.X, data.labels, rows)
    other = run_probe(find_head(kind)(), garbled, labels, rows)
    assert [t.params for t in honest.trials] == [t.params for t in other.trials]
    assert honest.chosen.params == other.chosen.params
    np.testing.assert_array_equal(honest.head.weights_, other.head.weights_)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(honest.selection, other.selection)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if kind == "mlp" else ()) for kind in PROBES],
)
def test_a_feature_that_knows_only_the_reported_rows_is_ignored(kind: str) -> None:
    data = digits()
    rows = digit_rows(data)
    generator = np.random.default_rng(6)
    planted = (
        np.eye(10)[generator.permutation(data.labels)] * 4
    )  # noise where it can be learnt from
    planted[rows.val] = np.eye(10)[data.labels[rows.val]] * 4
    blind = np.concatenate([planted, generator.normal(size=(len(planted), 54))], axis=1)
    both = np.concatenate([data.X, planted], axis=1).astype(np.float16)
    plain, tempted, only = (
        run_probe(find_head(kind)(), X.astype(np.float16), data.labels, rows)
        for X in (data.X, both, blind)
    )
    truth = data.labels[rows.val]
    assert top_k(truth, tempted.val, 1) < top_k(truth, plain.val, 1) + 0.03
    if isinstance(tempted.head, LinearHead):
        weights = np.linalg.norm(tempted.head.weights_, axis=1)
        assert weights[64:].mean() < 0.5 * weights[:64].mean()
    assert only.chosen.accuracy < 0.3 < plain.chosen.accuracy  # it would never be chosen


def test_refit_takes_all_training_rows_and_only_them() -> None:
    data = digits()
    rows = digit_rows(data)
    outcome = run_probe(Ridge(), data.X, data.labels, rows)
    mean = data.X[rows.train].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(outcome.head.mean_, mean, rtol=1e-9)  # type: ignore[attr-defined]
    fit_mean = data.X[rows.fit].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(outcome.chosen.head.mean_, fit_mean, rtol=1e-9)  # type: ignore[attr-defined]
    assert outcome.val.shape == (len(rows.val), 10) and outcome.test.shape == (len(rows.test), 10)
    raw = outcome.head.predict_proba(data.X[rows.val])
    np.testing.assert_array_equal(outcome.raw_val, most_probable(raw))
    np.testing.assert_array_equal(outcome.val, apply_temperature(raw, outcome.temperature))


class TestRows:
    def test_parts_do_not_overlap_and_seeds_differ(self) -> None:
        data = digits()
        rows, other = digit_rows(data), digit_rows(data, seed=1)
        assert not set(rows.fit) & set(rows.selection)
        assert set(rows.fit) | set(rows.selection) == set(rows.train)
        assert not set(rows.train) & set(rows.val)
        assert len(rows.selection) == pytest.approx(len(rows.train) / 10, abs=1)
        assert set(other.selection) != set(rows.selection)

    def test_a_training_or_reported_row_without_label(self) -> None:
        data = digits()
        for name, code in (("train", 0), ("val", 1)):
            labels = data.labels.copy()
            labels[np.flatnonzero(data.split == code)[:3]] = -1
            with pytest.raises(InvalidInputError, match=rf"split '{name}'.* 3 of them without"):
                protocol_rows(data.opened(labels=labels), 0)

    def test_no_reported_rows(self) -> None:
        data = digits()
        data.split[data.split == 1] = 2
        with pytest.raises(InvalidInputError, match=r"split 'val'.* received 0 rows"):
            digit_rows(data)

    def test_a_class_without_training_rows(self) -> None:
        data = digits()
        data.split[(data.labels == 4) & (data.split == 0)] = 1
        with pytest.raises(
            InvalidInputError,
            match=r"class n04: expected at least two training images.* received none",
        ):
            digit_rows(data)

    def test_one_class(self) -> None:
        data = digits()
        with pytest.raises(InvalidInputError, match="one class only"):
            one = {"class_ids": ["n00"], "class_names": ["n00"]}
            protocol_rows(data.opened(labels=data.labels * 0, **one), 0)

    def test_too_few_rows_to_hold_any_out(self) -> None:
        data = Digits(
            np.zeros((4, 8, 8, 1), np.uint8),
            np.array([0, 1, 0, 1], np.int32),
            np.array([0, 0, 1, 1], np.int8),
        )
        with pytest.raises(InvalidInputError, match="to select on"):
            protocol_rows(data.opened(), 0)

    def test_equal_images_are_not_parted_and_alone_are_too_few(self) -> None:
        pixels = np.repeat(np.arange(3, dtype=np.uint8), [2, 2, 2]).reshape(6, 1, 1, 1)
        labels, split = (
            np.array([0, 0, 1, 1, 0, 1], np.int32),
            np.array([0, 0, 0, 0, 1, 1], np.int8),
        )
        with pytest.raises(InvalidInputError, match=r"two different training images .* all 4"):
            protocol_rows(Digits(pixels, labels, split).opened(), 0)

    def test_rows_that_follow_one_another_are_not_copied(self) -> None:
        X = np.arange(20).reshape(10, 2)
        assert np.shares_memory(take(X, np.arange(3, 7)), X)
        np.testing.assert_array_equal(take(X, np.arange(3, 7)), X[3:7])
        np.testing.assert_array_equal(take(X, np.array([1, 4])), X[[1, 4]])
        assert take(X, np.array([], int)).shape == (0, 2)


def test_ties_go_to_the_lower_log_loss_then_to_the_earlier() -> None:
    figures = [(0.5, 1.0), (0.6, 0.9), (0.6, 0.8), (0.6, 0.8)]
    trials = [Trial({"k": k}, *figure, figure[0], Ridge()) for k, figure in enumerate(figures)]
    assert best_trial(trials).params == {"k": 2}
