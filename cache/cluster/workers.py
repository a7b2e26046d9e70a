"""The worker processes of a cluster, whichever engine runs it: each can be given work of its own."""

import socket
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol

from onepass.cache.errors import ClusterError

CONNECTING = 10.0  # seconds in which a cluster must answer
INSTALL = "pip install 'onepass[cluster]'"


class WorkerLostError(Exception):
    """The process that was to do something has gone."""


class Workers(Protocol):
    """A connection to a cluster.

    Attributes:
        where: The engine and its address, in words.
        start: The command that adds a worker.
    """

    where: str
    start: str

    def names(self) -> set[str]:
        """Return those that there are now; what was given to one that has gone fails with WorkerLostError.

        Raises:
            ClusterError: The cluster has gone.
        """

    def submit(self, worker: str, task: str, message: Any) -> Future:
        """Let a worker do a task, after what it was given before; gives what `onepass.cache.cluster.call` returns."""

    def close(self) -> None:
        """Cancel what is not begun, and leave."""


def connect(engine: str, address: str) -> Workers:
    """Return a connection to a running cluster.

    Args:
        engine: "dask" or "ray".
        address: As the engine writes it.

    Raises:
        ClusterError: The engine is not installed, or nobody answers there.
    """
    try:
        if engine == "dask":
            from onepass.cache.cluster.dask_workers import DaskWorkers

            return DaskWorkers(address)
        from onepass.cache.cluster.ray_workers import RayWorkers

        return RayWorkers(address)
    except ImportError as error:
        raise ClusterError(
            f"--executor {engine}: {error.name} is not installed; run, here and on every machine of the cluster: "
            f"{INSTALL}"
        ) from error


def no_answer(where: str, start: str) -> ClusterError:
    """Return the error for a cluster that cannot be reached."""
    return ClusterError(
        f"{where}: nobody answers there; start it with: {start}, or correct --address"
    )


def gone(where: str) -> ClusterError:
    """Return the error for a cluster that has ended."""
    return ClusterError(
        f"{where}: it has gone; what is committed is kept. Start it again, and run the same command"
    )


def listens(address: str) -> bool:
    """Tell whether anything listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    with suppress(OSError, ValueError, OverflowError):
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING).close()
        return True
    return False


def settle(future: Future, result: Any = None, error: BaseException | None = None) -> None:
    """Give a future its result or its error, unless another thread has done so."""
    with suppress(Exception):  # InvalidStateError
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
