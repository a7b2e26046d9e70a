"""Ridge regression on one-vs-all targets: every penalty from one pass over the rows."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.class_weight import class_weights, log_prior
from onepass.classify.heads.linear.cholesky import solve
from onepass.classify.heads.linear.moments import Moments
from onepass.classify.heads.scaler import Scaler


@dataclass(eq=False, repr=False)
class Ridge(LinearHead):
    """Least squares on indicator targets, in closed form.

    Minimises `mean over rows of ||y - x W - b||² + penalty ||W||²` on standardised features, with
    target 1 for the row's class and 0 for the others; b is not penalised. scikit-learn's
    `Ridge(alpha)` is the same with alpha = n · penalty.

    Args:
        penalty: Weight of ||W||², above 0.
        temperature: Divides the scores; it sharpens the probabilities and changes no prediction.
        class_weight: What a row of each class counts; see `onepass.classify.heads.class_weight`.
    """

    kind = "ridge"
    version = 4
    CALIBRATED: ClassVar[tuple[str, ...]] = ("temperature",)

    penalty: float = 0.1
    temperature: float = 0.1
    class_weight: str | None = None

    def fit(self, X: Any, y: Any) -> Self:
        """Solve for this penalty; see `Head.fit`."""
        if not (self.penalty > 0 and self.temperature > 0):
            raise InvalidInputError(
                f"ridge: expected penalty and temperature above 0, received {self.penalty} and {self.temperature}"
            )
        X, numbers = self.check_training(X, y)
        equations = self.equations(X, numbers)
        return self.adopt_solution(equations, equations.solve(self.penalty))

    def equations(self, X: np.ndarray, numbers: np.ndarray) -> "NormalEquations":
        """Return the equations of rows X (n, D) of this head's classes, by their numbers (n,)."""
        classes = len(self.classes_)
        weights = class_weights(self.class_weight, numbers, classes)
        return NormalEquations.of(X, numbers, classes, weights)

    def adopt_solution(self, equations: "NormalEquations", weights: np.ndarray) -> Self:
        """Take over the weights (D, K) that solve the equations for this head's penalty."""
        bias = equations.share / self.temperature
        bias = bias + log_prior(self.class_weight, equations.weights)
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
        weights: What a row of each class counts, (K,); None: all alike. Z and T are scaled by its root.
    """

    scaler: Scaler
    share: np.ndarray
    matrix: np.ndarray
    right: np.ndarray
    rows: np.ndarray | None
    weights: np.ndarray | None = None

    @classmethod
    def of(
        cls, X: np.ndarray, numbers: np.ndarray, classes: int, weights: np.ndarray | None = None
    ) -> "NormalEquations":
        """Read rows X (n, D) with class numbers (n,) out of `classes`."""
        if len(X) >= X.shape[1]:
            moments = Moments.of(X, numbers, classes, weights)
            assert moments.gram is not None
            right = moments.means * moments.share
            return cls(moments.scaler, moments.share, moments.gram, right, None, weights)
        if weights is None:
            scaler, share = Scaler.fit(X), np.bincount(numbers, minlength=classes) / len(X)
        else:
            moments = Moments.of(X, numbers, classes, weights, gram=False)
            scaler, share = moments.scaler, moments.share
        rows, targets = scaler.apply(X), np.tile(-share, (len(X), 1))
        targets[np.arange(len(X)), numbers] += 1
        if weights is not None:
            root = np.sqrt(weights)[numbers, None]
            rows, targets = rows * root.astype(np.float32), targets * root
        matrix = (rows @ rows.T).astype(np.float64) / len(X)
        return cls(scaler, share, matrix, targets / len(X), rows, weights)

    def solve(self, penalty: float) -> np.ndarray:
        """Return the weights (D, K) for one penalty."""
        matrix = self.matrix.copy()
        matrix[np.diag_indices_from(matrix)] += penalty
        solved = solve(matrix, self.right)
        return solved if self.rows is None else self.rows.T @ solved
