"""Multinomial logistic regression, warm-started along its path of penalties."""

import warnings
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import LinearHead, Note, PathPoint
from onepass.classify.heads.linear.softmax_objective import Rows
from onepass.classify.heads.linear.solver import Solver
from onepass.classify.heads.scaler import Scaler

CS = {
    "quick": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0),
    "full": tuple(float(f"{C:.3g}") for C in np.logspace(-5, 0, 12)),
}
PATH_TOL = 1e-3  # proven; what is chosen is fitted again, to `tol`


class Logistic(LinearHead):
    """Softmax regression on standardised features, by the solver of `onepass.classify.heads.linear.solver`.

    Minimises `C · sum over rows of the log-loss + ||W||² / 2`; the bias is not penalised. Two
    classes have one vector of log-odds, which is penalised so, as in scikit-learn. X may be a memory
    map: rows that are too many to be held as float32 are read block by block in each pass.

    Args:
        C: Inverse of the penalty, above 0; as in scikit-learn it counts for the sum over the rows.
        tol: Largest excess over the minimum, as a share of the objective, at which it has converged.
        max_iter: Passes over the rows after which it stops all the same; `converged_` then says so.

    Attributes:
        n_iter_: Passes over the rows, after the one at the first weights.
        converged_: Whether it ended within the tolerance.
        excess_: The bound on the excess where it ended, as a share of the objective.
    """

    kind = "logistic"
    version = 4
    FACTS: ClassVar[tuple[str, ...]] = (*LinearHead.FACTS, "n_iter_", "converged_")

    def __init__(self, C: float = 1e-2, tol: float = 2e-5, max_iter: int = 200) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any) -> Self:
        """Solve from zero; see `Head.fit`."""
        return self._fit(X, y, start=None)

    def refit(self, X: np.ndarray, y: np.ndarray) -> "Logistic":
        """Return a head fitted on other rows, solved from this one's solution."""
        return self.sibling({})._fit(X, y, start=np.vstack([self.weights_, self.bias_]))

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
        """Walk C upwards, each from the last solutions.

        "quick" ends where the peak is clearly passed. "full" goes on to the last C, but from the first
        point of a lower accuracy than the best on it only goes along the line of the last solutions. Such a
        point has `early` among its params, unless it is better than the best: then it is solved as the others.
        """
        X, numbers = self.check_training(X, y)
        scaler = Scaler.fit(X)
        solver = Solver(Rows.of(X, numbers, len(self.classes_), scaler))
        points: list[PathPoint] = []
        full, tol = budget == "full", max(self.tol, PATH_TOL)
        for C in CS[budget]:
            if not full and past_peak(points, 1):
                break
            best = max((point.accuracy for point in points), default=0.0)
            for early in (
                (True, False) if full and points and points[-1].accuracy < best else (False,)
            ):
                head = self.sibling({"C": C})
                head._solve(solver, scaler, tol, 0 if early else self.max_iter)
                params = {"C": C, "early": True} if early else {"C": C}
                point = head.judged(X_selection, y_selection, params)
                if point.accuracy <= best:
                    break
            points.append(point)
            if note:
                note(str(point))
        return points

    def _fit(self, X: Any, y: Any, start: np.ndarray | None) -> Self:
        if not (self.C > 0 and self.tol > 0 and self.max_iter >= 1):
            raise InvalidInputError(
                "logistic: expected C and tol above 0 and max_iter of at least 1, received "
                f"{self.C}, {self.tol} and {self.max_iter}"
            )
        X, numbers = self.check_training(X, y)
        scaler = Scaler.fit(X)
        solver = Solver(Rows.of(X, numbers, len(self.classes_), scaler), start)
        self._solve(solver, scaler, self.tol, self.max_iter)
        if not self.converged_:
            warnings.warn(
                f"logistic: not converged after {self.n_iter_} iterations; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _solve(self, solver: Solver, scaler: Scaler, tol: float, steps: int) -> Self:
        """Take over a solution; without steps, a glance at it."""
        penalty = 1 / (self.C * len(solver.rows))
        if len(self.classes_) == 2:
            penalty *= 2  # ||w||² / 2 of the log-odds w is ||W||² of their halves in two columns
        before = solver.passes
        point, self.converged_ = (
            solver.solve(penalty, tol, steps) if steps else (solver.glance(penalty), False)
        )
        self.n_iter_, self.excess_ = solver.passes - before, point.bound
        return self.adopt(scaler, point.weights[:-1], point.weights[-1])


def past_peak(points: list[PathPoint], patience: int) -> bool:
    """Say whether the last `patience` points are all worse than the best before them.

    Accuracy on a few hundred rows is noisy, so a point is worse only if its accuracy is below the
    best and its log-loss, which is smooth in C, has risen as well.
    """
    if len(points) <= patience:
        return False
    before, last = points[:-patience], points[-patience:]
    accuracy = max(point.accuracy for point in before)
    loss = min(point.log_loss for point in before)
    return all(point.accuracy < accuracy and point.log_loss > loss for point in last)
