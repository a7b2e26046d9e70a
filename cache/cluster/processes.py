"""Processes of this machine, which are handed parts of the work as the workers of a cluster are."""

import os
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any

from onepass.cache.cluster.call import call
from onepass.cache.cluster.crew import Answer, Part
from onepass.cache.commandline.signals import unheard_by_children
from onepass.cache.errors import ClusterError
from onepass.cache.orphans import end_with_parent
from onepass.cache.progress import counted
from onepass.cache.stopping import StopRequest


class Processes:
    """As many processes as are asked for; threads would wait for one another wherever Python is at work.

    Args:
        count: How many.
        room: Module of the tasks.
        stop: Asked after each part.
    """

    def __init__(self, count: int, room: str, stop: StopRequest) -> None:
        self._count, self._room, self._stop = count, room, stop

    @property
    def at_work(self) -> str:
        """How many they are, in words."""
        return counted(self._count, "core")

    def hand_out(
        self,
        task: str,
        parts: Iterable[Part],
        message: Callable[[Any], Any],
        accept: Callable[[Any, Any], None],
    ) -> None:
        """Hand parts out until all are done or the work is asked to stop, as `Crew.hand_out` does.

        Raises:
            OnepassError: Of a process's class, with its message and remedy; what `accept` raises.
            ClusterError: A process was killed, or failed otherwise.
        """
        from joblib import delayed
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        some = list(parts)
        name = f"{self._room}:{task}"
        calls = (delayed(_numbered)(n, name, message(part.what)) for n, part in enumerate(some))
        answers = in_processes(self._count, calls, return_as="generator_unordered", batch_size=1)
        try:
            with warnings.catch_warnings(), closing(answers):
                warnings.simplefilter("ignore")  # that a stop cancels what is under way
                for number, given in answers:
                    accept(some[number].what, Answer(**given).unwrapped(some[number].name))
                    if self._stop.reason:
                        return
        except TerminatedWorkerError as error:
            if not self._stop.reason:
                raise ClusterError(
                    "a process of this command was killed, perhaps for want of memory; "
                    "run the same command again: what is committed is kept"
                ) from error


def _numbered(number: int, task: str, message: Any) -> tuple[int, dict[str, Any]]:
    return number, call(task, message)


def in_processes(count: int, calls: Iterable[Any], **how: Any) -> Generator[Any, None, None]:
    """Let processes of this machine make calls, and give what they return; the processes are kept for the next time.

    Args:
        count: How many processes.
        calls: Made by `joblib.delayed`.
        how: As `joblib.Parallel` takes it; `return_as`, a generator of either kind, among it.
    """
    from multiprocessing.resource_tracker import ensure_running

    from joblib import Parallel

    ensure_running()  # joblib would start it, and that lets Ctrl-C through again
    ending = {"initializer": end_with_parent, "initargs": (os.getpid(),)}
    with unheard_by_children():
        return Parallel(n_jobs=count, **how, **ending)(calls)
