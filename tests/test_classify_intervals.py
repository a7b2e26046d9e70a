"""Intervals of every metric: against a bootstrap, a reference and by simulation; the paired test."""

import numpy as np
import pytest
from scipy.stats import binom

from onepass.classify.intervals import (
    INFLUENCES,
    class_shares,
    difference,
    estimate,
    estimates,
    is_uneven,
    standard_error,
)
from onepass.classify.metrics import (
    METRICS,
    Verdict,
    confusion_matrix,
    find_metric,
    softmax,
)


def drawn(seed: int, counts: tuple[int, ...], spread: float = 1.5, levels: int = 0):
    """Labels of so many rows of each class, and probabilities that lean towards them; few levels: ties."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(counts)), counts)
    scores = generator.normal(size=(len(truth), len(counts)))
    scores[np.arange(len(truth)), truth] += spread
    probabilities = softmax(scores)
    return truth, np.round(probabilities * levels) / levels if levels else probabilities


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("counts", "levels"), [((60, 240), 0), ((60, 240), 10), ((30, 50, 90), 0)])
def test_an_influence_is_what_one_more_row_changes(
    name: str, counts: tuple[int, ...], levels: int
) -> None:
    truth, probabilities = drawn(0, counts, levels=levels)
    probabilities = np.maximum(probabilities, 1e-3)
    metric = find_metric(name)
    found = INFLUENCES[name](truth, probabilities, None)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    before, copies = metric.value(truth, probabilities), 40
    for row in (0, 1, len(truth) // 2, len(truth) - 1):
        # every row many times, and this one once more: a small change of its weight
        often = np.concatenate([np.tile(np.arange(len(truth)), copies), [row]])
        change = metric.value(truth[often], probabilities[often]) - before
        assert change * len(often) == pytest.approx(found[row], abs=0.02 * np.abs(found).max())


@pytest.mark.parametrize("name", METRICS)
def test_the_error_is_that_of_a_bootstrap_within_classes(name: str) -> None:
    truth, probabilities = drawn(1, (80, 320))
    metric, generator = find_metric(name), np.random.default_rng(0)
    values = []
    for _ in range(400):
        rows = np.concatenate([generator.choice(np.flatnonzero(truth == k), n) for k, n in enumerate((80, 320))])  # fmt: skip
        values.append(metric.value(truth[rows], probabilities[rows]))
    error = standard_error(INFLUENCES[name](truth, probabilities, None), truth)
    assert error == pytest.approx(np.std(values), rel=0.15)


def test_whole_groups_are_resampled() -> None:
    truth, probabilities = drawn(2, (50, 50))
    copied = np.repeat(
        np.arange(100), 4
    )  # four equal pictures of each patient tell no more than one
    groups = [f"patient {row}" for row in copied]
    for metric in METRICS.values():
        one = estimate(metric, truth, probabilities, [f"patient {row}" for row in range(100)])
        four = estimate(metric, truth[copied], probabilities[copied], groups)
        fooled = estimate(metric, truth[copied], probabilities[copied])
        assert four.high - four.low == pytest.approx(one.high - one.low, rel=1e-6)
        assert fooled.high - fooled.low < 0.6 * (four.high - four.low)
    alone = estimate(METRICS["log-loss"], truth, probabilities, [""] * 100)  # rows without a group
    assert alone == estimate(METRICS["log-loss"], truth, probabilities, list(map(str, range(100))))


def test_no_interval_has_width_0() -> None:
    truth, certain = np.repeat([0, 1], [30, 6]), np.eye(2)[np.repeat([0, 1], [30, 6])]
    found = estimates(truth, certain, 1)
    assert all(one.low < one.value or one.high > one.value for one in found.values())
    assert (found["auroc"].value, found["auroc"].high) == (1, 1)
    assert 0.5 < found["average-precision"].low < 0.7  # of 6 positive rows
    constant = estimates(truth, np.tile([0.8, 0.2], (36, 1)), 1)
    assert constant["auroc"].low < 0.5 < constant["auroc"].high
    assert "auroc" not in estimates(np.zeros(5, int), np.tile([0.8, 0.2], (5, 1)), 1)


def test_a_paired_test_sees_what_two_intervals_do_not() -> None:
    truth, better = drawn(3, (40, 400), spread=1.5)
    worse = softmax(np.log(better) + np.random.default_rng(0).normal(scale=1.2, size=better.shape))
    for name in ("average-precision", "auroc", "log-loss"):
        metric = find_metric(name, 0)
        found = difference(metric, truth, better, worse)
        assert found.verdict is Verdict.BETTER and found.p_value < 0.05
        assert found.low <= found.gain <= found.high
        one, other = (estimate(metric, truth, p) for p in (better, worse))
        apart = np.hypot(one.high - one.low, other.high - other.low)
        assert found.high - found.low < 0.95 * apart  # two intervals do not know of the same rows
        same = difference(metric, truth, better, better)
        assert (same.gain, same.p_value, same.verdict) == (0, 1, Verdict.TIE)


def test_recall_and_precision_of_each_class() -> None:
    truth, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    first, second = class_shares(confusion_matrix(truth, predicted, 2))
    assert (first.recall.count, first.recall.rows, first.precision.rows) == (2, 3, 3)
    assert (second.recall.value, second.precision.value) == (0.5, 0.5)
    assert is_uneven(np.repeat([0, 1], [10, 5])) and not is_uneven(np.repeat([0, 1], [9, 5]))


@pytest.mark.parametrize("rare", [10, 20])
@pytest.mark.parametrize(("first", "second"), [(0.9, 0.9), (0.97, 0.95)])
def test_the_interval_of_balanced_accuracy_covers_where_a_class_is_rare(
    rare: int, first: float, second: float
) -> None:
    metric, common = find_metric("balanced"), 100
    truth = np.repeat([0, 1], [common, rare])
    covered = 0.0
    for wrong in range(25):  # of the common class; more have a probability below 1 in 10,000
        for hits in range(rare + 1):
            right = np.concatenate([np.arange(common) >= wrong, np.arange(rare) < hits])
            found = estimate(metric, truth, np.eye(2)[np.where(right, truth, 1 - truth)])
            if found.low <= (first + second) / 2 <= found.high:
                covered += binom.pmf(wrong, common, 1 - first) * binom.pmf(hits, rare, second)
    assert 0.92 < covered < 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_intervals_cover_the_truth(name: str) -> None:
    metric, inside = find_metric(name), 0
    expected = metric.value(*drawn(10_000, (50_000, 40_000, 30_000)))
    for seed in range(500):
        found = estimate(metric, *drawn(seed, (100, 80, 60)))
        inside += found.low <= expected <= found.high
    assert 0.93 <= inside / 500 <= 0.97
