"""What is computed from probabilities: calibration, ROC, precision and recall, class by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

BINS = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against accuracy, by equal bins of confidence; empty bins are left out.

    Attributes:
        confidence: (b,) mean probability of the most probable class.
        accuracy: (b,) share of rows that are right.
        count: (b,) rows.
        error: Expected calibration error: mean distance of the two, by rows, 0 … 1.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    error: float

    @property
    def mean(self) -> float:
        """Mean confidence of all rows."""
        return float(np.average(self.confidence, weights=self.count))

    @property
    def right(self) -> float:
        """Share of all rows that are right."""
        return float(np.average(self.accuracy, weights=self.count))


def reliability(probabilities: np.ndarray, correct: np.ndarray) -> Reliability:
    """Return how confidence and accuracy agree (Guo et al., ICML 2017).

    Args:
        probabilities: (n, K).
        correct: Whether the predicted class is right, bool (n,).
    """
    sure = np.minimum(probabilities.max(axis=1).astype(np.float64), 1.0)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    there = count > 0
    confidence = np.bincount(bins, sure, BINS)[there] / count[there]
    accuracy = np.bincount(bins, correct, BINS)[there] / count[there]
    error = float(np.sum(count[there] * np.abs(confidence - accuracy)) / len(sure))
    return Reliability(confidence, accuracy, count[there], error)


def stored_reliability(bins: Sequence[Mapping[str, Any]], error: float) -> Reliability:
    """Return a diagram that `onepass.classify.calibration` stored: bins with confidence, accuracy and count."""
    full = [one for one in bins if one["count"]]
    confidence, accuracy, count = (
        np.array([one[name] for one in full]) for name in ("confidence", "accuracy", "count")
    )
    return Reliability(confidence, accuracy, count, float(error))


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve over all thresholds of a score.

    Attributes:
        x, y: Its points.
        area: Area under a ROC curve, or average precision.
        decision: The point at the threshold of one half, where a two-class model decides.
    """

    x: np.ndarray
    y: np.ndarray
    area: float
    decision: tuple[float, float]


def roc(scores: np.ndarray, positive: np.ndarray) -> Curve:
    """Return the ROC curve of scores (n,) for rows that are positive or not, bool (n,)."""
    false, true, _ = roc_curve(positive, scores)
    rates = rates_of(scores > 0.5, positive)
    point = (1 - rates.specificity, rates.sensitivity)
    return Curve(false, true, float(roc_auc_score(positive, scores)), point)


def precision_recall(scores: np.ndarray, positive: np.ndarray) -> Curve:
    """Return precision over recall of scores (n,) for rows that are positive or not, bool (n,)."""
    precision, recall, _ = precision_recall_curve(positive, scores)
    rates = rates_of(scores > 0.5, positive)
    area = float(average_precision_score(positive, scores))
    return Curve(recall, precision, area, (rates.sensitivity, rates.precision))


@dataclass(frozen=True, slots=True)
class Rates:
    """What became of positive and negative rows.

    Attributes:
        true_positive, false_positive, false_negative, true_negative: Rows.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def sensitivity(self) -> float:
        """Share of the positive rows that were found."""
        return self.true_positive / max(1, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Share of the negative rows that were left alone."""
        return self.true_negative / max(1, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float:
        """Share of what was taken for positive that is; 1 where nothing was."""
        taken = self.true_positive + self.false_positive
        return self.true_positive / taken if taken else 1.0


def rates_of(taken: np.ndarray, positive: np.ndarray) -> Rates:
    """Count the rows, bool (n,), that were taken for positive against those that are."""
    return Rates(
        int(np.sum(taken & positive)),
        int(np.sum(taken & ~positive)),
        int(np.sum(~taken & positive)),
        int(np.sum(~taken & ~positive)),
    )
