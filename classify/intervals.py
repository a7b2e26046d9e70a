"""How sure a metric is: 95 % intervals of all of them, and the paired test of two models.

Resampling the rows of each class, or whole groups, is done in its limit of endlessly many resamples (the
infinitesimal jackknife: Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", SIAM, 1982, chapter 6),
which needs no draws: what a metric changes by when a row counts a little more, its influence, has a variance
within each class. Of AUROC it is that of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988). Variances within a class of n rows
are multiplied by n / (n - 1), which a plain bootstrap leaves out (Rao and Wu, JASA 83, 1988), and Student's t has as
many degrees of freedom as the smallest class or the groups give; for macro F1, in which each class has a part, Welch's
(Biometrika 34, 1947).

Intervals of shares are symmetric in the logit, that of a log-loss in the logarithm: they stay in their range, and
cover better where few rows are wrong (Boyd, Eng and Page, "Area Under the Precision-Recall Curve", ECML 2013). That of
a mean of recalls adds the squares of the arms of their own intervals (Newcombe, "Interval estimation for the
difference between independent proportions", Statistics in Medicine 17, 1998, method 10): of 10 rows of the rare class
all may be right, and a variance says nothing then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from scipy.stats import rankdata

from onepass.cache.artifacts import record
from onepass.classify.metrics import (
    LEVEL,
    METRICS,
    SMALLEST,
    Metric,
    Share,
    Verdict,
    columns_of,
    find_metric,
    one_against_rest,
    precision_at,
    true_log_probabilities,
    verdict,
)

Influence = Callable[[np.ndarray, np.ndarray, int | None], np.ndarray]


@record
class Estimate:
    """A metric on some rows.

    Attributes:
        value: Of these rows.
        low, high: Ends of its 95 % interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Two models on the same rows, by one metric.

    Attributes:
        metric: The metric.
        first, second: Its values.
        low, high: 95 % interval of the first less the second.
        p_value: Two-sided, that they are equally good.
    """

    metric: Metric
    first: float
    second: float
    low: float
    high: float
    p_value: float

    @property
    def gain(self) -> float:
        """The value of the first less that of the second."""
        return self.first - self.second

    @property
    def verdict(self) -> Verdict:
        """Whether the first is better."""
        return verdict(self.metric.merit(self.first) - self.metric.merit(self.second), self.p_value)


def estimate(
    metric: Metric,
    truth: np.ndarray,
    probabilities: np.ndarray,
    groups: Sequence[str] | None = None,
) -> Estimate | None:
    """Return a metric with its 95 % interval, which is never of width 0.

    Where no row's weight matters, such as where all are right, as many of the unseen rows may be otherwise as
    Wilson's interval allows for none of the rows that count.

    Args:
        metric: With its positive class.
        truth, probabilities: Of n rows.
        groups: Whose each row is, (n,); "" is a group of one. Groups are resampled, not rows.

    Returns:
        None where the metric has no meaning.
    """
    return _estimate(metric, truth, probabilities, _numbered(groups))


def _estimate(
    metric: Metric, truth: np.ndarray, probabilities: np.ndarray, group: np.ndarray | None
) -> Estimate | None:
    value = metric.value(truth, probabilities)
    if not np.isfinite(value):
        return None
    if metric.name == "balanced" and group is None:
        return _of_recalls(value, truth, probabilities)
    influence = INFLUENCES[metric.name](truth, probabilities, metric.positive)
    error = standard_error(influence, truth, group)
    units = len(truth) if group is None else int(group.max()) + 1  # that are resampled
    greatest = 1.0 if metric.name != "log-loss" else -np.log(SMALLEST)
    if error <= 1e-12 or not 0 < value < greatest:
        counts = np.bincount(truth, minlength=probabilities.shape[1])
        rows = min(effective_rows(metric, counts), units)
        other = float(stats.norm.ppf((1 + LEVEL) / 2) ** 2)
        other /= rows + other  # Wilson's upper end for 0 of `rows`
        return Estimate(value, value - other * value, value + other * (greatest - value))
    first: np.ndarray | slice = slice(None)
    if group is not None:  # its rows of one class count once
        first = np.unique(np.stack([group, truth]), axis=1, return_index=True)[1]
    fewest = _smallest_class(metric, truth[first], probabilities.shape[1])
    degrees = min(fewest, units) - 1.0
    if metric.name == "macro-f1" and group is None:  # each class has a part in it
        degrees = _degrees_of_freedom(influence, truth)
    half = float(stats.t.ppf((1 + LEVEL) / 2, max(degrees, 1))) * error
    if greatest > 1:
        return Estimate(value, value * np.exp(-half / value), value * np.exp(half / value))
    half /= value * (1 - value)
    middle = special.logit(value)
    return Estimate(value, float(special.expit(middle - half)), float(special.expit(middle + half)))


def _of_recalls(value: float, truth: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Return the mean of the classes' recalls with the interval that theirs give."""
    right, counts = probabilities.argmax(axis=1) == truth, np.bincount(truth)
    known = np.flatnonzero(counts)
    hits = np.bincount(truth, right)[known].astype(int)
    ends = [
        Share(int(hit), int(rows)).interval for hit, rows in zip(hits, counts[known], strict=True)
    ]
    arms = np.abs(np.array(ends) - (hits / counts[known])[:, None])
    below, above = np.sqrt((arms**2).sum(axis=0)) / len(known)
    return Estimate(value, float(value - below), float(value + above))


