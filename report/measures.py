"""Two classes over all thresholds: ROC, precision and recall."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from onepass.classify.metrics import auroc, average_precision


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


def roc(probabilities: np.ndarray, truth: np.ndarray) -> Curve:
    """Return the ROC curve of class 1: probabilities (n, 2), true columns (n,)."""
    scores, positive = probabilities[:, 1], truth == 1
    false, true, _ = roc_curve(positive, scores)
    rates = rates_of(scores > 0.5, positive)
    point = (1 - rates.specificity, rates.sensitivity)
    return Curve(false, true, auroc(truth, probabilities), point)


def precision_recall(probabilities: np.ndarray, truth: np.ndarray) -> Curve:
    """Return precision over recall of class 1: probabilities (n, 2), true columns (n,)."""
    scores, positive = probabilities[:, 1], truth == 1
    precision, recall, _ = precision_recall_curve(positive, scores)
    rates = rates_of(scores > 0.5, positive)
    area = average_precision(truth, probabilities)
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
