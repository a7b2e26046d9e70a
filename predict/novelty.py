"""How far a picture is from all that was learnt, and when an answer is better left open.

The distance is one less the cosine to the k-th nearest training vector (Sun, Ming, Zhu and Li,
"Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022). What is far, and what probability is
too low, is calibrated on known rows: training rows, each measured to the others only, and predicted by a head
that was not fitted on it. A new picture is ranked among them as if it were one more of them (conformal
prediction; Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005), which keeps the rate
of false alarms, whatever the distances are like.
"""

from dataclasses import dataclass

import numpy as np

from onepass.cache.errors import CorruptFileError, UsageError
from onepass.classify.heads.neighbours.nearest import nearest, unit_length
from onepass.classify.prior import Prior
from onepass.predict.pixel_models import Arrays, Wanted, side_by_side

# Whose distance counts: measured on held-out classes of Tiny ImageNet, of 1, 5, 10 and 50.
NEIGHBOUR = 5
# Training vectors that are kept, drawn evenly where there are more. Four times as many gain 0.01 of AUROC on
# held-out classes of Tiny ImageNet, and would cost as much as a small backbone does.
REFERENCE = 2_048
UNLIKE = "unlike what was learnt"
UNSURE = "no class is probable enough"


@dataclass(frozen=True, slots=True)
class Novelty:
    """The training vectors, and the distances and probabilities of known rows.

    Attributes:
        wanted: The vectors, side by side, that distances are measured between.
        reference: (m, D) float32, of training rows, of length 1, rounded to float16.
        distances: (s,) float32, of the known rows.
        probabilities: (s, K) float32, of each known row by the model before it was fitted on it; (s, 1), the highest
            only, of an older model folder; of length 0 where there is no such model.
        truth: (s,) int64, column of the class of each known row.
        place: The file that they were read from; "" where they were learnt.

    Raises:
        ValueError: The arrays do not belong together.
    """

    wanted: tuple[Wanted, ...]
    reference: np.ndarray
    distances: np.ndarray
    probabilities: np.ndarray
    truth: np.ndarray
    place: str = ""

    def __post_init__(self) -> None:
        self._check()
        for name in ("reference", "probabilities"):  # once; rounded as they are stored
            rounded = getattr(self, name).astype(np.float16).astype(np.float32)
            object.__setattr__(self, name, rounded)

    def _check(self) -> None:
        numbers = self.reference, self.distances, self.probabilities
        if any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in numbers):
            raise ValueError("numbers that are not finite")
        known, shape = len(np.atleast_1d(self.distances)), self.probabilities.shape
        fit = len(shape) == 2 and shape[0] in (0, known) and self.truth.shape in ((known,), shape[:1])  # fmt: skip
        fit &= self.distances.shape == (known,) and self.reference.ndim == 2
        if not fit or not known or not self.reference.size:
            names = ("reference", "distances", "probabilities", "truth")
            shapes = ", ".join(f"{name} {getattr(self, name).shape}" for name in names)
            raise ValueError(f"arrays that do not belong together: {shapes}")
        classes = self.truth if self.truth.dtype.kind in "iu" else np.array([-1])
        if not ((classes >= 0) & (classes < shape[1])).all():
            raise ValueError("classes that the model does not have")

    @classmethod
    def learn(
        cls,
        wanted: tuple[Wanted, ...],
        vectors: np.ndarray,
        reference: np.ndarray,
        known: np.ndarray,
        units: np.ndarray,
        probabilities: np.ndarray,
        truth: np.ndarray,
    ) -> "Novelty":
        """Measure the known rows, each to the reference rows of other units.

        Args:
            wanted: See the class.
            vectors: (n, D) of some training rows.
            reference: (m,) places among them of the reference rows.
            known: (s,) places of the known rows, which may be the same.
            units: (n,) int64 from 0; rows of one unit belong together, and a new picture belongs to none.
            probabilities, truth: See the class.
        """
        unit = unit_length(vectors[reference].astype(np.float32))
        kept = unit.astype(np.float16).astype(np.float32)
        distances = _left_out_distances(kept, units[reference], vectors[known], units[known])
        return cls(wanted, kept, distances, probabilities, truth)

    def distance(self, arrays: Arrays) -> np.ndarray:
        """Return the distances (n,) float32 of n >= 1 images, 0 … 2.

        Raises:
            CorruptFileError: The vectors of the file that this was read from are of another length.
        """
        vectors = side_by_side([arrays[one] for one in self.wanted])
        if vectors.shape[1] != self.reference.shape[1]:
            raise CorruptFileError(
                f"{self.place}: expected vectors of {vectors.shape[1]} numbers, received {self.reference.shape[1]}; "
                "it is of another model: export this one again"
            )
        return distances_to(self.reference, vectors)

    def novelty(self, distances: np.ndarray) -> np.ndarray:
        """Return the share of known rows that are nearer to the training rows, (n,) float32."""
        ranks = np.searchsorted(np.sort(self.distances), distances, side="left")
        return (ranks / len(self.distances)).astype(np.float32)

    def abstention(self, false_alarms: float, prior: Prior | None = None) -> "Abstention":
        """Return when answers are left open.

        Distance and probability of a picture are ranked among those of the known rows: how many of these lie as far
        out, or are as unsure. The lower of both ranks is held against the one that `false_alarms` of the
        known rows fall to, so that this share of known pictures is left open by both together. In another mix of
        classes each known row counts as its class does there (Podkopaev and Ramdas, "Distribution-free uncertainty
        quantification for classification under label shift", UAI 2021).

        Args:
            false_alarms: Share of known pictures whose answer may be left open, 0 … 1.
            prior: The mix of classes in use; None: that of the training images.

        Raises:
            UsageError: An earlier Onepass kept too little of the known rows for another mix.
        """
        count, probabilities = len(self.distances), self.probabilities
        weights = np.ones(count)
        if prior:
            if len(probabilities) and probabilities.shape[1] != len(prior.used):
                raise UsageError(
                    "--abstain beside --prior: an earlier Onepass exported the model, with the highest probability of "
                    "each known picture only; export it again"
                )
            probabilities = prior.corrected(probabilities)
            weights = (np.array(prior.used) / np.array(prior.learnt))[self.truth]
            weights *= count / weights.sum()
        sure = probabilities.max(axis=1) if len(probabilities) else np.zeros(count)
        far, unsure = _Tail.of(self.distances, weights), _Tail.of(-sure, weights)
        ranks = np.minimum(far.at_least(self.distances), unsure.at_least(-sure))
        order = np.argsort(ranks)
        total = np.cumsum(weights[order])
        allowed = int(np.searchsorted(total, false_alarms * (count + 1), side="right"))
        limit = float(ranks[order[allowed - 1]]) if allowed else 0.0
        return Abstention(far, unsure if len(probabilities) else None, limit)


