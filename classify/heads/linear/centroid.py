"""The nearest class mean."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.cache.memory import scratch
from onepass.classify.heads.base import Head
from onepass.classify.heads.lazy_rows import blocks
from onepass.classify.heads.linear.moments import Moments
from onepass.classify.heads.scaler import Scaler

METRICS = ("euclidean", "cosine")


@dataclass(eq=False, repr=False)
class Centroid(Head):
    """Assigns each row to the class whose mean is nearest, in standardised features.

    The logit of a class is `x · m - ||m||² / 2` for the Euclidean metric (half the squared distance,
    less what all classes share) and the cosine of x and m for the other.

    Args:
        metric: "cosine" or "euclidean".
        temperature: Divides the logits.

    Attributes:
        mean_, scale_: (D,) float64, of the rows that it was fitted on.
        means_: (D, K) float32.
    """

    kind = "centroid"
    CALIBRATED: ClassVar[tuple[str, ...]] = ("temperature",)
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **Head.ARRAYS,
        "mean_": ("D", "f"),
        "scale_": ("D", "f"),
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

    def logits(self, X: Any) -> np.ndarray:
        """Return the logits, (n, K): float64 where X is, else float32."""
        X = self.check_features(X)
        kind = np.float64 if X.dtype == np.float64 else np.float32
        scaler, means = Scaler(self.mean_, self.scale_), self.means_.astype(kind)
        lengths = np.linalg.norm(means, axis=0)
        out = scratch((len(X), len(self.classes_)), kind)
        for block in blocks(X):
            rows = scaler.apply(X[block], kind)
            np.matmul(rows, means, out=out[block])
            if self.metric == "cosine":
                out[block] /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        if self.metric == "cosine":
            out /= np.maximum(lengths, 1e-12)
        else:
            out -= lengths**2 / 2
        out /= kind(self.temperature)
        return out
