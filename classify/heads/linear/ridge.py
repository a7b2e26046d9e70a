"""Ridge regression on one-vs-all targets: every penalty from one pass over the rows."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.linear.cholesky import solve
from onepass.classify.heads.linear.moments import Moments
from onepass.classify.heads.scaler import Scaler


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
    CALIBRATED: ClassVar[tuple[str, ...]] = ("temperature",)

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
        """Return the weights (D, K) for one penalty."""
        matrix = self.matrix.copy()
        matrix[np.diag_indices_from(matrix)] += penalty
        solved = solve(matrix, self.right)
        return solved if self.rows is None else self.rows.T @ solved
