"""The log-loss of softmax regression over standardised rows, and its gradient, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onepass.classify.heads.lazy_rows import Chosen, Rows, held

BLOCK = 4_096  # rows


@dataclass(frozen=True, slots=True)
class LossAndGradient:
    """The mean log-loss over some rows at a point.

    Attributes:
        loss: In nats.
        gradient: (D + 1, K) float32, the bias last.
        spread: Mean over rows and classes of (probability - target)²: what p (1 - p) is on average
            where the probabilities are right.
    """

    loss: float
    gradient: np.ndarray
    spread: float


@dataclass(frozen=True, slots=True)
class SoftmaxObjective:
    """The mean log-loss of softmax regression on standardised rows, as a function of the weights.

    Attributes:
        X: Standardised rows (n, D) float32, which are read again and again.
        numbers: (n,) class of each row, 0 … classes - 1.
        classes: K.
        weights: What the loss of a row of each class counts, (K,); None: all alike.
    """

    X: Rows
    numbers: np.ndarray
    classes: int
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def features(self) -> int:
        """D."""
        return int(self.X.shape[1])

    def share(self) -> np.ndarray:
        """Return the share of each class, (K,) float64; no class is given less than half a row."""
        counts = np.bincount(self.numbers, minlength=self.classes)
        weighted = counts if self.weights is None else counts * self.weights
        return np.maximum(weighted, 0.5) / len(self)

    def sample(self, count: int) -> "SoftmaxObjective":
        """Return `count` rows at most, evenly spread."""
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(np.int64)
        X = held(Chosen(self.X, chosen))
        return SoftmaxObjective(X, self.numbers[chosen], self.classes, self.weights)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield standardised rows (m, D) float32 and their class numbers (m,), in order."""
        for start in range(0, len(self), BLOCK):
            block = slice(start, min(start + BLOCK, len(self)))
            yield self.X[block], self.numbers[block]

    def evaluate(self, weights: np.ndarray) -> LossAndGradient:
        """Return loss and gradient at `weights` (D + 1, K) float32; one pass over the rows."""
        gradient = np.zeros(weights.shape)
        loss = spread = 0.0
        for rows, numbers in self.blocks():
            scores = rows @ weights[:-1]
            scores += weights[-1]
            own = None if self.weights is None else self.weights.astype(np.float32)[numbers]
            loss += residuals(scores, numbers, own)
            gradient[:-1] += rows.T @ scores
            gradient[-1] += scores.sum(axis=0, dtype=np.float64)
            spread += float(np.vdot(scores, scores if own is None else scores / own[:, None]))
        gradient /= len(self)
        return LossAndGradient(
            loss / len(self), gradient.astype(np.float32), spread / (len(self) * self.classes)
        )


def residuals(scores: np.ndarray, numbers: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Turn logits (m, K) into probabilities less targets, in place; return the summed log-loss.

    Both count as much as `weights` (m,) says.
    """
    lines = np.arange(len(numbers))
    scores -= scores.max(axis=1, keepdims=True)
    true = scores[lines, numbers]
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    scores /= total
    scores[lines, numbers] -= 1
    if weights is None:
        return float(np.log(total, dtype=np.float64).sum() - true.sum(dtype=np.float64))
    scores *= weights[:, None]
    return float(weights @ (np.log(total[:, 0], dtype=np.float64) - true))
