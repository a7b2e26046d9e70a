"""How far a picture is from all that was learnt, and when an answer is better left open.

The distance is one less the cosine to the k-th nearest training vector (Sun, Ming, Zhu and Li,
"Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022). What is far, and what probability is
too low, is calibrated on the selection rows, which the vectors' head was not fitted on when it was chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onepass.classify.heads.neighbours.nearest import nearest, unit_length
from onepass.predict.pixel_models import Arrays, Wanted, side_by_side

# Whose distance counts: measured on held-out classes of Tiny ImageNet, of 1, 5, 10 and 50.
NEIGHBOUR = 5
REFERENCE = 8_192  # training vectors that are kept, drawn evenly where there are more
UNLIKE = "unlike what was learnt"
UNSURE = "no class is probable enough"


@dataclass(frozen=True, slots=True)
class Novelty:
    """The training vectors, and the distances and probabilities of the selection rows.

    Attributes:
        wanted: The vectors, side by side, that distances are measured between.
        reference: (m, D) float16, of training rows, of length 1.
        distances: (s,) float32, of the selection rows.
        confidences: (s,) float32, highest probability of each selection row by the model before it was
            fitted on it; of length 0 where there is no such model.
    """

    wanted: tuple[Wanted, ...]
    reference: np.ndarray
    distances: np.ndarray
    confidences: np.ndarray

    @classmethod
    def learn(
        cls,
        wanted: tuple[Wanted, ...],
        reference: np.ndarray,
        selection: np.ndarray,
        confidences: np.ndarray,
    ) -> "Novelty":
        """Measure the selection rows.

        Args:
            wanted: See the class.
            reference: (m, D) vectors of training rows.
            selection: (s, D) vectors of the selection rows.
            confidences: See the class.
        """
        kept = unit_length(reference.astype(np.float32)).astype(np.float16)
        distances = distances_to(kept, selection)
        return cls(wanted, kept, distances, confidences.astype(np.float32))

    def distance(self, arrays: Arrays) -> np.ndarray:
        """Return the distances (n,) float32 of n >= 1 images, 0 … 2."""
        return distances_to(self.reference, side_by_side([arrays[one] for one in self.wanted]))

    def novelty(self, distances: np.ndarray) -> np.ndarray:
        """Return the share of selection rows that are nearer to the training rows, (n,) float32."""
        ranks = np.searchsorted(np.sort(self.distances), distances, side="left")
        return (ranks / len(self.distances)).astype(np.float32)

    def reasons(
        self, distances: np.ndarray, confidences: np.ndarray, false_alarms: float
    ) -> list[str]:
        """Return why each answer is to be left open; "" where it is not.

        Distance and probability are compared with those of the selection rows: what share of these lies
        as far out, or is as unsure. The lower of both shares is held against the value that `false_alarms`
        of the selection rows fall below, so that this share of known pictures is left open by both together.

        Args:
            distances: (n,), from `distance`.
            confidences: (n,) highest probability of each image.
            false_alarms: Share of known pictures whose answer may be left open, 0 … 1.
        """
        far = _share_at_least(self.distances, self.distances)
        known = np.minimum(far, _share_at_most(self.confidences, self.confidences, len(far)))
        limit = np.quantile(known, false_alarms, method="lower") if false_alarms else -1.0
        far = _share_at_least(self.distances, distances)
        unsure = _share_at_most(self.confidences, confidences, len(distances))
        return [
            "" if min(f, u) > limit else UNLIKE if f <= u else UNSURE
            for f, u in zip(far, unsure, strict=True)
        ]


def distances_to(reference: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return one less the cosine of vectors (n, D) to their k-th nearest of `reference`, (n,) float32."""
    k = min(NEIGHBOUR, len(reference))
    queries = unit_length(vectors.astype(np.float32))
    _, cosines = nearest(queries, reference.astype(np.float32), k)
    return (1 - cosines[:, k - 1]).astype(np.float32)


def sample_rows(rows: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Return at most so many of some rows, drawn with a seed, ascending."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _share_at_least(known: np.ndarray, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the share of known values that are at least as great as each value."""
    below = np.searchsorted(np.sort(known), values, side="left")
    return 1 - below / len(known)


def _share_at_most(
    known: np.ndarray, values: Sequence[float] | np.ndarray, count: int
) -> np.ndarray:
    """Return the share of known values that are at most as great as each value; 1 where none is known."""
    if not len(known):
        return np.ones(count)
    return np.searchsorted(np.sort(known), values, side="right") / len(known)
