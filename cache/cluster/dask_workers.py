"""The workers of a running Dask scheduler."""

import asyncio
import logging
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Any

import cloudpickle
import distributed
from distributed.comm import connect

from onepass.cache.cluster import call
from onepass.cache.cluster.workers import (
    CONNECTING,
    WorkerLostError,
    gone,
    listens,
    no_answer,
    settle,
)

cloudpickle.register_pickle_by_value(call)


class DaskWorkers:
    """See `onepass.cache.cluster.workers.Workers`."""

    def __init__(self, address: str) -> None:
        self.where, self.start = f"dask at {address}", f"dask worker {address}"
        if not listens(address.rpartition("//")[2]):  # Dask would try again and again
            raise no_answer(self.where, "dask scheduler")
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # it shows tracebacks
        try:
            _shake_hands(address)
            self._client = distributed.Client(address, timeout=CONNECTING, set_as_default=False)
        except (OSError, ValueError) as error:
            raise no_answer(self.where, "dask scheduler") from error
        self._flying: dict[Future, tuple[str, distributed.Future]] = {}

    def names(self) -> set[str]:
        client = self._client
        if client.status != "running":
            raise gone(self.where)
        try:
            scheduler: Any = client.scheduler
            there = set(client.sync(scheduler.ncores, callback_timeout=CONNECTING))
        except (OSError, TimeoutError) as error:
            raise gone(self.where) from error
        for ours, (worker, theirs) in list(self._flying.items()):
            if worker not in there and not ours.done():
                settle(ours, error=WorkerLostError(worker))
                theirs.cancel()
            if ours.done():
                del self._flying[ours]
        return there

    def submit(self, worker: str, task: str, message: Any) -> Future:
        ours: Future = Future()
        theirs = self._client.submit(
            call.call, task, message, workers=[worker], allow_other_workers=False, pure=False
        )
        self._flying[ours] = worker, theirs
        theirs.add_done_callback(partial(_pass_on, ours, worker))
        return ours

    def close(self) -> None:
        self._client.close(timeout=CONNECTING)


def _shake_hands(address: str) -> None:
    """Connect as a client does, which of what is no scheduler would be left half made, or wait for ever.

    Raises:
        ConnectionError: Nothing came, or something that is no scheduler's.
    """
    secured = distributed.Security().get_connection_args("client")
    answer: Future = Future()

    async def connected() -> None:
        (await connect(address, timeout=CONNECTING, **secured)).abort()

    def ask() -> None:  # in a thread: in a notebook this one has a loop already
        try:
            settle(answer, asyncio.run(connected()))
        except BaseException as error:
            settle(answer, error=error)

    Thread(target=ask, daemon=True).start()
    try:
        answer.result(CONNECTING)
    except (
        Exception
    ) as error:  # of anything that is read as a scheduler's words, anything is raised
        raise ConnectionError("no scheduler answers") from error


def _pass_on(ours: Future, worker: str, theirs: distributed.Future) -> None:
    """Settle our future as Dask's was; called in a thread of its client."""
    try:
        settle(ours, theirs.result())
    except (distributed.CancelledError, distributed.scheduler.KilledWorker, OSError):
        settle(ours, error=WorkerLostError(worker))
    except BaseException as error:
        settle(ours, error=error)
