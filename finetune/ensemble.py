"""Several members as one: their mean, or weights learnt on selection rows only."""

from collections.abc import Sequence

import numpy as np

from classify.calibration import FLOOR

ROUNDS = 500  # of the weights' EM; it stops when they stand still
STILL = 1e-6


def learn_weights(members: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Return the weights of a mixture under which the true classes are most probable.

    The log-likelihood of mixture weights is concave, and EM climbs it without a step size: a weight
    becomes the mean share that its member has in the mixture's probability of the true class
    (Dempster, Laird and Rubin, J. R. Stat. Soc. B 39, 1977).

    Args:
        members: M arrays (n, K) of probabilities of rows that no member was fitted on.
        truth: (n,) the true column of each row.

    Returns:
        (M,) float64, none negative, together 1.
    """
    own = np.stack([np.maximum(p[np.arange(len(truth)), truth], FLOOR) for p in members], axis=1)
    weights = np.full(len(members), 1 / len(members))
    for _ in range(ROUNDS):
        shares = own.astype(np.float64) * weights
        update = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        moved, weights = np.abs(update - weights).max(), update
        if moved < STILL:
            break
    return weights / weights.sum()


def mix(members: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean (n, K) float32 of the members' probabilities."""
    total = np.zeros(members[0].shape, np.float32)
    for weight, member in zip(weights, members, strict=True):
        total += np.float32(weight) * member
    return total / total.sum(axis=1, keepdims=True)


def log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean negative log-probability (nats) of the true classes."""
    return float(-np.mean(np.log(np.maximum(probabilities[np.arange(len(truth)), truth], FLOOR))))
