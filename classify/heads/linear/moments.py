"""Moments of the rows, from one pass over them: what ridge, LDA and class means need."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from onepass.classify.heads.float16 import widen
from onepass.classify.heads.lazy_rows import Rows
from onepass.classify.heads.scaler import Scaler
from onepass.classify.heads.threads import cores, parallel_map

SAMPLE = 256  # rows, of which the mean is near enough to that of all
BLOCK = 8_192  # rows multiplied at a time, at most


@dataclass(frozen=True, slots=True)
class Moments:
    """First and second moments of standardised rows.

    Attributes:
        scaler: How the features are standardised.
        share: (K,) float64, share of each class, as it counts.
        means: (D, K) float64, mean of each class in standardised features.
        gram: (D, D) float64, ZᵀZ/n of the standardised rows Z; None where it was not asked for.
    """

    scaler: Scaler
    share: np.ndarray
    means: np.ndarray
    gram: np.ndarray | None

    @classmethod
    def of(
        cls,
        X: Rows,
        numbers: np.ndarray,
        classes: int,
        weights: np.ndarray | None = None,
        *,
        gram: bool = True,
    ) -> "Moments":
        """Read raw rows X (n, D), of any float dtype, once, with class numbers (n,) below `classes`.

        A row of each class counts as much as `weights` (K,) says, one on average over the rows.

        The rows are shifted by the first block's mean, multiplied as float32, summed over blocks as
        float64, and standardised afterwards: the Gram matrix's diagonal holds the variances.
        """
        # of X's own dtype: the difference of float16 rows from it is exact in float32
        shift = X[:SAMPLE].mean(axis=0, dtype=np.float64).astype(X.dtype)
        ends = np.linspace(0, len(X), min(cores(), -(-len(X) // BLOCK)) + 1).astype(int)
        shares = [slice(*pair) for pair in pairwise(ends)]
        parts = parallel_map(
            lambda share: _summed(X, numbers, share, classes, shift, weights, gram), shares
        )
        sums, squares = parts[0]
        for part in parts[1:]:
            sums += part[0]
            squares += part[1]
        products = squares if gram else None
        counts = np.bincount(numbers, minlength=classes).astype(np.float64)
        if weights is not None:
            sums *= weights[:, None]
            counts *= weights
        mean = sums.sum(axis=0) / len(X)
        second = (squares if products is None else np.diag(products)) / len(X)
        scaler = Scaler.of_moments(shift.astype(np.float64) + mean, second - mean**2, len(X))
        means = (sums / np.where(counts > 0, counts, 1)[:, None] - mean) / scaler.scale
        if products is not None:
            products -= np.outer(len(X) * mean, mean)
            products /= scaler.scale[:, None]
            products /= len(X) * scaler.scale
        return cls(scaler, counts / len(X), np.ascontiguousarray(means.T), products)


def _summed(
    X: Rows,
    numbers: np.ndarray,
    share: slice,
    classes: int,
    shift: np.ndarray,
    weights: np.ndarray | None,
    gram: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of shifted rows by class (K, D), and of weighted squares (D,) or products (D, D), float64."""
    features, count = X.shape[1], share.stop - share.start
    kind = np.float64 if X.dtype == np.float64 else np.float32
    size = -(-count // -(-count // BLOCK))  # of equal blocks
    buffer = np.empty((size, features), kind)
    sums = np.zeros((classes, features))
    squares = np.zeros((features, features) if gram else features)
    product = np.empty_like(squares, np.float32)
    for start in range(share.start, share.stop, size):
        block = slice(start, min(start + size, share.stop))
        rows = widen(X[block], buffer[: block.stop - start], shift)
        rows = rows.astype(np.float32, copy=False)
        of_class = (numbers[block], np.arange(len(rows)))
        sums += csr_array((np.ones(len(rows), np.float32), of_class), (classes, len(rows))) @ rows
        if weights is not None:
            rows = rows * np.sqrt(weights, dtype=np.float32)[of_class[0], None]
        if gram:
            np.matmul(rows.T, rows, out=product)  # not scipy's: that one would hold the GIL
            squares += product
        else:
            squares += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
    return sums, squares
