"""A cheap stand-in for the Hessian of the log-loss, and its inverse."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from onepass.classify.heads.linear import cholesky
from onepass.classify.heads.linear.softmax_objective import SoftmaxObjective

FEWEST, SHARE = 2_048, 4  # rows of the sample, at least; and for each feature
Apply = Callable[[np.ndarray], np.ndarray]


@dataclass(slots=True)
class Curvature:
    """`spread · XᵀX/n + penalty`, the same for every class.

    Where there are fewer rows than features its inverse is taken in row space (Woodbury).

    Attributes:
        rows: Standardised rows (m, D) float32.
        gram: XᵀX/m (D, D), or XXᵀ/m (m, m) where m < D; float32.
    """

    rows: np.ndarray
    gram: np.ndarray
    _last: tuple[tuple[float, float], Apply] | None = None

    @classmethod
    def of(cls, objective: SoftmaxObjective) -> "Curvature":
        """Take the second moments of an even sample of the rows: a guess need not be exact."""
        X = np.asarray(objective.sample(max(FEWEST, SHARE * objective.features)).X)
        wide = len(X) < X.shape[1]
        return cls(X if wide else X[:0], (X @ X.T if wide else X.T @ X) / np.float32(len(X)))

    def at(self, spread: float, penalty: float) -> Apply:
        """Return the inverse as a function of a gradient (D + 1, K), the bias last."""
        spread = max(spread, 1e-9)
        if self._last is None or self._last[0] != (spread, penalty):
            self._last = (spread, penalty), self._inverse(spread, penalty)
        return self._last[1]

    def _inverse(self, spread: float, penalty: float) -> Apply:
        matrix = self.gram.astype(np.float64) * spread
        matrix[np.diag_indices_from(matrix)] += penalty
        wide = len(self.rows) > 0
        if wide:
            factor = cho_factor(matrix, overwrite_a=True, check_finite=False)
        else:
            solved = cholesky.factored(matrix.astype(np.float32))

        def apply(gradient: np.ndarray) -> np.ndarray:
            out = np.empty_like(gradient)
            if wide:
                inner = cho_solve(factor, (self.rows @ gradient[:-1]).astype(np.float64))
                inner *= spread / len(self.rows)
                out[:-1] = (gradient[:-1] - self.rows.T @ inner.astype(np.float32)) / penalty
            else:
                out[:-1] = solved(gradient[:-1])
            out[-1] = gradient[-1] / spread
            return out

        return apply
