"""The k nearest neighbours by cosine, the nearer ones counting more."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.cache.memory import scratch
from onepass.classify.heads.base import StandardisedHead
from onepass.classify.heads.class_weight import class_weights, log_prior
from onepass.classify.heads.lazy_rows import Mapped, blocks, held
from onepass.classify.heads.neighbours.nearest import nearest, unit_length
from onepass.classify.heads.scaler import Scaler

LONG = 10**10  # comparisons, about ten seconds: their progress is shown
PRIOR = 0.01  # of the votes go to the classes by their share: no class is impossible


@dataclass(eq=False, repr=False)
class Neighbours(StandardisedHead):
    """Votes of the nearest fitted rows, by cosine of standardised features.

    A neighbour of cosine s votes with weight exp(s / temperature), as in Wu, Xiong, Yu and Lin,
    "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4.

    Args:
        k: Neighbours that vote; all rows where there are fewer.
        temperature: The lower, the more the nearest count.
        class_weight: "uncorrected": the votes of each class count the same in all; see
            `onepass.classify.heads.class_weight`. Votes are counted, not learnt: "balanced", which takes the
            weights back, changes nothing.

    Attributes:
        rows_: (N, D) float16, the fitted rows, standardised, of length 1.
        numbers_: (N,) int32, their classes as indices into `classes_`.
    """

    kind = "knn"
    version = 2
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **StandardisedHead.ARRAYS,
        "rows_": ("ND", "f"),
        "numbers_": ("N", "i"),
    }

    k: int = 20
    temperature: float = 0.07
    class_weight: str | None = None

    def fit(self, X: Any, y: Any) -> Self:
        """Keep the rows; see `Head.fit`."""
        if not (self.k >= 1 and self.temperature > 0):
            raise InvalidInputError(
                f"knn: expected k of at least 1 and temperature above 0, received {self.k} and {self.temperature}"
            )
        X, numbers = self.check_training(X, y)
        scaler = Scaler.fit(X)
        self.mean_, self.scale_ = scaler.mean, scaler.scale
        self.rows_ = held(
            Mapped(
                X,
                lambda rows: unit_length(scaler.apply(rows)).astype(np.float16),
                X.shape[1],
                np.float16,
            )
        )
        self.numbers_ = numbers.astype(np.int32)
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the logarithm of the shares of the votes, (n, K)."""
        return self.vote(*self.neighbours(X, self.k))

    def neighbours(self, X: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the fitted rows that are nearest to each row of X (n, D).

        Computed in float64 where X is float64, else in float32.

        Args:
            X: Features, array-like of shape (n, D).
            k: How many; all fitted rows where there are fewer.

        Returns:
            Cosines (n, k), the nearest first, and classes (n, k), indices into `classes_`.
        """
        X = self.check_features(X)
        kind = np.float64 if X.dtype == np.float64 else np.float32
        scaler, k = Scaler(self.mean_, self.scale_), min(k, len(self.rows_))
        queries = Mapped(X, lambda rows: unit_length(scaler.apply(rows, kind)), X.shape[1], kind)
        label = "nearest rows" if len(X) * len(self.rows_) > LONG else ""
        rows, cosines = nearest(queries, self.rows_, k, label=label)
        return cosines, self.numbers_[rows]

    def vote(self, cosines: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the logarithm of the shares of the votes, (n, K).

        Args:
            cosines, classes: From `neighbours`; the first `k` of each row vote.
        """
        k, count = min(self.k, cosines.shape[1]), len(self.classes_)
        share = np.bincount(self.numbers_, minlength=count) / len(self.numbers_)
        of_class = class_weights(self.class_weight, self.numbers_, count)
        added = (
            0.0 if of_class is None else np.log(of_class) + log_prior(self.class_weight, of_class)
        )
        out = scratch((len(cosines), count), cosines.dtype)
        for block in blocks(out):
            near, own = cosines[block, :k], classes[block, :k]
            weights = np.exp((near - near[:, :1]) / self.temperature)
            weights /= weights.sum(axis=1, keepdims=True)
            cells = np.arange(len(near))[:, None] * count + own
            votes = np.bincount(cells.ravel(), weights.ravel(), len(near) * count)
            out[block] = np.log((1 - PRIOR) * votes.reshape(-1, count) + PRIOR * share) + added
        return out
