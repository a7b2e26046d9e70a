"""Linear discriminant analysis: every shrinkage from one eigen-decomposition."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import eigh

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import TEMPERATURE_ROWS, LinearHead, Note, PathPoint
from onepass.classify.heads.linear.moments import Moments
from onepass.classify.metrics import fit_temperature

SHRINKAGES = {
    "quick": (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01),
    "full": (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3),
}


class Lda(LinearHead):
    """Gaussian classes of one covariance, which is shrunk towards a multiple of the identity.

    On standardised features, with S the covariance within the classes, the covariance is
    `(1 - shrinkage) S + shrinkage · trace(S)/D · I` (Friedman, "Regularized Discriminant Analysis",
    Journal of the American Statistical Association 84, 1989).

    Args:
        shrinkage: Above 0, to 1.
        temperature: Divides the logits: real classes are not Gaussian, so they are far too sure.
            `path` chooses it on the selection split.
    """

    kind = "lda"

    def __init__(self, shrinkage: float = 0.2, temperature: float = 1.0) -> None:
        self.shrinkage = shrinkage
        self.temperature = temperature

    def fit(self, X: Any, y: Any) -> Self:
        """Solve for the one shrinkage; see `Head.fit`."""
        if not (0 < self.shrinkage <= 1 and self.temperature > 0):
            raise InvalidInputError(
                "lda: expected shrinkage above 0, to 1, and temperature above 0, received "
                f"{self.shrinkage} and {self.temperature}"
            )
        X, numbers = self.check_training(X, y)
        spectrum = Within.of(Moments.of(X, numbers, len(self.classes_)))
        return self._adopt(spectrum, *spectrum.solve(self.shrinkage), self.temperature)

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
        """Walk the shrinkage from strong to weak; see `Head.path`."""
        X, numbers = self.check_training(X, y)
        spectrum = Within.of(Moments.of(X, numbers, len(self.classes_)))
        rows = spectrum.moments.scaler.apply(X_selection)
        truth = np.searchsorted(self.classes_, y_selection)
        points = []
        for shrinkage in SHRINKAGES[budget]:
            weights, bias = spectrum.solve(shrinkage)
            scores = rows @ weights.astype(np.float32) + bias.astype(np.float32)
            temperature = fit_temperature(truth, scores, rows=TEMPERATURE_ROWS)
            params = {"shrinkage": shrinkage, "temperature": temperature}
            head = self.sibling(params)._adopt(spectrum, weights, bias, temperature)
            points.append(head.judged_by(scores / np.float32(temperature), y_selection, params))
            if note:
                note(str(points[-1]))
        return points

    def _adopt(
        self, spectrum: "Within", weights: np.ndarray, bias: np.ndarray, temperature: float
    ) -> Self:
        return self.adopt(spectrum.moments.scaler, weights / temperature, bias / temperature)


@dataclass(frozen=True, slots=True)
class Within:
    """The covariance within the classes, decomposed.

    Attributes:
        moments: Of the rows.
        basis: (D, D) eigenvectors.
        eigenvalues: (D,), not negative.
        projected: (D, K) class means in the basis.
    """

    moments: Moments
    basis: np.ndarray
    eigenvalues: np.ndarray
    projected: np.ndarray

    @classmethod
    def of(cls, moments: Moments) -> "Within":
        """Decompose: what the class means explain of the second moments is taken off first."""
        assert moments.gram is not None
        within = moments.gram - (moments.means * moments.share) @ moments.means.T
        eigenvalues, basis = eigh(within, overwrite_a=True, check_finite=False)
        return cls(moments, basis, np.maximum(eigenvalues, 0), basis.T @ moments.means)

    def solve(self, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (D, K) and bias (K,) float64 for standardised features."""
        typical = float(self.eigenvalues.mean()) or 1.0
        floor = 1e-6 * typical  # rounding: the smallest eigenvalues are not known better
        variances = (1 - shrinkage) * self.eigenvalues + shrinkage * typical + floor
        scaled = self.projected / variances[:, None]
        bias = np.log(self.moments.share) - np.einsum("dk,dk->k", self.projected, scaled) / 2
        return self.basis @ scaled, bias
