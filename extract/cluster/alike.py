"""Which workers compute the same numbers, by one batch that all of them compute."""

import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onepass.cache.cluster.crew import LOST, Answer, Call, Crew
from onepass.cache.cluster.identity import Identity
from onepass.cache.content import CONTENT_BYTES
from onepass.extract.stream.worker import TOLERANCE

Vectors = list[np.ndarray]
VECTORS = "vectors"  # the task by which a worker shows what it computes
PATIENCE = 60.0  # seconds for the other workers to show themselves, once one has


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


def noise(count: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return images in whose sums another order of additions shows; whole grey areas would hide it.

    Returns:
        `pixels` (count, *shape) uint8 and `content` (count, 16) uint8.
    """
    random = np.random.default_rng(0)
    contents = random.integers(0, 256, (count, CONTENT_BYTES), np.uint8)
    return {"pixels": random.integers(0, 256, (count, *shape), np.uint8), "content": contents}


class AlikeCrew(Crew):
    """Workers of which those compute that compute the same bits; the task "vectors" shows what one computes."""

    _alike: Alike | None = None  # while parts are handed out
    _probe: Any = None  # what each worker computes first
    _asked: set[str]  # for that

    @contextmanager
    def alike(self, probe: Any, precision: str) -> Iterator[None]:
        """Hand out what the block hands out to such only.

        Args:
            probe: What "vectors" is given, for a batch of noise.
            precision: Of the vectors.
        """
        self._alike, self._probe, self._asked = Alike(self._here, precision), probe, set()
        yield
        self._alike = None

    def _turn(self) -> list[tuple[Call, Answer]]:
        """Also let who is new compute a batch of noise, and settle who computes by that."""
        if self._alike is None:
            return super()._turn()
        self._asked &= self._there.keys()
        for worker in self._there.keys() - self._asked:
            self._asked.add(worker)
            self._send(worker, VECTORS, self._probe)
        answers = super()._turn()
        for call, answer in answers:
            if call.task == VECTORS:
                self._compare(call, answer, self._alike)
        self._choose(self._alike)
        return answers

    def _compare(self, call: Call, answer: Answer, alike: Alike) -> None:
        """Take the vectors by which workers are compared."""
        if answer.kind:
            if answer.kind != LOST:
                self._refuse(call.worker, answer.by, f"{answer.kind}: {answer.error}")
        elif call.worker in self._there:
            alike.add(call.worker, self._there[call.worker], answer.result)

    def _choose(self, alike: Alike) -> None:
        """Settle who computes, once all have shown themselves, and send the others away."""
        shown = all(call.part for call in self._flying.values())
        if alike.waited and (shown or time.monotonic() - alike.waited > PATIENCE):
            alike.choose()
        for worker, why in alike.odd(self._there).items():
            self._refuse(worker, str(self._there[worker]), why)

    @property
    def ready(self) -> list[str]:
        """Those that compute the same bits."""
        chosen = self._there if self._alike is None else self._alike.chosen
        return [worker for worker in chosen if worker in self._there]

    @property
    def device(self) -> str:
        """What they compute on; "" before one is there."""
        return next((self._there[worker].device for worker in self.ready), "")
