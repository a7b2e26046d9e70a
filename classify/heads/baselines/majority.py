"""The most frequent class, always: the simplest baseline."""

from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.memory import scratch
from onepass.classify.heads.base import Head


class Majority(Head):
    """Predicts each class with its share of the training rows, whatever the features.

    Attributes:
        share_: (K,) float64.
    """

    kind = "majority"
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {**Head.ARRAYS, "share_": ("K", "f")}

    def fit(self, X: Any, y: Any) -> Self:
        """Count the classes; see `Head.fit`."""
        _, numbers = self.check_training(X, y)
        self.share_ = np.bincount(numbers) / len(numbers)
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the logarithm of the shares, (n, K) float64."""
        X = self.check_features(X)
        out = scratch((len(X), len(self.share_)), np.float64)
        out[...] = np.log(self.share_)
        return out

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags
