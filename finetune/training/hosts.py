"""Several processes, on one machine or many, that train one network together, by JAX.

All run the same command on the same files: rows, order, draws and start are those of one process. Each reads its
share of a batch, and XLA adds the gradients up (`onepass.finetune.training.parallel`). Only the first one writes.
"""

import atexit
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from onepass.cache.commandline.child import go_on_in_child
from onepass.cache.commandline.command import FAILED, STOPPED
from onepass.cache.commandline.signals import end_on_signals
from onepass.cache.errors import ClusterError, InvalidInputError, OnepassError
from onepass.cache.keras_settings import load_keras
from onepass.cache.progress import human_seconds, progress_to

log = logging.getLogger(__name__)

BATCH_SYSTEM = "auto"  # as an address: Slurm or Open MPI say it
MEETING = 300  # seconds in which all processes must have come
SILENT = 60  # seconds without a sign of life of a process, where its connection does not show that it has gone
AGAIN = "run the same command on every host again: it resumes from the last checkpoint"


@contextmanager
def together(address: str, processes: int | None, process: int | None) -> Iterator[None]:
    """Join the other processes for the block, before which JAX must not have computed anything.

    Args:
        address: HOST:PORT, at which the first process waits for the others; "" where there are none, or
            `BATCH_SYSTEM`.
        processes: How many there are; None where the batch system says it.
        process: Which of them this one is, from 0; the same.

    Raises:
        InvalidInputError: Keras does not run on JAX.
        ClusterError: Not all came, or one has gone.
    """
    if not address:
        yield
        return
    if ended := go_on_in_child():  # where another one goes, JAX may write a trace and abort
        why = f"it was ended by {ended}"
        if ended == "SIGABRT":
            why = f"not all came within {human_seconds(MEETING)}, or another one has gone"
        raise ClusterError(
            f"a process at --coordinator {address}: {why}; see what the others say. Then {AGAIN}"
        )
    try:
        _meet(address, processes, process)
        with progress_to(None if first() else lambda update: None):
            yield
    except BaseException as error:
        code = STOPPED if isinstance(error, KeyboardInterrupt) else FAILED
        atexit.register(os._exit, code)  # JAX would wait for the others, who wait for this process
        if isinstance(error, Exception) and _has_gone(error):
            raise ClusterError(
                f"process {number()} of {count()}: another one has gone; see what it says. Then {AGAIN}"
            ) from error
        raise


def count() -> int:
    """Return how many processes train together."""
    jax = sys.modules.get("jax")
    return jax.process_count() if jax and jax.distributed.is_initialized() else 1


def number() -> int:
    """Return which of them this one is, from 0."""
    jax = sys.modules.get("jax")
    return jax.process_index() if jax and jax.distributed.is_initialized() else 0


def first() -> bool:
    """Return whether this is the process that writes."""
    return number() == 0


def wait() -> None:
    """Wait until all processes have come here."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("onepass")


def largest(value: int) -> int:
    """Return the largest of what the processes have."""
    return int(_gathered([value]).max())


def of_first(value: int) -> int:
    """Return what the first process has."""
    return int(_gathered([value])[0])


def by_shares(work: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Let each process do its share of rows; return what they made of all of them, in order.

    Args:
        work: Makes an array (n, …) of rows (n,).
        rows: (N,), in every process.
    """
    if count() == 1:
        return work(rows)
    each = -(-len(rows) // count())
    mine = np.resize(rows, each * count())[number() * each :][:each]
    return _gathered(work(mine))[: len(rows)]


def _gathered(values: np.ndarray | list[int]) -> np.ndarray:
    """Return the arrays (n, …) of all processes, (count · n, …), the same in each."""
    values = np.asarray(values)
    if count() == 1:
        return values
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values, tiled=True))


def _meet(address: str, processes: int | None, process: int | None) -> None:
    """Connect JAX with the other processes, and see that all are there."""
    load_keras()
    import keras

    if keras.config.backend() != "jax":
        raise InvalidInputError(
            f"--coordinator: several hosts train with KERAS_BACKEND=jax only, received {keras.config.backend()}"
        )
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it would answer SIGTERM for us
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    named: dict[str, Any] = {} if address == BATCH_SYSTEM else {
        "coordinator_address": address, "num_processes": processes, "process_id": process,
        "cluster_detection_method": "deactivate",
    }  # fmt: skip
    log.info(f"waiting for all processes ({address})")
    try:
        if process == 0:  # where it is taken, JAX may end with a segmentation fault
            socket.create_server(("", int(address.rpartition(":")[2]))).close()
        with end_on_signals():
            jax.distributed.initialize(
                **named, initialization_timeout=MEETING, heartbeat_timeout_seconds=SILENT
            )
        wait()
    except ValueError as error:
        raise ClusterError(
            f"--coordinator {address}: no Slurm or Open MPI says which processes there are ({error}); expected HOST:PORT "
            "with --processes N and --process I"
        ) from error
    except (RuntimeError, OSError, OverflowError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ClusterError(
            f"--coordinator {address}: the processes cannot meet there ({reason}); expected HOST:PORT of process 0, which is "
            "free there and which all can reach"
        ) from error
    log.info(f"process {number()} of {count()}; the first one shows how far it is, and writes")
    if not first():
        logging.getLogger("onepass").setLevel(logging.WARNING)


def _has_gone(error: Exception) -> bool:
    """Say whether an error is that of a connection to a process that has gone."""
    made_by_us = isinstance(error, OnepassError)
    text = str(error)
    return not made_by_us and any(word in text for word in ("Gloo", "NCCL", "coordination"))