@dataclass(frozen=True, slots=True)
class _Tail:
    """Known values, ascending, and what the rows from each on count together; none at the end."""

    values: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray) -> "_Tail":
        order = np.argsort(values)
        return cls(values[order], np.append(np.cumsum(weights[order][::-1])[::-1], 0.0))

    def at_least(self, values: np.ndarray) -> np.ndarray:
        """Return what the known rows count whose value is at least as great as each value."""
        return self.weights[np.searchsorted(self.values, values, side="left")]


@dataclass(frozen=True, slots=True)
class Abstention:
    """When an answer is left open; see `Novelty.abstention`.

    Attributes:
        far: Distances of the known rows.
        unsure: Their highest probabilities, negative; None where no answer is too unsure.
        limit: The rank up to which an answer is left open.
    """

    far: _Tail
    unsure: _Tail | None
    limit: float

    def reasons(self, distances: np.ndarray, confidences: np.ndarray) -> list[str]:
        """Return why each answer is to be left open; "" where it is not.

        Args:
            distances: (n,), from `Novelty.distance`.
            confidences: (n,) highest probability of each image, in the mix in use.
        """
        # one more: the picture itself
        far = self.far.at_least(distances) + 1
        unsure = (
            np.full(len(far), np.inf)
            if self.unsure is None
            else self.unsure.at_least(-np.asarray(confidences)) + 1
        )
        return [
            "" if min(f, u) > self.limit else UNLIKE if f <= u else UNSURE
            for f, u in zip(far, unsure, strict=True)
        ]


def distances_to(reference: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return one less the cosine of vectors (n, D) to their k-th nearest of `reference`, (n,) float32."""
    k = min(NEIGHBOUR, len(reference))
    queries = unit_length(vectors.astype(np.float32))
    _, cosines = nearest(queries, reference, k)
    return (1 - cosines[:, k - 1]).astype(np.float32)


def sample_rows(rows: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Return at most so many of some rows, drawn with a seed, ascending."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _left_out_distances(
    reference: np.ndarray, units: np.ndarray, vectors: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Return `distances_to` the reference rows of other units than each row's own, (n,) float32."""
    size = np.bincount(units, minlength=own.max() + 1)[own].max(initial=0)
    k = min(NEIGHBOUR + int(size), len(reference))
    queries = unit_length(vectors.astype(np.float32))
    rows, cosines = nearest(queries, reference, k)
    cosines[units[rows] == own[:, None]] = -1
    kth = min(NEIGHBOUR, k) - 1
    return (1 - -np.sort(-cosines, axis=1)[:, kth]).astype(np.float32)
