"""What an ensemble learns from the probabilities of its members.

Both take the members' log-probabilities side by side, (n, M · K), and are stored like any head.
"""

from typing import Any, ClassVar, Self

import numpy as np
from scipy.optimize import minimize

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import Head
from onepass.classify.metrics import softmax

ROUNDS, SETTLED = 2_000, 1e-7


class Ensembler(Head):
    """One weight for each member and one bias for each class.

    Args:
        members: How many probes stand side by side.

    Attributes:
        weights_: (M,) float64.
        bias_: (K,) float64.
    """

    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **Head.ARRAYS,
        "weights_": ("M", "f"),
        "bias_": ("K", "f"),
    }

    def __init__(self, members: int = 1) -> None:
        self.members = members

    def parts(self, X: Any) -> np.ndarray:
        """Return log-probabilities (n, M · K) as (n, M, K)."""
        X = np.asarray(X, np.float32)
        if X.ndim != 2 or self.members < 1 or X.shape[1] % self.members:
            raise InvalidInputError(
                f"{self.kind}: expected the log-probabilities of {self.members} members side by side, "
                f"received an array {X.shape}"
            )
        return X.reshape(len(X), self.members, X.shape[1] // self.members)

    def start(self, X: Any) -> np.ndarray:
        """Set the classes, which are the columns' numbers: a row of each need not be there."""
        parts = self.parts(X)
        self.n_features_in_ = parts.shape[1] * parts.shape[2]
        self.classes_ = np.arange(parts.shape[2])
        self.bias_ = np.zeros(parts.shape[2])
        return parts


class Average(Ensembler):
    """The weighted mean of the members' probabilities, with the weights of least log-loss."""

    kind = "average"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn the weights from log-probabilities (n, M · K) and column numbers (n,)."""
        parts, truth = self.start(X), np.asarray(y)
        own = np.exp(parts[np.arange(len(truth)), :, truth].astype(np.float64))
        self.weights_ = mixture_weights(own)
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the logarithm of the mean, (n, K)."""
        mean = np.einsum("nmk,m->nk", np.exp(self.parts(X)), self.weights_.astype(np.float32))
        return np.log(np.maximum(mean, np.finfo(np.float32).tiny))


class Stack(Ensembler):
    """Multinomial logistic regression on the members' log-probabilities.

    A weight for each member, shared by all classes, and a bias for each class: `Σ weights_[m] log p[m, k] +
    bias_[k]`, a logarithmic opinion pool (Genest and Zidek, Statistical Science 1, 1986) fitted by
    stacking (Wolpert, Neural Networks 5, 1992). One weight for each member and class would be
    thousands of weights for a few thousand rows.

    Args:
        members: How many probes stand side by side.
        penalty: Of ||bias_||² and of the weights' squared distance from their mean start 1/M.
    """

    kind = "stack"

    def __init__(self, members: int = 1, penalty: float = 0.1) -> None:
        super().__init__(members)
        self.penalty = penalty

    def fit(self, X: Any, y: Any) -> Self:
        """Minimise mean log-loss + penalty; see `Average.fit` for the arguments."""
        parts, truth = self.start(X), np.asarray(y)
        rows, members, classes = parts.shape
        side_by_side = np.ascontiguousarray(parts.transpose(1, 0, 2)).reshape(members, -1)
        centre = np.concatenate([np.full(members, 1 / members), np.zeros(classes)])
        lines = np.arange(rows)

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            small = values.astype(np.float32)
            scores = (small[:members] @ side_by_side).reshape(rows, classes)
            chance = softmax(scores + small[members:])
            away = values - centre
            own = np.maximum(chance[lines, truth], np.finfo(np.float32).tiny)
            chance[lines, truth] -= 1
            chance /= np.float32(rows)
            slope = np.concatenate([side_by_side @ chance.ravel(), chance.sum(axis=0)])
            gradient = slope.astype(float) + 2 * self.penalty * away
            return float(-np.log(own).mean() + self.penalty * away @ away), gradient

        found = minimize(loss, centre, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
        self.weights_, self.bias_ = found[:members], found[members:]
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the pooled scores, (n, K)."""
        small = self.weights_.astype(np.float32)
        scores = np.einsum("nmk,m->nk", self.parts(X), small, optimize=True)
        return scores + self.bias_.astype(np.float32)


def mixture_weights(own: np.ndarray) -> np.ndarray:
    """Return the weights of a mixture under which the true classes are most probable.

    Expectation maximisation, which climbs the concave log-likelihood without a step size: a weight
    becomes its member's mean share of the mixture's probability (Jelinek and Mercer, "Interpolated
    estimation of Markov source parameters from sparse data", 1980).

    Args:
        own: Each member's probability of the true class, above 0, (n, M).

    Returns:
        (M,) float64, none negative, together 1.
    """
    weights = np.full(own.shape[1], 1 / own.shape[1])
    for _ in range(ROUNDS):
        share = own * weights
        before, weights = weights, (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(weights - before).max() < SETTLED:
            break
    return weights
