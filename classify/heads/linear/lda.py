"""Linear discriminant analysis with a shrunken covariance."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.class_weight import class_weights, log_prior
from onepass.classify.heads.linear.cholesky import solve
from onepass.classify.heads.linear.moments import Moments


@dataclass(eq=False, repr=False)
class Lda(LinearHead):
    """Gaussian classes of one covariance, which is shrunk towards a multiple of the identity.

    On standardised features, with S the covariance within the classes, the covariance is
    `(1 - shrinkage) S + shrinkage · trace(S)/D · I` (Friedman, "Regularized Discriminant Analysis",
    Journal of the American Statistical Association 84, 1989).

    Args:
        shrinkage: Above 0, to 1.
        temperature: Divides the logits: real classes are not Gaussian, and the probabilities
            would be far too confident.
        class_weight: What a row of each class counts; the means and the
            covariance are those of such rows; see `onepass.classify.heads.class_weight`.
    """

    kind = "lda"
    CALIBRATED: ClassVar[tuple[str, ...]] = ("temperature",)

    shrinkage: float = 0.2
    temperature: float = 1.0
    class_weight: str | None = None

    def fit(self, X: Any, y: Any) -> Self:
        """Solve for this shrinkage; see `Head.fit`."""
        if not (0 < self.shrinkage <= 1 and self.temperature > 0):
            raise InvalidInputError(
                "lda: expected shrinkage above 0, to 1, and temperature above 0, received "
                f"{self.shrinkage} and {self.temperature}"
            )
        X, numbers = self.check_training(X, y)
        covariance = self.covariance(X, numbers)
        return self.adopt_solution(covariance, *covariance.solve(self.shrinkage))

    def covariance(self, X: np.ndarray, numbers: np.ndarray) -> "WithinCovariance":
        """Return that of rows X (n, D) of this head's classes, by their numbers (n,)."""
        classes = len(self.classes_)
        weights = class_weights(self.class_weight, numbers, classes)
        return WithinCovariance.of(Moments.of(X, numbers, classes, weights), weights)

    def adopt_solution(
        self, covariance: "WithinCovariance", weights: np.ndarray, bias: np.ndarray
    ) -> Self:
        """Take over weights (D, K) and bias (K,) that were solved for this head's shrinkage."""
        bias = bias / self.temperature + log_prior(self.class_weight, covariance.weights)
        return self.adopt(covariance.moments.scaler, weights / self.temperature, bias)


@dataclass(frozen=True, slots=True)
class WithinCovariance:
    """The covariance within the classes, before it is shrunk.

    A Cholesky decomposition per shrinkage takes a third of the time of an eigen-decomposition or less.

    Attributes:
        moments: Of the rows.
        matrix: (D, D) float64.
        weights: What a row of each class counted, (K,); None: all alike.
    """

    moments: Moments
    matrix: np.ndarray
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, moments: Moments, weights: np.ndarray | None = None) -> "WithinCovariance":
        """Subtract what the class means explain of the second moments."""
        assert moments.gram is not None
        within = moments.gram - (moments.means * moments.share) @ moments.means.T
        return cls(moments, within, weights)

    def solve(self, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (D, K) and bias (K,) float64 for standardised features."""
        typical = float(np.trace(self.matrix)) / len(self.matrix)
        typical = typical if typical > 0 else 1.0
        least = 1e-6 * typical  # rounding: small variances are not known more exactly
        shrunk = (1 - shrinkage) * self.matrix
        shrunk[np.diag_indices_from(shrunk)] += shrinkage * typical + least
        weights = solve(shrunk, self.moments.means)
        bias = np.log(self.moments.share) - np.einsum("dk,dk->k", self.moments.means, weights) / 2
        return weights, bias
