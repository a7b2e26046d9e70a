"""Symmetric positive definite matrices by Cholesky, in float32 where that is exact enough."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.linalg.lapack import dposv, spocon, spotrf, spotrs

from onepass.classify.heads.threads import one_lapack_thread

WELL = 1e-5  # reciprocal condition from which float32 costs a solution less than a thousandth


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the solution (D, K) of `matrix @ X = right` for a matrix (D, D) float64.

    In float32, but in float64 where the matrix is ill-conditioned. The condition is estimated from the factor
    (Higham, "A survey of condition number estimation for triangular matrices", SIAM Review 29, 1987).
    """
    single = matrix.astype(np.float32)
    norm = np.abs(single).sum(axis=0).max()
    with one_lapack_thread():
        factor, indefinite = spotrf(single.T, overwrite_a=True, clean=False)
        if not indefinite and spocon(factor, norm)[0] >= WELL:
            solved: np.ndarray = spotrs(factor, right)[0]
            return solved
        _, solved, indefinite = dposv(matrix.T, right)
    return np.linalg.solve(matrix, right) if indefinite else solved


def factored(matrix: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what multiplies (D, K) by the inverse of a matrix (D, D) float32, which is not computed."""
    with one_lapack_thread():
        factor, indefinite = spotrf(matrix.T, clean=False)
    if indefinite:
        return partial(np.matmul, np.linalg.inv(matrix))

    def solved(right: np.ndarray) -> np.ndarray:
        with one_lapack_thread():
            return spotrs(factor, right)[0]

    return solved
