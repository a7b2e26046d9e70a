"""The normal equations of ridge, decomposed: for work that needs the eigenvectors themselves."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from onepass.classify.heads.linear.ridge import NormalEquations
from onepass.classify.heads.scaler import Scaler


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Eigenvectors and eigenvalues of standardised rows, and the targets seen in them.

    The weights for a penalty are `basis @ (projected / (eigenvalues + penalty))`, in feature space and
    in row space (fewer rows than features) alike.

    Attributes:
        scaler: How the features were standardised.
        target_mean: (K,) float64, share of each class.
        basis: (D, r) float64; of unit length only in feature space.
        eigenvalues: (r,) float64, of the Gram matrix divided by n, not negative.
        projected: (r, K) float64.
        weights: What a row of each class counts, (K,); None: all alike.
    """

    scaler: Scaler
    target_mean: np.ndarray
    basis: np.ndarray
    eigenvalues: np.ndarray
    projected: np.ndarray
    weights: np.ndarray | None = None

    @classmethod
    def of(
        cls, X: np.ndarray, numbers: np.ndarray, classes: int, weights: np.ndarray | None = None
    ) -> "Spectrum":
        """Decompose the rows X (n, D) with class numbers (n,) out of `classes`, which count as `weights` says."""
        equations = NormalEquations.of(X, numbers, classes, weights)
        eigenvalues, vectors = eigh(equations.matrix, overwrite_a=True)
        basis = vectors if equations.rows is None else equations.rows.T.astype(np.float64) @ vectors
        projected = vectors.T @ equations.right
        values = np.maximum(eigenvalues, 0)
        return cls(equations.scaler, equations.share, basis, values, projected, weights)

    def solve(self, penalty: float) -> np.ndarray:
        """Return the weights (D, K) float64 for one penalty."""
        return self.basis @ (self.projected / (self.eigenvalues + penalty)[:, None])
