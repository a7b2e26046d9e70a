"""Multinomial logistic regression."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.class_weight import class_weights, log_prior
from onepass.classify.heads.linear.softmax_objective import SoftmaxObjective
from onepass.classify.heads.linear.solver import Point, Solver
from onepass.classify.heads.scaler import Scaler


@dataclass(eq=False, repr=False)
class Logistic(LinearHead):
    """Softmax regression on standardised features, by the solver of `onepass.classify.heads.linear.solver`.

    Minimises `C · sum over rows of the log-loss + ||W||² / 2`; the bias is not penalised. Two
    classes have one vector of log-odds, which is penalised so, as in scikit-learn. Rows that
    are too many to be held as float32 are read block by block in each pass.

    Args:
        C: Inverse of the penalty, above 0; as in scikit-learn it counts for the sum over the rows.
        tol: Largest excess over the minimum, as a share of the objective, at which it has converged.
        max_iter: Passes over the rows after which it stops all the same; `converged_` then says so.
        class_weight: What a row of each class counts; see `onepass.classify.heads.class_weight`.

    Attributes:
        n_iter_: Passes over the rows, after the one at the first weights.
        converged_: Whether it ended within the tolerance.
        excess_: The bound on the excess where it ended, as a share of the objective.
    """

    kind = "logistic"
    version = 4
    FACTS: ClassVar[tuple[str, ...]] = (*LinearHead.FACTS, "n_iter_", "converged_")

    C: float = 1e-2
    tol: float = 2e-5
    max_iter: int = 200
    class_weight: str | None = None

    def fit(self, X: Any, y: Any) -> Self:
        """Solve from zero; see `Head.fit`."""
        return self._fit(X, y, start=None)

    def refit(self, X: np.ndarray, y: np.ndarray) -> "Logistic":
        """Return a head fitted on other rows, solved from this one's solution."""
        return self.with_params()._fit(X, y, start=np.vstack([self.weights_, self.bias_]))

    def _fit(self, X: Any, y: Any, start: np.ndarray | None) -> Self:
        if not (self.C > 0 and self.tol > 0 and self.max_iter >= 1):
            raise InvalidInputError(
                "logistic: expected C and tol above 0 and max_iter of at least 1, received "
                f"{self.C}, {self.tol} and {self.max_iter}"
            )
        X, numbers = self.check_training(X, y)
        scaler = Scaler.fit(X)
        solver = Solver(self.objective(X, numbers, scaler), start)
        self.solve(solver, scaler, self.tol, self.max_iter)
        if not self.converged_:
            warnings.warn(
                f"logistic: not converged after {self.n_iter_} iterations; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def objective(self, X: np.ndarray, numbers: np.ndarray, scaler: Scaler) -> SoftmaxObjective:
        """Return the log-loss over rows X (n, D) of this head's classes, by their numbers (n,)."""
        classes = len(self.classes_)
        weights = class_weights(self.class_weight, numbers, classes)
        return SoftmaxObjective(scaler.rows(X), numbers, classes, weights)

    def solve(self, solver: Solver, scaler: Scaler, tol: float, max_iter: int) -> Self:
        """Solve for this head's C, from the solver's last solutions.

        Args:
            solver: Of the standardised rows.
            scaler: How they were standardised.
            tol, max_iter: Instead of this head's own.
        """
        before = solver.passes
        point, self.converged_ = solver.solve(self._penalty(solver), tol, max_iter)
        self.n_iter_ = solver.passes - before
        return self._adopt_point(point, solver, scaler)

    def extrapolate(self, solver: Solver, scaler: Scaler) -> Self:
        """Guess the weights for this head's C from the solver's last two solutions, without a pass."""
        self.n_iter_, self.converged_ = 0, False
        return self._adopt_point(solver.extrapolate(self._penalty(solver)), solver, scaler)

    def _penalty(self, solver: Solver) -> float:
        """Return the weight of ||W||² / 2 beside the mean log-loss."""
        penalty = 1 / (self.C * len(solver.objective))
        # of two classes, ||w||² / 2 of the log-odds w is ||W||² of their halves in two columns
        return 2 * penalty if len(self.classes_) == 2 else penalty

    def _adopt_point(self, point: Point, solver: Solver, scaler: Scaler) -> Self:
        self.excess_ = point.bound
        bias = point.weights[-1] + log_prior(self.class_weight, solver.objective.weights)
        return self.adopt(scaler, point.weights[:-1], bias)
