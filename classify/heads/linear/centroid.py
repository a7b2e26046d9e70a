"""The nearest class mean."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import StandardisedHead
from onepass.classify.heads.linear.moments import Moments

METRICS = ("euclidean", "cosine")


@dataclass(eq=False, repr=False)
class Centroid(StandardisedHead):
    """Assigns each row to the class whose mean is nearest, in standardised features.

    The logit of a class is `x · m - ||m||² / 2` for the Euclidean metric (half the squared distance,
    less what all classes share) and the cosine of x and m for the other.

    Args:
        metric: "cosine" or "euclidean".
        temperature: Divides the logits.

    Attributes:
        means_: (D, K) float32.
    """

    kind = "centroid"
    CALIBRATED: ClassVar[tuple[str, ...]] = ("temperature",)
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **StandardisedHead.ARRAYS,
        "means_": ("DK", "f"),
    }

    metric: str = "cosine"
    temperature: float = 0.1

    def fit(self, X: Any, y: Any) -> Self:
        """Take the mean of each class; see `Head.fit`."""
        if self.metric not in METRICS or not self.temperature > 0:
            raise InvalidInputError(
                f"centroid: expected a metric of {METRICS} and a temperature above 0, received "
                f"{self.metric!r} and {self.temperature}"
            )
        X, numbers = self.check_training(X, y)
        moments = Moments.of(X, numbers, len(self.classes_), gram=False)
        self.mean_, self.scale_ = moments.scaler.mean, moments.scaler.scale
        self.means_ = moments.means.astype(np.float32)
        return self

    def logits_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits (n, K) of standardised rows (n, D), in their type."""
        means = self.means_.astype(rows.dtype)
        scores, lengths = rows @ means, np.linalg.norm(means, axis=0)
        if self.metric == "cosine":
            scores /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            scores /= np.maximum(lengths, 1e-12)
        else:
            scores -= lengths**2 / 2
        scores /= rows.dtype.type(self.temperature)
        return scores
