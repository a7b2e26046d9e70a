"""Workers on a running Ray cluster: an actor for each GPU, or for each machine without one."""

import atexit
import logging
import os
from concurrent.futures import Future, wait
from functools import partial
from threading import Thread
from typing import Any

import grpc
import ray
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from onepass.cache.cluster import call
from onepass.cache.cluster.workers import (
    CONNECTING,
    WorkerLostError,
    gone,
    listens,
    no_answer,
    settle,
)
from onepass.cache.commandline.signals import keep_signals

cloudpickle.register_pickle_by_value(call)

PERIOD = 1.0  # seconds between two looks at whether the head is still there


class RayWorkers:
    """See `onepass.cache.cluster.workers.Workers`."""

    def __init__(self, address: str) -> None:
        self.where, self.start = f"ray at {address}", f"ray start --address {address}"
        self._ours = not ray.is_initialized()
        if self._ours:
            if address != "auto" and not _answers(address.removeprefix("ray://")):
                raise no_answer(self.where, "ray start --head")
            try:
                with keep_signals():
                    ray.init(
                        address=address,
                        log_to_driver=False,
                        configure_logging=False,
                        logging_level=logging.ERROR,
                    )
            except (OSError, RuntimeError, ValueError) as error:
                raise no_answer(self.where, "ray start --head") from error
        client = address.startswith("ray://")
        self._head = address[6:] if client else ray.get_runtime_context().gcs_address
        self._actors: dict[str, Any] = {}
        self._dead: set[str] = set()
        self._made = 0

    def names(self) -> set[str]:
        # Ray itself would wait a minute for a head that has gone, and then end this process.
        found: Future = Future()
        asking = Thread(target=self._find, args=(found,), daemon=True)
        while not found.done():
            if not listens(self._head):
                raise gone(self.where)
            if asking.ident is None:
                asking.start()
            wait([found], PERIOD)
        return found.result()

    def _find(self, found: Future) -> None:
        try:
            settle(found, self._call_on_nodes())
        except BaseException as error:
            settle(found, error=error)

    def _call_on_nodes(self) -> set[str]:
        """Start an actor for each GPU, or machine without one, that has none; return all there are."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        while self._dead:
            self._actors.pop(self._dead.pop(), None)
        for node in nodes:
            host, resources = node["NodeManagerHostname"], node["Resources"]
            gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 0)
            for number in range(gpus or int(cpus > 0)):
                if not any(name.startswith(f"{host} {number} ") for name in self._actors):
                    place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                    share = {"num_gpus": 1} if gpus else {"num_cpus": cpus}
                    actor = ray.remote(call.Caller).options(scheduling_strategy=place, **share)
                    self._made += 1
                    self._actors[f"{host} {number} {self._made}"] = actor.remote()
        return set(self._actors)

    def submit(self, worker: str, task: str, message: Any) -> Future:
        ours: Future = Future()
        theirs = self._actors[worker].call.remote(task, message).future()
        theirs.add_done_callback(partial(self._pass_on, ours, worker))
        return ours

    def close(self) -> None:
        if not listens(self._head):  # there is nobody to take leave of, which would take a minute
            atexit.unregister(ray.shutdown)
            return
        for actor in self._actors.values():
            ray.kill(actor)
        if self._ours:
            ray.shutdown()

    def _pass_on(self, ours: Future, worker: str, theirs: Future) -> None:
        error = theirs.exception()
        if isinstance(error, RayActorError):
            self._dead.add(worker)
            error = WorkerLostError(worker)
        settle(ours, None if error else theirs.result(), error)


def _answers(address: str) -> bool:
    """Tell whether gRPC is spoken at HOST:PORT: Ray itself would ask anything else for minutes, and print what it asks."""
    if not listens(address):
        return False
    if os.environ.get("RAY_USE_TLS") == "1":  # its keys are Ray's to read
        return True
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECTING)
        except grpc.FutureTimeoutError:
            return False
    return True