def estimates(
    truth: np.ndarray,
    probabilities: np.ndarray,
    positive: int | None,
    groups: Sequence[str] | None = None,
) -> dict[str, Estimate]:
    """Return every metric that has a meaning, by its name; see `estimate`."""
    group = _numbered(groups)
    found = {
        name: _estimate(find_metric(name, positive), truth, probabilities, group)
        for name in METRICS
    }
    return {name: one for name, one in found.items() if one is not None}


def difference(
    metric: Metric,
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence[str] | None = None,
) -> Difference:
    """Compare two models on the same rows by a metric.

    Args:
        metric: With its positive class.
        truth: Of n rows.
        first, second: Probabilities of the two models, (n, K).
        groups: As for `estimate`.
    """
    one, other = (metric.value(truth, p) for p in (first, second))
    influence = INFLUENCES[metric.name]
    parted = influence(truth, first, metric.positive) - influence(truth, second, metric.positive)
    error = standard_error(parted, truth, _numbered(groups))
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    gain = one - other
    p_value = float(2 * stats.norm.sf(abs(gain) / error)) if error else float(gain == 0)
    return Difference(metric, one, other, gain - half, gain + half, p_value)


def standard_error(
    influence: np.ndarray, truth: np.ndarray, group: np.ndarray | None = None
) -> float:
    """Return the standard error of a mean of influences (n,), within classes or between groups.

    Args:
        influence: (n,).
        truth: Class of each row, (n,).
        group: Number of each row's group, (n,), from 0.
    """
    if group is None:
        squares = _squares_by_class(influence, truth)[0].sum()
    else:
        sums = np.bincount(group, influence)
        count = len(sums)
        squares = np.sum((sums - sums.mean()) ** 2) * count / max(count - 1, 1)
    return float(np.sqrt(squares)) / len(influence)


def _squares_by_class(influence: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each class's part (K,) of the squared error of a sum of influences, and its rows (K,)."""
    _, of_row = np.unique(truth, return_inverse=True)
    counts = np.bincount(of_row)
    centred = influence - (np.bincount(of_row, influence) / counts)[of_row]
    return np.bincount(of_row, centred**2) * counts / np.maximum(counts - 1, 1), counts


def _degrees_of_freedom(influence: np.ndarray, truth: np.ndarray) -> float:
    """Return those of a sum whose classes vary differently (Welch, Biometrika 34, 1947)."""
    squares, counts = _squares_by_class(influence, truth)
    return float(squares.sum() ** 2 / np.sum(squares**2 / np.maximum(counts - 1, 1)))


def effective_rows(metric: Metric, counts: np.ndarray) -> float:
    """Return how many rows a metric is as sure as: of a mean over classes, the small ones decide.

    Args:
        metric: With its positive class; one of one class has a meaning on such rows.
        counts: Rows of each class, (K,).
    """
    if metric.name in ("top1", "log-loss"):
        return float(counts.sum())
    columns = columns_of(counts, metric.positive) if metric.one_class else np.flatnonzero(counts)
    return len(columns) ** 2 / float(np.sum(1 / counts[columns]))


@dataclass(frozen=True, slots=True)
class ClassShares:
    """How a class fares: recall is the share of its rows that were found, precision that of its answers."""

    column: int
    recall: Share
    precision: Share


def class_shares(confusion: np.ndarray) -> list[ClassShares]:
    """Return recall and precision of each class from a confusion matrix (K, K)."""
    right, rows, answers = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        ClassShares(k, Share(int(right[k]), int(rows[k])), Share(int(right[k]), int(answers[k])))
        for k in range(len(confusion))
    ]


