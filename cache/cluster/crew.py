"""One loop over the workers of a cluster: who is there, who may take part, what each has to do, what came back."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

from onepass.cache import errors
from onepass.cache.artifacts import from_json
from onepass.cache.cluster.identity import Identity
from onepass.cache.cluster.perform import first_line
from onepass.cache.cluster.workers import WorkerLostError, Workers
from onepass.cache.errors import ClusterError, OnepassError, Remedy
from onepass.cache.progress import counted
from onepass.cache.stopping import StoppedError, StopRequest

log = logging.getLogger(__name__)

PERIOD = 0.3  # seconds between two looks at who is there and whether to stop
AHEAD = 2  # parts that a worker has at a time: one is computed, the next waits; long ones need none that waits
ATTEMPTS = 3  # a part that fails as often ends the run
QUIET = 3.0  # seconds without a worker, after which that is said
SLOW = 45.0  # seconds without an answer of any worker, after which that is said
SILENT = 30.0  # seconds without a result, after which it is said what the workers are at
NAMED = 3  # parts that are named then
LOST = WorkerLostError.__name__
LIKE_ALL = "every machine needs the same packages, and has to see the same files"


class Part(NamedTuple):
    """A part of the work: what it is, what an error calls it, and how often it failed."""

    what: Any
    name: str
    failures: int = 0


class Call(NamedTuple):
    """What was given to a worker."""

    worker: str
    task: str
    part: Part | None  # None for what is no part of the work


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker gave back: a result, or the class and the message of an error."""

    by: str
    result: Any = None
    kind: str = ""
    error: str = ""
    remedy: dict[str, Any] | None = None

    @classmethod
    def of(cls, call: Call, future: Future) -> "Answer":
        """Return what a worker gave back."""
        try:
            return cls(**future.result())
        except WorkerLostError:
            return cls(call.worker, kind=LOST, error="its process has gone")
        except Exception as error:  # whatever an engine raises
            return cls(call.worker, kind=type(error).__name__, error=first_line(error))

    @property
    def raised(self) -> type[OnepassError] | None:
        """The class of the error, where it is one of ours."""
        kind = getattr(errors, self.kind, None)
        return kind if isinstance(kind, type) and issubclass(kind, OnepassError) else None

    def unwrapped(self, what: str) -> Any:
        """Return the result of what was to be done.

        Raises:
            OnepassError: Of the worker's class, with its message and remedy.
            ClusterError: It failed in another way.
        """
        if not self.kind:
            return self.result
        if self.raised:
            raise self.raised(self.error, remedy=Remedy(**self.remedy) if self.remedy else None)
        raise ClusterError(f"{self.by}: {self.kind}: {self.error} ({what})")


