"""The k nearest neighbours by cosine, the nearer ones counting more."""

from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import Head, Note, PathPoint
from onepass.classify.heads.float16 import widen
from onepass.classify.heads.scaler import Scaler, blocks

KS = {"quick": (5, 10, 20, 50, 100), "full": (1, 3, 5, 10, 20, 30, 50, 75, 100, 150, 200)}
TEMPERATURES = (0.02, 0.04, 0.07, 0.1, 0.2)
PRIOR = 0.01  # of the votes go to the classes by their share: no class is impossible
GROUP = 32  # columns of a group, of which the maximum is taken first
BLOCK = 1 << 25  # similarities held at a time: 128 MB as float32


class Neighbours(Head):
    """Votes of the nearest fitted rows, by cosine of standardised features.

    A neighbour of cosine s votes with weight exp(s / temperature), as in Wu, Xiong, Yu and Lin,
    "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4.

    Args:
        k: Neighbours that vote; all rows where there are fewer.
        temperature: The lower, the more the nearest count. `path` chooses both.

    Attributes:
        mean_, scale_: (D,) float64, of the rows that it was fitted on.
        rows_: (N, D) float16, the fitted rows, standardised, of length 1.
        numbers_: (N,) int32, their classes as indices into `classes_`.
    """

    kind = "knn"
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **Head.ARRAYS,
        "mean_": ("D", "f"),
        "scale_": ("D", "f"),
        "rows_": ("ND", "f"),
        "numbers_": ("N", "i"),
    }

    def __init__(self, k: int = 20, temperature: float = 0.07) -> None:
        self.k = k
        self.temperature = temperature

    def fit(self, X: Any, y: Any) -> Self:
        """Keep the rows; see `Head.fit`."""
        if not (self.k >= 1 and self.temperature > 0):
            raise InvalidInputError(
                f"knn: expected k of at least 1 and temperature above 0, received {self.k} and {self.temperature}"
            )
        X, numbers = self.check_training(X, y)
        scaler = Scaler.fit(X)
        self.mean_, self.scale_ = scaler.mean, scaler.scale
        self.rows_ = np.empty(X.shape, np.float16)
        for block in blocks(X):
            self.rows_[block] = unit(scaler.apply(X[block]))
        self.numbers_ = numbers.astype(np.int32)
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the logarithm of the shares of the votes, (n, K)."""
        X = self.check_features(X)
        return self._vote(*self._nearest(X, self.k), self.k, self.temperature)

    def path(
        self,
        X: np.ndarray,
        y: np.ndarray,
        X_selection: np.ndarray,
        y_selection: np.ndarray,
        *,
        budget: str = "quick",
        note: Note | None = None,
    ) -> list[PathPoint]:
        """Find the neighbours once and let them vote, many first; the best temperature for each k."""
        fitted = Neighbours().fit(X, y)
        found = fitted._nearest(X_selection, max(KS[budget]))
        points = []
        for k in sorted({min(k, len(fitted.rows_)) for k in KS[budget]}, reverse=True):
            tried = []
            for temperature in TEMPERATURES:
                head = Neighbours(k, temperature)
                head.__dict__.update({n: v for n, v in vars(fitted).items() if n.endswith("_")})
                scores = fitted._vote(*found, k, temperature)
                tried.append(head.judged_by(scores, y_selection, head.get_params()))
            points.append(min(tried, key=lambda point: (-point.accuracy, point.log_loss)))
            if note:
                note(str(points[-1]))
        return points

    def _nearest(self, X: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return cosines (n, k), falling, and classes (n, k) of the nearest fitted rows.

        Computed in float64 where X is float64, else in float32.
        """
        kind = np.float64 if X.dtype == np.float64 else np.float32
        scaler = Scaler(self.mean_, self.scale_)
        rows = widen(self.rows_, np.empty(self.rows_.shape, kind)).T
        k = min(k, rows.shape[1])
        cosines, classes = np.empty((len(X), k), kind), np.empty((len(X), k), np.int32)
        size = max(1, BLOCK // rows.shape[1])
        for start in range(0, len(X), size):
            block = slice(start, start + size)
            near = unit(scaler.apply(X[block], kind)) @ rows
            best = largest(near, k)
            cosines[block] = np.take_along_axis(near, best, axis=1)
            classes[block] = self.numbers_[best]
        return cosines, classes

    def _vote(
        self, cosines: np.ndarray, classes: np.ndarray, k: int, temperature: float
    ) -> np.ndarray:
        k, count = min(k, cosines.shape[1]), len(self.classes_)
        weights = np.exp((cosines[:, :k] - cosines[:, :1]) / temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        cells = np.arange(len(cosines))[:, None] * count + classes[:, :k]
        votes = np.bincount(cells.ravel(), weights.ravel(), len(cosines) * count)
        share = np.bincount(self.numbers_, minlength=count) / len(self.numbers_)
        return np.log((1 - PRIOR) * votes.reshape(-1, count) + PRIOR * share)


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows (n, D) divided by their length; a row of zeros stays one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k largest of each line of values (n, m), largest first, (n, k).

    Among equal ones that are returned the first column stands first.
    """
    columns = _candidates(values, k)
    near = np.take_along_axis(values, columns, axis=1)
    if k < columns.shape[1]:
        few = np.argpartition(near, -k, axis=1)[:, -k:]
        columns = np.sort(np.take_along_axis(columns, few, axis=1))
        near = np.take_along_axis(values, columns, axis=1)
    order = np.argsort(-near, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _candidates(values: np.ndarray, k: int) -> np.ndarray:
    """Return columns (n, c) of each line, among which its k largest values are.

    The columns j, j + groups, j + 2 groups, … are a group. The k largest lie in the k groups with the
    largest maxima, and maxima of long runs are read far faster than a line is partitioned.
    """
    count, length = values.shape
    groups = length // GROUP
    if 8 * k > groups:  # too few would be left out
        return np.tile(np.arange(length), (count, 1))
    whole = values[:, : groups * GROUP].reshape(count, GROUP, groups)
    best = np.argpartition(whole.max(axis=1), -k, axis=1)[:, -k:]
    members = best[:, None, :] + groups * np.arange(GROUP)[:, None]
    rest = np.broadcast_to(np.arange(groups * GROUP, length), (count, length - groups * GROUP))
    return np.concatenate([members.reshape(count, -1), rest], axis=1)
