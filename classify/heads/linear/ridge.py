"""Ridge regression on one-vs-all targets: every penalty from one pass over the rows."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg.lapack import spocon, spotrf, spotrs

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.linear.moments import Moments
from onepass.classify.heads.scaler import Scaler
from onepass.classify.heads.threads import one_lapack_thread

WELL = 1e-5  # reciprocal condition from which float32 costs the weights less than a thousandth


class Ridge(LinearHead):
    """Least squares on indicator targets, in closed form.

    Minimises `mean over rows of ||y - x W - b||² + penalty ||W||²` on standardised features, with
    target 1 for the row's class and 0 for the others; b is not penalised. scikit-learn's
    `Ridge(alpha)` is the same with alpha = n · penalty.

    Args:
        penalty: Weight of ||W||², above 0.
        temperature: Divides the scores; it sharpens the probabilities and changes no prediction.
    """

    kind = "ridge"
    version = 4

    def __init__(self, penalty: float = 0.1, temperature: float = 0.1) -> None:
        self.penalty = penalty
        self.temperature = temperature

    def fit(self, X: Any, y: Any) -> Self:
        """Solve for this penalty; see `Head.fit`."""
        if not (self.penalty > 0 and self.temperature > 0):
            raise InvalidInputError(
                f"ridge: expected penalty and temperature above 0, received {self.penalty} and {self.temperature}"
            )
        X, numbers = self.check_training(X, y)
        equations = NormalEquations.of(X, numbers, len(self.classes_))
        return self.adopt_solution(equations, equations.solve(self.penalty))

    def adopt_solution(self, equations: "NormalEquations", weights: np.ndarray) -> Self:
        """Take over the weights (D, K) that solve the equations for this head's penalty."""
        bias = equations.share / self.temperature
        return self.adopt(equations.scaler, weights / self.temperature, bias)


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """The normal equations: `(ZᵀZ/n + λI) W = ZᵀT/n` of standardised rows Z and centred targets T.

    Where there are fewer rows than features they are solved in row space,
    `W = Zᵀ (ZZᵀ/n + λI)⁻¹ T/n`. A Cholesky decomposition per penalty is cheaper than one
    eigen-decomposition for all of them, as long as there are only a few dozen.

    Attributes:
        scaler: How the features are standardised.
        share: (K,) float64, share of each class: the mean of the targets.
        matrix: (D, D) or (n, n) float64, ZᵀZ/n or ZZᵀ/n.
        right: (D, K) or (n, K) float64, ZᵀT/n or T/n.
        rows: Z (n, D) float32 in row space, else None.
    """

    scaler: Scaler
    share: np.ndarray
    matrix: np.ndarray
    right: np.ndarray
    rows: np.ndarray | None

    @classmethod
    def of(cls, X: np.ndarray, numbers: np.ndarray, classes: int) -> "NormalEquations":
        """Read rows X (n, D) with class numbers (n,) out of `classes`."""
        if len(X) >= X.shape[1]:
            moments = Moments.of(X, numbers, classes)
            assert moments.gram is not None
            right = moments.means * moments.share
            return cls(moments.scaler, moments.share, moments.gram, right, None)
        scaler = Scaler.fit(X)
        rows, share = scaler.apply(X), np.bincount(numbers, minlength=classes) / len(X)
        targets = np.tile(-share, (len(X), 1))
        targets[np.arange(len(X)), numbers] += 1
        matrix = (rows @ rows.T).astype(np.float64) / len(X)
        return cls(scaler, share, matrix, targets / len(X), rows)

    def solve(self, penalty: float) -> np.ndarray:
        """Return the weights (D, K) for one penalty: in float32 where that is exact enough, else float64."""
        solved = _solved(self._matrix(penalty, np.float32), self.right)
        if solved is None:
            solved = np.linalg.solve(self._matrix(penalty, np.float64), self.right)
        return solved if self.rows is None else self.rows.T @ solved

    def _matrix(self, penalty: float, kind: type) -> np.ndarray:
        matrix: np.ndarray = self.matrix.astype(kind)
        matrix[np.diag_indices_from(matrix)] += kind(penalty)
        return matrix


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """Solve for right (D, K) by Cholesky in float32; None where the matrix (D, D) is ill-conditioned.

    A third of the time of `numpy.linalg.solve`. The condition is estimated from the factor (Higham,
    "A survey of condition number estimation for triangular matrices", SIAM Review 29, 1987).
    """
    norm = np.abs(matrix).sum(axis=0).max()
    with one_lapack_thread():
        factor, minor = spotrf(matrix.T, overwrite_a=True, clean=False)
        if minor or spocon(factor, norm)[0] < WELL:
            return None
        solved: np.ndarray = spotrs(factor, right)[0]
    return solved
