"""Every figure that is computed from labels and predictions, each defined here and nowhere else.

`truth` is always the column of the true class of each row, (n,) int; `predicted` the column that was
predicted, (n,) int; `probabilities` (n, K), rows of which add up to 1; `logits` (n, K), their
logarithms up to a constant per row. A share is 0 … 1, a log-loss is in nats.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import special, stats
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, rankdata
from sklearn import metrics

from onepass.cache.artifacts import record
from onepass.cache.errors import unknown_name
from onepass.cache.memory import scratch
from onepass.classify.config import MetricName

LEVEL = 0.95  # of every interval and test
RESAMPLES = 10_000
BLOCK_NUMBERS = 1 << 22  # logits that are worked on at a time
COLUMN_NUMBERS = 1 << 20  # of columns that are sorted at a time
BINS = 15  # of a reliability diagram
SMALLEST = 1e-7  # probability; half-precision numbers end there
TEMPERATURES = (1e-2, 1e2)  # times the expected one
SCORES_SPREAD = float(
    np.log(10)
)  # of log temperature around the scores' deviation: any unit is possible
# Of log temperature around 0, our choice: heads that were fitted by log-loss need 0.8 to 1.3, and a
# few hundred rows outweigh it where a network needs 2.
CALIBRATION_SPREAD = 0.25
FEW = 1_000  # rows: below, a temperature has to prove itself on rows that it was not learnt from
FOLDS = 5


# Predictions ------------------------------------------------------------------------------------


def softmax(logits: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return probabilities (n, K) from logits (n, K), of the same dtype; written into `out`, which may be the same."""
    out = np.empty_like(logits) if out is None else out
    for block in _blocks(logits):
        out[block] = special.softmax(logits[block], axis=1)
    return out


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Return the logarithms (n, K) float32 of probabilities, none below that of SMALLEST."""
    out = scratch(probabilities.shape, np.float32)
    for block in _blocks(probabilities):
        np.log(np.maximum(probabilities[block], SMALLEST), out=out[block], dtype=np.float32)
    return out


# Scores -----------------------------------------------------------------------------------------


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of rows whose predicted class is the true one (top-1)."""
    return float(np.mean(predicted == truth))


