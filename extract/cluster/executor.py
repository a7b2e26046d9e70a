"""Shards computed by the workers of a cluster that are alike; this process plans, hands out, and consolidates.

Only plain values travel: what is to be computed, and which rows. Each worker opens the pixels by path and commits
its shards into the store, which all machines see at the same path.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onepass.cache import errors
from onepass.cache.artifacts import from_json, to_json
from onepass.cache.errors import ClusterError, OnepassError, Remedy
from onepass.cache.progress import Progress, counted
from onepass.cache.rows import RowWriter
from onepass.cache.stopping import StoppedError, StopRequest
from onepass.data.dataset import ImageDataset
from onepass.extract.cluster.alike import Alike
from onepass.extract.cluster.identity import Identity
from onepass.extract.cluster.messages import Trial, Unit, first_line, read_job
from onepass.extract.cluster.workers import WorkerLostError, Workers
from onepass.extract.config import ExtractConfig
from onepass.extract.jobs import ExtractionJob
from onepass.extract.stream.engine import PixelBatch
from onepass.extract.stream.executors import Outcome
from onepass.extract.stream.extractor import Extractor
from onepass.extract.stream.worker import ShardTask

log = logging.getLogger(__name__)

PERIOD = 0.3  # seconds between two looks at who is there and whether to stop
AHEAD = 2  # shards that a worker has at a time: one is computed, the next waits
ATTEMPTS = 3  # a shard that fails as often ends the run
PATIENCE = 60.0  # seconds for the other workers to show themselves, once one has
QUIET, SLOW = (
    3.0,
    45.0,
)  # seconds without a worker, or without an answer of any, after which that is said
LOST = WorkerLostError.__name__
LIKE_ALL = "install the same on every machine"


class _Shard(NamedTuple):
    """Rows of the data set, which of them each file misses, and how often they failed."""

    rows: np.ndarray
    missing: tuple[np.ndarray, ...]
    failures: int = 0


class _Call(NamedTuple):
    worker: str
    task: str
    shard: _Shard | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a worker gave back: a result, or the class and the message of an error."""

    by: str
    result: Any = None
    kind: str = ""
    error: str = ""
    remedy: dict[str, Any] | None = None

    @classmethod
    def of(cls, call: _Call, future: Future) -> "_Answer":
        try:
            return cls(**future.result())
        except WorkerLostError:
            return cls(call.worker, kind=LOST, error="its process has gone")
        except Exception as error:  # whatever an engine raises
            return cls(call.worker, kind=type(error).__name__, error=first_line(error))


