"""Which workers compute the same numbers, by one batch that all of them compute."""

import time
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np

from onepass.cache.cluster.identity import Identity
from onepass.extract.stream.worker import TOLERANCE

Vectors = list[np.ndarray]


@dataclass(slots=True)
class _Group:
    vectors: Vectors
    members: dict[str, Identity] = field(default_factory=dict)

    @property
    def first(self) -> Identity:
        return next(iter(self.members.values()))


class Alike:
    """Groups workers by the vectors they compute of the same images.

    Equal means equal bits on a CPU. An accelerator's compiler tries out kernels in each process, so that two of
    one kind may differ in the last bits: there it means within the tolerance for stored vectors.

    Args:
        here: The process that asks.
        precision: Of the vectors.

    Attributes:
        waited: When the first showed itself (`time.monotonic()`); 0 before.
    """

    def __init__(self, here: Identity, precision: str) -> None:
        self._here, self._tolerance = here, TOLERANCE[precision]
        self._groups: list[_Group] = []
        self._best: _Group | None = None
        self.waited = 0.0  # since when the first has shown itself (monotonic)

    def add(self, worker: str, identity: Identity, vectors: Vectors) -> None:
        """Take a worker's vectors."""
        self.waited = self.waited or time.monotonic()
        exact = identity.on_cpu
        for group in self._groups:
            apart = _distance(group.vectors, vectors)
            if apart == 0 or (not exact and not group.first.on_cpu and apart <= self._tolerance):
                group.members[worker] = identity
                return
        self._groups.append(_Group(vectors, {worker: identity}))

    def choose(self) -> None:
        """Let those compute that are the most; of as many, those whose settings are this process's."""
        if self._groups and not self._best:
            self._best = max(
                self._groups,
                key=lambda g: (
                    len(g.members),
                    any(m.settings == self._here.settings for m in g.members.values()),
                ),
            )

    @property
    def chosen(self) -> dict[str, Identity]:
        """Those that may compute, by name; none before `choose`."""
        return self._best.members if self._best else {}

    def odd(self, of: Container[str]) -> dict[str, str]:
        """Return which of some workers must not compute, and why."""
        if (best := self._best) is None:
            return {}
        return {
            worker: f"its vectors differ from those of {best.first} by up to "
            f"{_distance(best.vectors, group.vectors):.2%}: {identity.explained(best.first)}"
            for group in self._groups
            if group is not best
            for worker, identity in group.members.items()
            if worker in of
        }


def _distance(ours: Vectors, theirs: Vectors) -> float:
    """Return the largest difference, as a share of the largest value; 0 only for equal bits."""
    if all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True)):
        return 0.0
    apart = max(
        float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(a).max(), 1e-6))
        for a, b in zip(ours, theirs, strict=True)
    )
    return apart if apart > 0 else float("inf")  # NaN on one side, zeros of another sign
