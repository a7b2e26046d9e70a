"""Heads that learn nothing from the features: the most frequent class, always, and a random guess."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.memory import scratch
from onepass.classify.heads.base import Head
from onepass.classify.heads.lazy_rows import blocks

JITTER = 1e-3  # of the logits: the probabilities are 1/K but for a thousandth


class _Blind(Head):
    """A head whose score is poor by intent."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags


class Majority(_Blind):
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


@dataclass(eq=False, repr=False)
class Guess(_Blind):
    """Draws each row's class evenly; its expected accuracy is 1/K, whatever the rows.

    A row's draw depends on its numbers, so that the same rows get the same guess in any order.

    Args:
        seed: Of the draws.
    """

    kind = "guess"

    seed: int = 0

    def fit(self, X: Any, y: Any) -> Self:
        """Remember the classes; see `Head.fit`."""
        self.check_training(X, y)
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return nearly equal logits (n, K) float64, whose order is the guess."""
        X = np.ascontiguousarray(self.check_features(X), dtype=np.float64)
        state = np.full(len(X), self.seed + 1, np.uint64)
        for column in X.view(np.uint64).T:
            state = _mixed(state ^ column)
        steps = np.arange(1, len(self.classes_) + 1, dtype=np.uint64)
        out = scratch((len(X), len(steps)), np.float64)
        for block in blocks(out):
            draws = _mixed(state[block, None] + steps * np.uint64(0x9E3779B97F4A7C15))
            out[block] = (draws >> np.uint64(11)).astype(np.float64) * (JITTER / 2**53)
        return out


def _mixed(state: np.ndarray) -> np.ndarray:
    """Return uint64 numbers with their bits mixed (splitmix64: Steele, Lea and Flood, OOPSLA 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