class ClusterExecutor:
    """See `onepass.extract.stream.executors.Executor`.

    Args:
        workers: Of the cluster.
        pixels: The data set's row file.
        stop: Asked several times a second.
    """

    def __init__(self, workers: Workers, pixels: Path, stop: StopRequest) -> None:
        self._workers, self._stop, self._pixels = workers, stop, pixels.resolve()
        self._here = Identity.here(self._pixels)
        self._met: set[str] = set()
        self._there: dict[str, Identity] = {}  # those of them that may take part
        self._refused: dict[str, str] = {}  # the others, and why
        self._flying: dict[Future, _Call] = {}  # oldest first
        self._lost: set[str] = set()  # those that went with a shard of theirs
        self._since = time.monotonic()  # when there was a worker that may take part
        self._said, self._had = (
            "",
            False,
        )  # what was said of there being none; whether there was one

    def make_jobs(self, config: ExtractConfig, dataset: ImageDataset) -> list[ExtractionJob]:
        """Let a worker say what is asked for, which depends on its devices."""
        store, weights = config.store, config.weights_source
        absolute = replace(
            config,
            cache_dir=store.path.resolve(),
            read_from=tuple(path.resolve() for path in store.read_from),
            weights=weights if isinstance(weights, str) else str(weights.resolve()),
            engine=config.chosen_engine,
        )
        return [read_job(job) for job in self._on_one("make jobs", to_json(absolute))]

    def build(
        self, job: ExtractionJob, dataset: ImageDataset, batch: int, new: int
    ) -> tuple[ExtractionJob, Extractor]:
        """Let a worker build the model and measure it; it stays there."""
        found = self._on_one("measure", to_json(Trial(job, self._pixels, batch, new)))
        job, size = read_job(found["job"]), found["batch"]

        def step(batch: PixelBatch) -> list[np.ndarray]:
            return self._on_one("vectors", to_json(self._unit(job, size, (), batch.rows)))

        def compiled(*_: Any) -> Any:
            raise NotImplementedError("the model is the workers'")

        devices = [
            f"{one.host} {device}" for one in self._there.values() for device in found["devices"]
        ]
        widths = tuple(found["widths"])
        return job, Extractor((step,), widths, size, devices, found["rate"], compiled)

    def run(
        self, task: ShardTask, extractor: Extractor, writers: list[RowWriter], progress: Progress
    ) -> Outcome:
        """Hand the shards out, two to a worker, and adopt what comes back."""
        alike, bounds = Alike(self._here, task.job.precision), Counter({"device": 0})
        waiting = deque(
            _Shard(rows, tuple(writer.pool.unknown(rows) for writer in writers))
            for rows in task.shards
        )
        progress.note = lambda: (
            f"{counted(len(self._ready(alike)), 'worker')}, bound by {_most(bounds)}"
        )
        probe = to_json(self._unit(task.job, task.batch, task.folders, np.empty(0, np.int64)))
        # What an earlier job's workers still say of it is not waited for.
        self._flying = {f: call for f, call in self._flying.items() if call.task == "look"}
        asked: set[str] = set()
        with suppress(StoppedError):
            while waiting or any(call.shard for call in self._flying.values()):
                asked &= self._there.keys()
                for worker in self._there.keys() - asked:
                    asked.add(worker)
                    self._send(worker, "vectors", probe)
                for call, answer in self._turn():
                    if not call.shard:
                        self._compare(call, answer, alike)
                    elif again := self._take(call.shard, answer, task, writers):
                        waiting.appendleft(again)
                    else:
                        progress.advance(len(call.shard.rows))
                        bounds[answer.result] += 1
                self._choose(alike)
                for worker in self._ready(alike):
                    self._feed(worker, waiting, task)
        return Outcome(_most(bounds))

    def _feed(self, worker: str, waiting: deque[_Shard], task: ShardTask) -> None:
        """Give a worker what it has too little of."""
        has = sum(call.worker == worker for call in self._flying.values())
        for shard in [waiting.popleft() for _ in range(min(AHEAD - has, len(waiting)))]:
            unit = self._unit(task.job, task.batch, task.folders, *shard[:2])
            self._send(worker, "compute", to_json(unit), shard)

    def _unit(
        self, job: ExtractionJob, batch: int, folders: Sequence[Path], rows: np.ndarray,
        missing: Sequence[np.ndarray] = (),
    ) -> Unit:  # fmt: skip
        places = tuple(folder.resolve() for folder in folders)
        return Unit(
            job,
            self._pixels,
            batch,
            places,
            tuple(rows.tolist()),
            tuple(tuple(m.tolist()) for m in missing),
        )

    def _send(self, worker: str, task: str, message: Any, shard: _Shard | None = None) -> _Call:
        call = _Call(worker, task, shard)
        self._flying[self._workers.submit(worker, task, message)] = call
        return call

    def _turn(self) -> list[tuple[_Call, _Answer]]:
        """Greet who is new, wait a moment, and return what came back.

        Raises:
            StoppedError: The work is asked to stop.
            ClusterError: The cluster has gone, or nobody there can take part.
        """
        if reason := self._stop.reason:
            raise StoppedError(reason)
        names = self._workers.names()
        self._met &= names
        for worker in names - self._met:
            self._met.add(worker)
            self._send(worker, "look", str(self._pixels))
        for worker in self._there.keys() - names:
            log.info(f"{self._there.pop(worker)}: has gone")
        self._say_who_is_missing(names)
        if not self._flying:
            time.sleep(PERIOD)
        done = wait(self._flying, PERIOD, FIRST_COMPLETED).done if self._flying else ()
        answers = []
        for future in [one for one in self._flying if one in done]:
            call = self._flying.pop(future)
            answer = _Answer.of(call, future)
            if call.task == "look":
                self._greet(call.worker, answer)
            else:
                answers.append((call, answer))
        return answers

    def _say_who_is_missing(self, names: set[str]) -> None:
        """Say once that there is nobody to compute; raise where there are only such as may not."""
        now = time.monotonic()
        if self._there:
            self._since, self._said, self._had = now, "", True
            return
        # Where others have computed, they may be on their way back.
        patience = SLOW if self._had else 0.0
        if names and names <= self._refused.keys() and now - self._since > patience:
            reasons = dict.fromkeys(self._refused[name] for name in sorted(names))
            raise ClusterError(
                f"{self._workers.where}: no worker can take part: {'; '.join(reasons)}"
            )
        what = "no worker has answered yet" if names else "no worker yet"
        if now - self._since > (SLOW if names else QUIET) and what != self._said:
            self._said = what
            log.info(f"{self._workers.where}: {what}; start one with: {self._workers.start}")

    def _greet(self, worker: str, answer: _Answer) -> None:
        """Let a worker take part if it is like this process; one whose answer is lost is greeted as another."""
        if answer.kind == LOST:
            self._met.discard(worker)
            return
        if answer.kind:
            self._refuse(worker, answer.by, answer.error)
            return
        identity = from_json(Identity, answer.result)
        if unlike := identity.unlike(self._here):
            self._refuse(worker, str(identity), f"{unlike}; {LIKE_ALL}")
        else:
            self._there[worker] = identity

    def _refuse(self, worker: str, who: str, why: str) -> None:
        self._there.pop(worker, None)
        self._refused[worker] = f"{who}: {why}"
        log.info(f"{who}: takes no part: {why}")

    def _on_one(self, task: str, message: Any) -> Any:
        """Return what one worker, whichever is there, makes of a task.

        Raises:
            OnepassError: Of the worker's class, with its message and remedy.
            StoppedError: The work is asked to stop.
        """
        answer = _Answer(self._workers.where)
        for _ in range(ATTEMPTS):
            while not self._there:
                self._turn()
            worker = next(iter(self._there))
            sent = self._send(worker, task, message)
            found: list[_Answer] = []
            while not found:
                found = [answer for call, answer in self._turn() if call is sent]
            (answer,) = found
            if not answer.kind:
                return answer.result
            kind = getattr(errors, answer.kind, None)
            if isinstance(kind, type) and issubclass(kind, OnepassError):
                raise kind(answer.error, remedy=Remedy(**answer.remedy) if answer.remedy else None)
        raise ClusterError(
            f"{answer.by}: {answer.kind}: {answer.error} ({task}, tried {ATTEMPTS} times)"
        )

    def _compare(self, call: _Call, answer: _Answer, alike: Alike) -> None:
        """Take the vectors by which workers are compared."""
        if answer.kind:
            if answer.kind != LOST:
                self._refuse(call.worker, answer.by, f"{answer.kind}: {answer.error}")
        elif call.worker in self._there:
            alike.add(call.worker, self._there[call.worker], answer.result)

    def _choose(self, alike: Alike) -> None:
        """Settle who computes, once all have shown themselves, and send the others away."""
        shown = all(call.shard for call in self._flying.values())
        if alike.waited and (shown or time.monotonic() - alike.waited > PATIENCE):
            alike.choose()
        for worker, why in alike.odd(self._there).items():
            self._refuse(worker, str(self._there[worker]), why)

    def _ready(self, alike: Alike) -> list[str]:
        return [worker for worker in alike.chosen if worker in self._there]

    def _take(
        self, shard: _Shard, answer: _Answer, task: ShardTask, writers: list[RowWriter]
    ) -> _Shard | None:
        """Adopt a shard that a worker committed; return it where it has to be computed again.

        Raises:
            OnepassError: It failed too often.
        """
        if not answer.kind:
            try:
                for writer, positions in zip(writers, shard.missing, strict=True):
                    if len(positions):
                        writer.adopt(positions)
                return None
            except OnepassError as error:  # not seen here yet, or of other images
                answer = replace(answer, kind=type(error).__name__, error=first_line(error))
        if answer.kind == LOST and answer.by in self._lost:
            return shard  # it waited behind the one that was being computed
        self._lost |= {answer.by} if answer.kind == LOST else set()
        rows = f"{task.job}: rows {shard.rows.min():,} to {shard.rows.max():,}"
        failures = shard.failures + 1
        if failures == ATTEMPTS:
            raise ClusterError(
                f"{rows}: failed {ATTEMPTS} times, at last on {answer.by}: {answer.kind}: {answer.error}"
            )
        log.info(f"{rows}: {answer.by}: {answer.error}; computed again")
        return shard._replace(failures=failures)


def _most(bounds: Counter) -> str:
    return bounds.most_common(1)[0][0]
