"""What an ensemble learns from the probabilities of its members.

Both take the members' log-probabilities side by side, (n, M · K), and are stored like any head.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.optimize import minimize

from onepass.cache.errors import InvalidInputError
from onepass.cache.memory import may_be_held, scratch
from onepass.classify.heads.base import Head
from onepass.classify.heads.lazy_rows import LazyRows, Rows, blocks
from onepass.classify.metrics import softmax

ROUNDS, SETTLED = 2_000, 1e-7


@dataclass(eq=False, repr=False)
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

    members: int = 1

    def check(self, X: Any) -> Rows:
        """Return log-probabilities, float32 (n, M · K)."""
        X = X if isinstance(X, LazyRows) else np.asarray(X, np.float32)
        if X.ndim != 2 or self.members < 1 or X.shape[1] % self.members:
            raise InvalidInputError(
                f"{self.kind}: expected the log-probabilities of {self.members} members side by side, "
                f"received an array {X.shape}"
            )
        return X

    def parts(self, X: Rows) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some rows, and their log-probabilities as (n, M, K)."""
        for block in blocks(X):
            yield block, X[block].reshape(-1, self.members, X.shape[1] // self.members)

    def start(self, X: Any) -> Rows:
        """Set the classes, which are the columns' numbers: a row of each need not be there."""
        X = self.check(X)
        self.n_features_in_ = X.shape[1]
        self.classes_ = np.arange(X.shape[1] // self.members)
        self.bias_ = np.zeros(len(self.classes_))
        return X


class Average(Ensembler):
    """The weighted mean of the members' probabilities, with the weights of least log-loss."""

    kind = "average"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn the weights from log-probabilities (n, M · K) and column numbers (n,)."""
        X, truth = self.start(X), np.asarray(y)
        own = [part[np.arange(len(part)), :, truth[block]] for block, part in self.parts(X)]
        self.weights_ = mixture_weights(np.exp(np.concatenate(own, dtype=np.float64)))
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the logarithm of the mean, (n, K)."""
        X, small = self.check(X), self.weights_.astype(np.float32)
        out = scratch((len(X), len(self.bias_)), np.float32)
        for block, part in self.parts(X):
            mean = np.einsum("nmk,m->nk", np.exp(part), small)
            np.log(np.maximum(mean, np.finfo(np.float32).tiny), out=out[block])
        return out


@dataclass(eq=False, repr=False)
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

    penalty: float = 0.1

    def fit(self, X: Any, y: Any) -> Self:
        """Minimise mean log-loss + penalty; see `Average.fit` for the arguments."""
        X, truth = self.start(X), np.asarray(y)
        members, own = self.members, np.empty(len(X), np.float32)
        centre = np.concatenate([np.full(members, 1 / members), self.bias_])

        def side_by_side() -> Iterator[tuple[slice, np.ndarray]]:
            for block, part in self.parts(X):
                yield block, np.ascontiguousarray(part.transpose(1, 0, 2)).reshape(members, -1)

        held = list(side_by_side()) if may_be_held(X.nbytes) else None

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            small, away = values.astype(np.float32), values - centre
            slope = np.zeros(len(centre), np.float32)
            for block, part in held or side_by_side():
                numbers = truth[block]
                scores = (small[:members] @ part).reshape(len(numbers), -1)
                chance, lines = softmax(scores + small[members:]), np.arange(len(numbers))
                own[block] = np.maximum(chance[lines, numbers], np.finfo(np.float32).tiny)
                chance[lines, numbers] -= 1
                chance /= np.float32(len(X))
                slope += np.concatenate([part @ chance.ravel(), chance.sum(axis=0)])
            gradient = slope.astype(float) + 2 * self.penalty * away
            return float(-np.log(own).mean() + self.penalty * away @ away), gradient

        found = minimize(loss, centre, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
        self.weights_, self.bias_ = found[:members], found[members:]
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the pooled scores, (n, K)."""
        X, small = self.check(X), self.weights_.astype(np.float32)
        out = scratch((len(X), len(self.bias_)), np.float32)
        for block, part in self.parts(X):
            out[block] = np.einsum("nmk,m->nk", part, small, optimize=True)
        out += self.bias_.astype(np.float32)
        return out


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
