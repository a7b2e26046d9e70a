"""Features of mean 0 and deviation 1, computed block by block from the rows that are fitted on."""

from dataclasses import dataclass

import numpy as np

from onepass.classify.heads.float16 import widen
from onepass.classify.heads.lazy_rows import Mapped, Rows, blocks, held

LEAST = 0.05  # of the median deviation


@dataclass(frozen=True, slots=True)
class Scaler:
    """The affine map `(x - mean) / scale`, one per feature.

    `scale` is the standard deviation, but not less than a twentieth of the median one: a unit of a
    network that is nearly dead on the fitted rows would otherwise be in the thousands on the first row
    that activates it. Features in different units, which those of a network are not, should be scaled
    first.

    Attributes:
        mean: (D,) float64.
        scale: (D,) float64, above 0; 1 for a feature that is constant.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, X: Rows) -> "Scaler":
        """Return the map of the rows of X: float16, float32 or float64 (n, D), n >= 1.

        Blocks are merged in float64 (Chan, Golub and LeVeque, "Algorithms for computing the sample
        variance", The American Statistician 37, 1983), so X may be a memory map larger than memory.
        """
        count, mean, squares = 0, np.zeros(X.shape[1]), np.zeros(X.shape[1])
        for block in blocks(X):
            rows = X[block]
            kind = np.result_type(
                rows.dtype, np.float32
            )  # float16 is converted faster by way of float32
            part = widen(rows, np.empty(rows.shape, kind)).astype(np.float64)
            more = len(part)
            part_mean = part.mean(axis=0)
            part -= part_mean
            shift = part_mean - mean
            squares += np.einsum("ij,ij->j", part, part) + shift**2 * (
                count * more / (count + more)
            )
            mean += shift * (more / (count + more))
            count += more
        return cls.of_moments(mean, squares / count, count)

    @classmethod
    def of_moments(cls, mean: np.ndarray, variance: np.ndarray, count: int) -> "Scaler":
        """Return the map for features of this mean and variance, (D,) float64, over `count` rows."""
        variance = np.maximum(variance, 0)
        rounding = (count * mean * np.finfo(np.float64).eps) ** 2
        constant = variance <= rounding
        scale = np.where(constant, 1.0, np.sqrt(variance))
        if not constant.all():
            scale[~constant] = np.maximum(scale[~constant], LEAST * np.median(scale[~constant]))
        return cls(mean, scale)

    def apply(self, X: Rows, dtype: type = np.float32) -> np.ndarray:
        """Return the standardised rows as a new C-ordered (n, D) array of `dtype`."""
        out: np.ndarray = np.empty(X.shape, dtype)
        for block in blocks(X):
            kind = np.result_type(X.dtype, np.float32)
            if kind == np.float32:  # in two steps: converting inside a subtraction is slow
                widen(X[block], out[block], self.mean.astype(kind))
            else:  # before it is rounded: a float64 feature may be far from 0
                np.subtract(X[block], self.mean, out=out[block], casting="same_kind")
            out[block] /= self.scale.astype(dtype)
        return out

    def rows(self, X: Rows) -> Rows:
        """Return the standardised rows, float32: an array where the memory budget has room, else made when read."""
        return held(Mapped(X, self.apply, X.shape[1], np.float32))
