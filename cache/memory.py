"""How much memory work may take: one budget, from which it follows what is held and what is read again.

The budget changes how long work takes, never a bit of what it gives.
"""

import math
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

import numpy as np

from onepass.cache.errors import UsageError

Result = TypeVar("Result")

SHARE = 4  # arrays as large as one of so many parts of the budget may be held: a few are at a time
LEAST = 256_000_000  # bytes: what the work itself needs, whatever it holds
CGROUP = Path("/sys/fs/cgroup")

_budget: ContextVar[int | None] = ContextVar("onepass_memory", default=None)


@contextmanager
def memory_budget(limit: float | None) -> Iterator[None]:
    """Let the work in the block, in this thread, take about so many bytes; None: half of what is free now.

    Raises:
        UsageError: It is no number of bytes.
    """
    if limit is not None and not 0 <= limit < math.inf:
        raise UsageError(f"memory: expected a number of bytes, received {limit}")
    token = _budget.set(free_memory() // 2 if limit is None else int(limit))
    try:
        yield
    finally:
        _budget.reset(token)


def within_memory(work: Callable[..., Result]) -> Callable[..., Result]:
    """Let the work of a command, whose configuration is its first argument, take as much as that says."""

    @wraps(work)
    def limited(config: Any, *rest: Any, **named: Any) -> Result:
        with memory_budget(config.memory):
            return work(config, *rest, **named)

    return limited


def processes_within(count: int) -> int:
    """Return how many processes that grow as large as this one the budget has room for beside it, `count` at most."""
    limit = _budget.get()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    room = free_memory() // 2 if limit is None else limit - own
    return max(0, min(count, room // own))


def block_bytes() -> int:
    """Return how large an array may be that is held as a whole, or a block of one that is not."""
    limit = _budget.get()
    return (free_memory() // 2 if limit is None else limit) // SHARE


def may_be_held(size: int) -> bool:
    """Tell whether an array of `size` bytes may be held as a whole; else it is read block by block, again and again."""
    if (
        _budget.get() is None and size <= LEAST // 2 // SHARE
    ):  # as there is that much at least: nobody is asked
        return True
    return size <= block_bytes()


def scratch(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array to be filled: in memory where it may be held, else in a nameless file of `$TMPDIR`."""
    if may_be_held(math.prod(shape) * np.dtype(dtype).itemsize):
        return np.empty(shape, dtype)
    with TemporaryFile(prefix="onepass-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)  # it stays mapped when it is closed


def free_memory() -> int:
    """Return how many bytes this process could still take without swapping; at least `LEAST`."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    known = _numbers(Path("/proc/meminfo"))
    if "MemAvailable:" in known:
        found.append(1024 * known["MemAvailable:"])
    limit, used = (_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    if (
        limit is not None and used is not None
    ):  # of a container; what it maps of files can be taken back
        found.append(limit - used + _numbers(CGROUP / "memory.stat").get("file", 0))
    return max(LEAST, min(found))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such system, or "max"
        return None


def _numbers(path: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