class Crew:
    """The workers that may take part, and what they are at.

    Args:
        workers: Of the cluster.
        room: Module of the tasks, of which "look" gives the `Identity` of a worker.
        looked_at: What "look" is given.
        here: What this process is; workers that are unlike take no part.
        stop: Asked several times a second.
        ahead: Parts that a worker has at a time.
    """

    def __init__(
        self,
        workers: Workers,
        room: str,
        looked_at: Any,
        here: Identity,
        stop: StopRequest,
        ahead: int = AHEAD,
    ) -> None:
        self._ahead = ahead
        self._workers, self._room, self._looked_at = workers, room, looked_at
        self._here, self._stop = here, stop
        self._met: set[str] = set()
        self._there: dict[str, Identity] = {}  # those of them that may take part
        self._refused: dict[str, str] = {}  # the others, and why
        self._flying: dict[Future, Call] = {}  # oldest first
        self._lost: set[str] = set()  # those that went with a part of theirs
        self._since = time.monotonic()  # when there was a worker that may take part
        self._said = ""  # of there being none
        self._had = False  # whether there was one
        self._heard = time.monotonic()  # when something came back or was said of what is under way

    @property
    def ready(self) -> list[str]:
        """Those that may be given parts."""
        return list(self._there)

    @property
    def at_work(self) -> str:
        """How many they are, in words."""
        return counted(len(self._there), "worker")

    def hand_out(
        self,
        task: str,
        parts: Iterable[Part],
        message: Callable[[Any], Any],
        accept: Callable[[Any, Any], None],
    ) -> None:
        """Hand parts out, a few to a worker, until all parts are done or the work is asked to stop.

        Args:
            task: What is done with each.
            parts: They, taken up one after the other.
            message: Makes of what a part is what a worker is sent.
            accept: Takes what a part is, and what a worker made of it; an OnepassError of it lets that be done again.

        Raises:
            ClusterError: A part failed too often, the cluster has gone, or nobody there can take part.
        """
        for _ in self.accepted(task, parts, message, accept):
            pass

    def accepted(
        self,
        task: str,
        parts: Iterable[Part],
        message: Callable[[Any], Any],
        accept: Callable[[Any, Any], None],
        full: Callable[[], bool] = lambda: False,
    ) -> Iterator[Any]:
        """Hand parts out as `hand_out` does, and yield what each is that was accepted, in the order they end.

        While `full()`, no new part is taken up: those under way, or to be done again, are finished first.
        """
        source, waiting = iter(parts), deque[Part]()

        def more() -> bool:
            if not waiting and not full():
                waiting.extend(islice(source, 1))
            return bool(waiting)

        # What an earlier job's workers still say of it is not waited for.
        self._flying = {f: call for f, call in self._flying.items() if call.task == "look"}
        with suppress(StoppedError):
            while more() or any(call.part for call in self._flying.values()):
                done = []
                for call, answer in self._turn():
                    if call.part and (again := self._take(call.part, answer, accept)):
                        waiting.appendleft(again)
                    elif call.part:
                        done.append(call.part.what)
                for worker in self.ready:
                    has = sum(call.worker == worker for call in self._flying.values())
                    for _ in range(self._ahead - has):
                        if more():
                            part = waiting.popleft()
                            self._send(worker, task, message(part.what), part)
                yield from done

    def on_one(self, task: str, message: Any, *, others_too: bool = False) -> Any:
        """Return what one worker, whichever is there, makes of a task.

        Args:
            task, message: What it is to do.
            others_too: Let the others do it meanwhile, for what it leaves in their memory; nobody waits for them.

        Raises:
            OnepassError: Of the worker's class, with its message and remedy.
            StoppedError: The work is asked to stop.
        """
        answer = Answer(self._workers.where)
        for _ in range(ATTEMPTS):
            while not self._there:
                self._turn()
            worker = next(iter(self._there))
            sent = self._send(worker, task, message)
            if others_too:  # not those that are still at an earlier task: it would pile up
                for other in self._there.keys() - {call.worker for call in self._flying.values()}:
                    self._send(other, task, message)
            others_too = False
            found: list[Answer] = []
            while not found:
                found = [answer for call, answer in self._turn() if call is sent]
            (answer,) = found
            if not answer.kind or answer.raised:
                break
        return answer.unwrapped(f"{task}, tried {ATTEMPTS} times")

    def _send(self, worker: str, task: str, message: Any, part: Part | None = None) -> Call:
        call = Call(worker, task, part)
        self._flying[self._workers.submit(worker, f"{self._room}:{task}", message)] = call
        return call

    def _turn(self) -> list[tuple[Call, Answer]]:
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
            self._send(worker, "look", self._looked_at)
        for worker in self._there.keys() - names:
            log.info(f"{self._there.pop(worker)}: has gone")
        self._say_who_is_missing(names)
        if not self._flying:
            time.sleep(PERIOD)
        done = wait(self._flying, PERIOD, FIRST_COMPLETED).done if self._flying else ()
        answers = []
        for future in [one for one in self._flying if one in done]:
            call = self._flying.pop(future)
            answer = Answer.of(call, future)
            if call.task == "look":
                self._greet(call.worker, answer)
            else:
                answers.append((call, answer))
        self._say_what_they_do(came=bool(answers))
        return answers

    def _say_what_they_do(self, *, came: bool) -> None:
        """Say now and then what is under way, if nothing came back for a while: parts may take minutes."""
        tasks = [call for call in self._flying.values() if call.task != "look"]
        now = time.monotonic()
        if came or not tasks:
            self._heard = now
            return
        if now - self._heard < SILENT:
            return
        names = list(dict.fromkeys(call.part.name if call.part else call.task for call in tasks))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        at_work = counted(len({call.worker for call in tasks}), "worker")
        log.info(f"{at_work} at work: {', '.join(names[:NAMED])}{more}")
        self._heard = now

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
        what = "no worker yet" if not names else f"{counted(len(names), 'worker')} getting ready"
        if now - self._since > (SLOW if names else QUIET) and what != self._said:
            self._said = what
            advice = "" if names else f"; start one with: {self._workers.start}"
            log.info(f"{self._workers.where}: {what}{advice}")

    def _greet(self, worker: str, answer: Answer) -> None:
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

    def _take(self, part: Part, answer: Answer, accept: Callable[[Any, Any], None]) -> Part | None:
        """Accept what a worker made of a part; return the part where it has to be done again.

        Raises:
            OnepassError: It failed too often.
        """
        if not answer.kind:
            try:
                accept(part.what, answer.result)
                return None
            except OnepassError as error:  # not seen here yet, or of other images
                answer = replace(answer, kind=type(error).__name__, error=first_line(error))
        if answer.kind == LOST and answer.by in self._lost:
            return part  # it waited behind the one that was being computed
        self._lost |= {answer.by} if answer.kind == LOST else set()
        failures = part.failures + 1
        if failures == ATTEMPTS:
            raise ClusterError(
                f"{part.name}: failed {ATTEMPTS} times, at last on {answer.by}: {answer.kind}: {answer.error}"
            )
        log.info(f"{part.name}: {answer.by}: {answer.error}; computed again")
        return part._replace(failures=failures)
