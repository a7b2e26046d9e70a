"""Several members as one: their mean, or weights learnt on selection rows only."""

from collections.abc import Sequence

import numpy as np

from onepass.classify.heads.ensembles.ensembler import mixture_weights
from onepass.classify.metrics import SMALLEST


def learn_weights(members: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Return the weights of a mixture under which the true classes are most probable.

    Args:
        members: M arrays (n, K) of probabilities of rows that no member was fitted on.
        truth: (n,) the true column of each row.

    Returns:
        (M,) float64, none negative, together 1.
    """
    own = [np.maximum(p[np.arange(len(truth)), truth], SMALLEST) for p in members]
    return mixture_weights(np.stack(own, axis=1).astype(np.float64))


def mix(members: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean (n, K) float32 of the members' probabilities."""
    total = np.zeros(members[0].shape, np.float32)
    for weight, member in zip(weights, members, strict=True):
        total += np.float32(weight) * member
    return total / total.sum(axis=1, keepdims=True)
