"""The lock of the system on one open file, which dies with the process that holds it."""

import os
from pathlib import Path

from onepass.cache.errors import OnepassError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock_file(descriptor: int, *, wait: bool) -> None:
    """Lock an open file until it is closed, against every other process that asks.

    Raises:
        BlockingIOError: Another one holds it, and `wait` is false.
        OnepassError: The system has no such locks.
    """
    if fcntl is None:
        raise OnepassError(
            "this system has no POSIX file locks, without which two processes could write one file; use "
            "Linux, macOS, or WSL on Windows"
        )
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def is_held(path: Path) -> bool:
    """Tell whether a process holds the lock of this file now, or may: of whom the system does not let us ask."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        lock_file(descriptor, wait=False)
    except (OSError, OnepassError):
        return True
    finally:
        os.close(descriptor)
    return False


def is_named(descriptor: int, path: Path) -> bool:
    """Tell whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