def top_k(truth: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Return the share of rows whose true class is among the k most probable.

    Among equal probabilities the class with the lower number comes first, as with argmax
    (`sklearn.metrics.top_k_accuracy_score` prefers the higher number).
    """
    columns, hit = np.arange(probabilities.shape[1]), np.empty(len(truth), bool)
    for block in _blocks(probabilities):
        part, numbers = probabilities[block], truth[block, None]
        own = np.take_along_axis(part, numbers, axis=1)
        ahead = (part > own) | ((part == own) & (columns < numbers))
        hit[block] = ahead.sum(axis=1) < k
    return float(np.mean(hit))


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean recall of the classes that have rows."""
    return float(
        metrics.recall_score(
            truth, predicted, labels=np.unique(truth), average="macro", zero_division=0
        )
    )


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 of the classes that have rows or were predicted."""
    return float(metrics.f1_score(truth, predicted, average="macro", zero_division=0))


def auroc(truth: np.ndarray, probabilities: np.ndarray, positive: int | None = None) -> float:
    """Return the area under the ROC curve of one class against the rest, or the mean of several.

    Args:
        truth, probabilities: Of n rows.
        positive: Column of the class; None: class 1 of two, and the mean of all where there are more.
            Classes that no row or every row has are left out; NaN where none is left.
    """
    areas = []
    for scores, own in one_against_rest(truth, probabilities, positive):
        ranks, hits = rankdata(scores, axis=0), own.sum(axis=0)
        pairs = np.where(own, ranks, 0).sum(axis=0) - hits * (hits + 1) / 2
        areas.append(pairs / (hits * (len(truth) - hits)))
    return float(np.mean(np.concatenate(areas))) if areas else float("nan")


def average_precision(
    truth: np.ndarray, probabilities: np.ndarray, positive: int | None = None
) -> float:
    """Return the average precision of one class against the rest, or the mean of several, as `auroc`."""
    areas = []
    for scores, own in one_against_rest(truth, probabilities, positive):
        _, hits, _, precision = precision_at(scores, own)
        areas.append((precision * hits).sum(axis=0) / hits.sum(axis=0))
    return float(np.mean(np.concatenate(areas))) if areas else float("nan")


def precision_at(
    scores: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the precision from each row on upwards, of m classes, each against the rest.

    Args:
        scores: Probabilities of the classes, (n, m).
        own: Whether each row is of each class, bool (n, m).

    Returns:
        Four arrays (n, m), in falling order of the score: the rows in that order, whether they are of the class,
        the place of the last row of equal score, and the precision of the rows up to that one.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    values = np.take_along_axis(scores, order, axis=0)
    hits = np.take_along_axis(own, order, axis=0)
    count, classes = scores.shape
    places = np.where(values[:-1] != values[1:], np.arange(count - 1)[:, None], count)
    places = np.vstack([places, np.full(classes, count - 1)])
    last = np.minimum.accumulate(places[::-1], axis=0)[::-1]
    return order, hits, last, np.take_along_axis(hits.cumsum(axis=0), last, axis=0) / (last + 1)


def one_against_rest(
    truth: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for a few at a time of the classes that a mean is of, their probabilities, (n, m), and whose rows are
    theirs, bool (n, m)."""
    columns = columns_of(np.bincount(truth, minlength=probabilities.shape[1]), positive)
    size = max(1, COLUMN_NUMBERS // len(truth))
    for start in range(0, len(columns), size):
        some = columns[start : start + size]
        yield probabilities[:, some], truth[:, None] == some


def columns_of(counts: np.ndarray, positive: int | None) -> np.ndarray:
    """Return the columns (m,) of the classes that are compared with the rest.

    Args:
        counts: Rows of each class, (K,).
        positive: As for `auroc`.
    """
    if positive is None and len(counts) == 2:
        positive = 1
    columns = np.arange(len(counts)) if positive is None else np.array([positive])
    return columns[(counts[columns] > 0) & (counts[columns] < counts.sum())]


def log_loss(truth: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean negative log-probability (nats) of the true classes.

    Args:
        truth: (n,) true columns.
        logits: (n, K); of probabilities, give their `log_probabilities`.
    """
    own = np.empty(len(truth))
    for block in _blocks(logits):
        scores, numbers = special.log_softmax(logits[block], axis=1), truth[block]
        own[block] = scores[np.arange(len(numbers)), numbers]
    return float(-np.mean(own))


def _blocks(logits: np.ndarray) -> Iterator[slice]:
    """Yield slices that cover the rows (n, K): what is computed of a block is small beside all of them."""
    rows = max(1, BLOCK_NUMBERS // logits.shape[1])
    yield from (slice(start, start + rows) for start in range(0, len(logits), rows))


# Metrics to choose by -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metric:
    """What heads, hyper-parameters, epochs and ensembles are chosen by.

    Attributes:
        name: As `--metric` takes it.
        label: In a sentence or above a column.
        function: (truth (n,), probabilities (n, K), positive) → value.
        greater_is_better: Whether the best value is the greatest.
        share: Whether it is printed in percent.
        one_class: Whether it looks at one class of two, or of more where that is named.
        positive: Column of that class; None: class 1 of two, the mean over all of more.
    """

    name: MetricName
    label: str
    function: Callable[[np.ndarray, np.ndarray, int | None], float]
    greater_is_better: bool = True
    share: bool = False
    one_class: bool = False
    positive: int | None = None

    @property
    def identity(self) -> list[str | int | None]:
        """What the id of a probe that was chosen by it holds; nothing for top-1, which needs no word."""
        return [] if self.name == "top1" else [self.name, self.positive if self.one_class else None]

    def value(self, truth: np.ndarray, probabilities: np.ndarray) -> float:
        """Return the metric of n rows; NaN where it has no meaning, such as an AUROC of one class."""
        return self.function(truth, probabilities, self.positive)

    def value_of_logits(self, truth: np.ndarray, logits: np.ndarray) -> float:
        """Return the metric of logits (n, K), whose probabilities are computed in float64."""
        chances = scratch(logits.shape, np.float64)
        for block in _blocks(logits):
            chances[block] = special.softmax(logits[block].astype(np.float64), axis=1)
        return self.value(truth, chances)

    def merit(self, value: float | None) -> float:
        """Return a value so that the greatest is the best; what is no number is the worst."""
        if value is None or not np.isfinite(value):
            return -np.inf
        return value if self.greater_is_better else -value

    def text(self, value: float) -> str:
        """Return a value as it is printed: `59.4 %` or `0.594`."""
        return f"{100 * value:.1f} %" if self.share else f"{value:.3f}"


def true_log_probabilities(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the logarithm of the true class's probability of each row, (n,) float64, not below SMALLEST's."""
    own = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return np.log(np.maximum(own, SMALLEST))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("top1", "top-1", lambda truth, p, _: accuracy(truth, p.argmax(axis=1)), share=True),
        Metric(
            "balanced",
            "balanced accuracy",
            lambda truth, p, _: balanced_accuracy(truth, p.argmax(axis=1)),
            share=True,
        ),
        Metric(
            "macro-f1",
            "macro F1",
            lambda truth, p, _: macro_f1(truth, p.argmax(axis=1)),
            share=True,
        ),
        Metric("auroc", "AUROC", auroc, one_class=True),
        Metric("average-precision", "average precision", average_precision, one_class=True),
        Metric(
            "log-loss",
            "log-loss",
            lambda truth, p, _: -float(true_log_probabilities(truth, p).mean()),
            False,
        ),
    )
}
TOP1 = METRICS["top1"]


def find_metric(name: str, positive: int | None = None) -> Metric:
    """Return a metric by its name, for a positive class.

    Raises:
        UnknownNameError: There is none of that name; the nearest are named.
    """
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return replace(METRICS[name], positive=positive)


# Calibration ------------------------------------------------------------------------------------


@record
class ReliabilityBin:
    """The rows whose confidence lies in (low, high].

    Attributes:
        low, high: Bounds of the confidence.
        confidence: Mean probability of the predicted class; None without rows.
        accuracy: Share of rows that are right; None without rows.
        count: Rows.
    """

    low: float
    high: float
    confidence: float | None
    accuracy: float | None
    count: int


@record
class Reliability:
    """Confidence against accuracy: a reliability diagram of BINS bins of equal width.

    Attributes:
        bins: In rising order, those without rows included.
        error: Expected calibration error: mean distance of confidence and accuracy, weighted by rows.
    """

    bins: tuple[ReliabilityBin, ...]
    error: float

    @property
    def confidence(self) -> float:
        """Mean confidence of all rows."""
        return self._mean("confidence")

    @property
    def accuracy(self) -> float:
        """Share of all rows that are right."""
        return self._mean("accuracy")

    def _mean(self, name: str) -> float:
        filled = [one for one in self.bins if one.count]
        return float(
            np.average([getattr(b, name) for b in filled], weights=[b.count for b in filled])
        )


def reliability(truth: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Return how far confidence and accuracy agree (Guo, Pleiss, Sun and Weinberger, "On Calibration
    of Modern Neural Networks", ICML 2017, section 2)."""
    return reliability_of(truth, *most_probable(probabilities))


def most_probable(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability and the column of the most probable class of each row, (n,)."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1)


def reliability_of(truth: np.ndarray, confidence: np.ndarray, predicted: np.ndarray) -> Reliability:
    """Return `reliability` of the most probable class of each row, (n,)."""
    confidence, right = np.minimum(confidence.astype(np.float64), 1.0), predicted == truth
    numbers = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        inside = numbers == number
        count = int(inside.sum())
        sure = float(confidence[inside].mean()) if count else None
        share = float(right[inside].mean()) if count else None
        bins.append(ReliabilityBin(number / BINS, (number + 1) / BINS, sure, share, count))
        if sure is not None and share is not None:
            error += count * abs(sure - share) / len(truth)
    return Reliability(tuple(bins), error)


def fit_temperature(
    truth: np.ndarray,
    scores: np.ndarray,
    rows: int | None = None,
    offset: np.ndarray | float = 0.0,
) -> float:
    """Return the divisor that makes logits of scores in any unit: the one of least log-loss.

    It changes no prediction, and is shrunk a little towards the scores' standard deviation.

    Args:
        truth: (n,) true columns of rows that the scores' model was not fitted on.
        scores: (n, K).
        rows: How many rows to look at, evenly spread; None for all.
        offset: Added to the logits of the classes, (K,), when the scores are divided.
    """
    if rows is not None and rows < len(truth):
        few = np.linspace(0, len(truth) - 1, rows).astype(np.int64)
        truth, scores = truth[few], scores[few]
    return _most_probable_temperature(
        truth, scores, float(np.std(scores)) or 1.0, SCORES_SPREAD, offset
    )


def calibration_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature that calibrates probabilities, for `apply_temperature`.

    Temperature scaling (Guo et al., ICML 2017, section 4.2) with a normal prior of log T around 0,
    CALIBRATION_SPREAD wide. Of fewer than FEW rows it is 1 unless temperatures that were learnt on four
    fifths of the rows lower the log-loss of the other fifth, on average.

    Args:
        truth: (n,) true columns of rows that the model was not fitted on.
        probabilities: (n, K).
    """
    if len(truth) < FOLDS:
        return 1.0
    logits = log_probabilities(probabilities)
    if len(truth) < FEW:
        folds = np.arange(len(truth)) % FOLDS
        fitted = [_calibration(truth[folds != k], logits[folds != k]) for k in range(FOLDS)]
        scaled = logits / np.array(fitted, logits.dtype)[folds][:, None]
        if log_loss(truth, scaled) >= log_loss(truth, logits):
            return 1.0
    return _calibration(truth, logits)


def _calibration(truth: np.ndarray, logits: np.ndarray) -> float:
    return _most_probable_temperature(truth, logits, 1.0, CALIBRATION_SPREAD)


def _most_probable_temperature(
    truth: np.ndarray,
    logits: np.ndarray,
    expected: float,
    spread: float,
    offset: np.ndarray | float = 0.0,
) -> float:
    """Return the most probable temperature of a log-normal prior, within TEMPERATURES of the expected.

    The true class counts (n + 1) / (n + 2), the others share the rest (Platt, "Probabilistic Outputs
    for Support Vector Machines", 1999, section 2.2): that all n rows are right is no proof that the next
    one is, and would ask for a temperature of 0.
    """
    rows, others = len(truth), max(logits.shape[1] - 1, 1)
    share = (rows + 1) / (rows + 2)

    def loss(power: float) -> float:
        right = total = 0.0
        for block in _blocks(logits):
            divided = logits[block] / logits.dtype.type(expected * np.exp(power)) + offset
            scaled, numbers = special.log_softmax(divided, axis=1), truth[block]
            own = scaled[np.arange(len(numbers)), numbers]
            right += float(own.sum(dtype=np.float64))
            total += float(scaled.sum(dtype=np.float64))
        wrong = total - right
        return power**2 / (2 * spread**2) - share * right - (1 - share) * wrong / others

    found = minimize_scalar(
        loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-3}
    )
    return float(expected * np.exp(found.x))


def apply_temperature(
    probabilities: np.ndarray, temperature: float, out: np.ndarray | None = None
) -> np.ndarray:
    """Return the probabilities (n, K) at a temperature, written into `out`, which may be the same; the most probable
    class stays so."""
    if temperature == 1.0 or not len(probabilities):
        return probabilities
    out = scratch(probabilities.shape, np.float32) if out is None else out
    for block in _blocks(probabilities):
        logits = log_probabilities(probabilities[block])
        softmax(logits / np.float32(temperature), out=out[block])
    return out


def change_prior(probabilities: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return probabilities (n, K) as they are where the classes are mixed otherwise.

    Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
    Neural Computation 14, 2002, equation 2.4: images of each class look the same, only their number differs.

    Args:
        probabilities: (n, K), for the mix before.
        before: Share of each class that they are for, (K,), above 0.
        after: Share of each class that they are to be for, (K,); in any unit.
    """
    changed = probabilities * (after / before).astype(probabilities.dtype)
    return changed / changed.sum(axis=1, keepdims=True)


# Mistakes ---------------------------------------------------------------------------------------


def risk_coverage(probabilities: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return the share of wrong answers among the 1, 2, …, n most confident ones, (n,) float64.

    Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NIPS 2017.

    Args:
        probabilities: (n, K).
        correct: (n,) bool, whether the most probable class is the true one.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    wrong = ~correct[np.argsort(-confidence, kind="stable")]
    return np.cumsum(wrong) / np.arange(1, len(wrong) + 1)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each true class (row) was predicted as each class (column): (K, K) int64."""
    return metrics.confusion_matrix(truth, predicted, labels=np.arange(classes))


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return the share of each class's rows that is right (its recall), (K,) float64; NaN without rows."""
    rows = confusion.sum(axis=1)
    return np.where(rows > 0, confusion.diagonal() / np.maximum(rows, 1), np.nan)


def worst_classes(confusion: np.ndarray, count: int) -> list[int]:
    """Return the classes of lowest accuracy, worst first; those without rows are left out."""
    order = np.argsort(class_accuracy(confusion), kind="stable")  # NaN comes last
    return [int(k) for k in order[:count] if confusion[k].sum()]


def confused_pairs(
    confusion: np.ndarray, count: int, *, symmetric: bool = False
) -> list[tuple[int, int, int]]:
    """Return the pairs of classes most often confused: (true class, predicted class, how often).

    Args:
        confusion: (K, K), from `confusion_matrix`.
        count: Pairs at most; fewer where no more were confused.
        symmetric: Add up both directions of a pair, whose lower class then comes first.
    """
    off = confusion - np.diag(confusion.diagonal())
    if symmetric:
        off = np.triu(off + off.T)
    order = np.argsort(-off, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, off.shape), strict=True)
    return [(int(i), int(j), int(off[i, j])) for i, j in places if off[i, j]]


def confident_mistakes(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, count: int | None = None
) -> np.ndarray:
    """Return the positions of the wrong rows, (≤ count,), those of the most probable class first.

    Args:
        truth, predicted, probabilities: Of n rows.
        count: How many are wanted; None for all.
    """
    wrong = np.flatnonzero(predicted != truth)
    confidence = probabilities[wrong, predicted[wrong]].astype(np.float64)
    return wrong[np.argsort(-confidence, kind="stable")[:count]]


# Detection --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """How many of some rows are of a kind.

    Attributes:
        count: Those.
        rows: All of them; may be 0.
    """

    count: int
    rows: int

    @property
    def value(self) -> float | None:
        """The share, 0 … 1; None where there are no rows."""
        return self.count / self.rows if self.rows else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval, Wilson's (Brown, Cai and DasGupta, "Interval Estimation for a Binomial
        Proportion", Statistical Science 16, 2001); None where there are no rows."""
        if not self.rows:
            return None
        found = binomtest(self.count, self.rows).proportion_ci(LEVEL, method="wilson")
        return float(found.low), float(found.high)


@record
class Detection:
    """How one class, the positive one, is told from all others: rows by their truth and their answer."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def sensitivity(self) -> Share:
        """Share of the positive rows that were found: the recall, or true positive rate."""
        return Share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Share:
        """Share of the negative rows that were left alone."""
        return Share(self.true_negative, self.true_negative + self.false_positive)

    @property
    def false_alarms(self) -> Share:
        """Share of the negative rows that were called positive: the false positive rate."""
        return Share(self.false_positive, self.true_negative + self.false_positive)

    @property
    def precision(self) -> Share:
        """Share of the rows called positive that are."""
        return Share(self.true_positive, self.true_positive + self.false_positive)


def detection(positive: np.ndarray, called: np.ndarray) -> Detection:
    """Return how often each answer was given.

    Args:
        positive: Whether each row is of the positive class, bool (n,).
        called: Whether it was called so, bool (n,).
    """
    (true_negative, false_positive), (false_negative, true_positive) = metrics.confusion_matrix(
        positive, called, labels=[False, True]
    ).tolist()
    return Detection(true_positive, false_positive, false_negative, true_negative)


# Uncertainty ------------------------------------------------------------------------------------


def confidence_interval(
    values: np.ndarray, seed: int = 0, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> tuple[float, float]:
    """Return the 95 % interval of a mean, such as that of an accuracy; it is never of width 0.

    The percentile bootstrap. Rows of which each has the same value leave it nothing to draw from:
    then as many of the unseen rows may be otherwise as Wilson's interval for 0 of n allows, and
    8 of 8 right is 0.68 … 1.

    Args:
        values: (n,), n >= 1, of few different values: whether each row is right, or the difference of
            two models on each row.
        seed: Of the draws.
        bounds: Least and greatest value that a row can have.
    """
    kinds, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    n = len(values)
    if len(kinds) == 1:
        value, (least, greatest) = float(kinds[0]), bounds
        other = float(binomtest(0, n).proportion_ci(LEVEL, method="wilson").high)
        return value - other * (value - least), value + other * (greatest - value)
    # n draws with replacement out of few values are multinomial counts: no loop over rows
    means = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES) @ kinds / n
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def corrected_interval(figures: np.ndarray, ratio: float) -> tuple[float, float]:
    """Return the 95 % interval of a mean over folds; see `corrected_t_test`."""
    half = stats.t.ppf((1 + LEVEL) / 2, len(figures) - 1) * _corrected_error(figures, ratio)
    return float(np.mean(figures) - half), float(np.mean(figures) + half)


def corrected_t_test(differences: np.ndarray, ratio: float) -> float:
    """Return the two-sided p-value of the mean of differences between two models over the same folds.

    The folds share most of the rows that they are fitted on, so their differences are not independent: the
    variance of the mean is taken as (1/J + n_test/n_train) of that of the J differences (Nadeau and Bengio,
    "Inference for the Generalization Error", Machine Learning 52, 2003).

    Args:
        differences: (J,), one a fold, J >= 2.
        ratio: Rows held out to rows fitted on: 1/4 for five folds.
    """
    mean, error = float(np.mean(differences)), _corrected_error(differences, ratio)
    if error == 0:
        return 0.0 if mean else 1.0
    return float(2 * stats.t.sf(abs(mean) / error, len(differences) - 1))


def _corrected_error(figures: np.ndarray, ratio: float) -> float:
    return float(np.sqrt((1 / len(figures) + ratio) * np.var(figures, ddof=1)))


class Verdict(StrEnum):
    """What a test says of a first model beside a second."""

    BETTER = "significantly better"
    WORSE = "significantly worse"
    TIE = "no significant difference"


def verdict(gain: float, p_value: float) -> Verdict:
    """Return what a difference of two accuracies and its p-value mean at the 5 % level."""
    if p_value >= 1 - LEVEL:
        return Verdict.TIE
    return Verdict.BETTER if gain > 0 else Verdict.WORSE


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same rows, by McNemar's test.

    Attributes:
        first: Id of the one model.
        second: Id of the other.
        only_first: Rows that only the first has right.
        only_second: Rows that only the second has right.
        rows: Rows in all.
        p_value: Probability of counts at least as uneven if both models were equally good.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    rows: int
    p_value: float

    @property
    def gain(self) -> float:
        """Accuracy of the first less that of the second."""
        return (self.only_first - self.only_second) / self.rows

    @property
    def verdict(self) -> Verdict:
        """Whether the first is better."""
        return verdict(self.gain, self.p_value)


def compare(
    first: str, second: str, first_correct: np.ndarray, second_correct: np.ndarray
) -> Comparison:
    """Compare two models on the rows that both were scored on.

    Args:
        first, second: Their ids.
        first_correct, second_correct: Whether each row is right, bool (n,), in the same order.
    """
    only_first = int(np.sum(first_correct & ~second_correct))
    only_second = int(np.sum(second_correct & ~first_correct))
    p_value = mcnemar(only_first, only_second)
    return Comparison(first, second, only_first, only_second, len(first_correct), p_value)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided mid-p value of McNemar's test for the two discordant counts.

    Under the null the smaller count is binomial(n, 1/2); the observed value counts half. Exact, but
    less conservative than the exact test (Fagerland, Lydersen and Laake, BMC Medical Research
    Methodology 13:91, 2013).
    """
    total, smaller = only_first + only_second, min(only_first, only_second)
    if total == 0:
        return 1.0
    below = float(special.bdtr(smaller - 1, total, 0.5)) if smaller else 0.0
    return min(1.0, below + float(special.bdtr(smaller, total, 0.5)))