def is_uneven(truth: np.ndarray) -> bool:
    """Say whether the largest class has at least twice as many rows as the smallest that has any."""
    counts = np.bincount(truth)
    return bool(counts.max() >= 2 * counts[counts > 0].min())


def _smallest_class(metric: Metric, truth: np.ndarray, classes: int) -> int:
    """Return the rows of the smallest class whose share of right answers a metric is made of."""
    if metric.name in ("top1", "log-loss"):
        return len(truth)
    counts = np.bincount(truth, minlength=classes)
    if metric.one_class:
        hits = counts[columns_of(counts, metric.positive)]
        return int(np.minimum(hits, len(truth) - hits).min())
    return int(counts[counts > 0].min())


def _numbered(groups: Sequence[str] | None) -> np.ndarray | None:
    """Return the number of each row's group, (n,); rows without one are groups of their own."""
    if groups is None:
        return None
    texts = [group or f"\0{row}" for row, group in enumerate(groups)]
    return np.unique(texts, return_inverse=True)[1]


# Influences: what a metric changes by, times n, when a row counts a little more; the mean is 0 ------


def _of_top1(truth: np.ndarray, probabilities: np.ndarray, _: int | None) -> np.ndarray:
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    return right - right.mean()


def _of_balanced(truth: np.ndarray, probabilities: np.ndarray, _: int | None) -> np.ndarray:
    right, counts = probabilities.argmax(axis=1) == truth, np.bincount(truth)
    recall = np.bincount(truth, right) / np.maximum(counts, 1)
    return (right - recall[truth]) * len(truth) / (np.count_nonzero(counts) * counts[truth])


def _of_macro_f1(truth: np.ndarray, probabilities: np.ndarray, _: int | None) -> np.ndarray:
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    right = predicted == truth
    rows = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    known = np.maximum(rows, 1)
    f1 = 2 * np.bincount(truth, right, minlength=classes) / known
    own = (2 * right - f1[truth]) / known[truth] - f1[predicted] / known[predicted]
    return own * len(truth) / np.count_nonzero(rows)


def _of_auroc(truth: np.ndarray, probabilities: np.ndarray, positive: int | None) -> np.ndarray:
    columns = columns_of(np.bincount(truth, minlength=probabilities.shape[1]), positive)
    total = np.zeros(len(truth))
    for column in columns:
        scores, hit = probabilities[:, column], truth == column
        ranks, count = rankdata(scores), int(hit.sum())
        placed = np.empty(len(truth))
        placed[hit] = (ranks[hit] - rankdata(scores[hit])) / (len(truth) - count)
        placed[~hit] = 1 - (ranks[~hit] - rankdata(scores[~hit])) / count
        area = placed[hit].mean()
        total += (placed - area) / np.where(hit, count, len(truth) - count)
    return total * len(truth) / len(columns)


def _of_average_precision(
    truth: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> np.ndarray:
    places, total, classes = np.arange(len(truth))[:, None], np.zeros(len(truth)), 0
    for scores, own in one_against_rest(truth, probabilities, positive):
        order, hits, last, precision = precision_at(scores, own)
        seen, count = last + 1, hits.sum(axis=0)
        area = (precision * hits).sum(axis=0) / count
        # a row counts for the precision at every positive row that stands with it or after it
        begins = np.vstack([np.ones((1, len(count)), bool), last[:-1] == places[:-1]])
        first = np.maximum.accumulate(np.where(begins, places, 0), axis=0)
        after = [
            np.take_along_axis(np.cumsum(part[::-1], axis=0)[::-1], first, axis=0)
            for part in (hits / seen, hits * precision / seen)
        ]
        sorted_ = (hits * (precision - area + after[0]) - after[1]) / count
        placed = np.empty(sorted_.shape)
        np.put_along_axis(placed, order, sorted_, axis=0)
        total += placed.sum(axis=1)
        classes += len(count)
    return total / classes * len(truth)


def _of_log_loss(truth: np.ndarray, probabilities: np.ndarray, _: int | None) -> np.ndarray:
    losses = -true_log_probabilities(truth, probabilities)
    return losses - losses.mean()


INFLUENCES: dict[str, Influence] = {
    "top1": _of_top1,
    "balanced": _of_balanced,
    "macro-f1": _of_macro_f1,
    "auroc": _of_auroc,
    "average-precision": _of_average_precision,
    "log-loss": _of_log_loss,
}
