"""What ridge, LDA and class means need of the rows, from one reading of them."""

from dataclasses import dataclass

import numpy as np

from classify.heads.rows import BLOCK
from classify.heads.scaler import Scaler


@dataclass(frozen=True, slots=True)
class Moments:
    """First and second moments of standardised rows.

    Attributes:
        scaler: How the features are standardised.
        share: (K,) float64, share of each class.
        means: (D, K) float64, mean of each class in standardised features.
        gram: (D, D) float64, ZᵀZ/n of the standardised rows Z; None where it was not asked for.
    """

    scaler: Scaler
    share: np.ndarray
    means: np.ndarray
    gram: np.ndarray | None

    @classmethod
    def of(
        cls, X: np.ndarray, numbers: np.ndarray, classes: int, *, gram: bool = True
    ) -> "Moments":
        """Read raw rows X (n, D), of any float dtype, once, with class numbers (n,) below `classes`.

        The rows are shifted by the first block's mean, multiplied as float32, summed over blocks as
        float64, and standardised afterwards: the Gram matrix's diagonal holds the variances.
        """
        features = X.shape[1]
        # of X's own dtype: what float16 rows differ from it is exact in float32
        shift = X[:BLOCK].mean(axis=0, dtype=np.float64).astype(X.dtype)
        kind = np.float64 if X.dtype == np.float64 else np.float32
        products = np.zeros((features, features)) if gram else None
        squares, sums = np.zeros(features), np.zeros((classes, features))
        buffer = np.empty((min(BLOCK, len(X)), features), kind)
        for start in range(0, len(X), BLOCK):
            rows = buffer[: len(X) - start]
            rows[...] = X[start : start + BLOCK]
            rows -= shift
            rows = rows.astype(np.float32, copy=False)
            _add_by_class(sums, rows, numbers[start : start + BLOCK])
            if products is None:
                squares += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
            else:
                products += rows.T @ rows
        counts = np.bincount(numbers, minlength=classes)
        mean = sums.sum(axis=0) / len(X)
        second = (squares if products is None else np.diag(products)) / len(X)
        scaler = Scaler.of_moments(shift.astype(np.float64) + mean, second - mean**2, len(X))
        means = (sums / np.maximum(counts, 1)[:, None] - mean) / scaler.scale
        if products is not None:
            products /= len(X)
            products -= np.outer(mean, mean)
            products /= scaler.scale
            products /= scaler.scale[:, None]
        return cls(scaler, counts / len(X), np.ascontiguousarray(means.T), products)


def _add_by_class(sums: np.ndarray, rows: np.ndarray, numbers: np.ndarray) -> None:
    """Add rows (m, D) to the sums (K, D) of their classes."""
    if np.any(numbers[1:] < numbers[:-1]):
        order = np.argsort(numbers, kind="stable")
        rows, numbers = rows[order], numbers[order]
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    for number, part in zip(numbers[starts], np.split(rows, starts[1:]), strict=True):
        sums[number] += part.sum(axis=0)  # np.add.reduceat: ten times as slow
