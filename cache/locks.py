"""One writer at a time, by a lock that dies with its process.

The package filelock takes the same lock of the system, but leaves its file beside every row file and
cannot say which process holds it, which is what the user who is refused wants to know.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onepass.cache.errors import LockedError, OnepassError
from onepass.cache.files import make_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def exclusive(path: Path, instead: str = "") -> Iterator[None]:
    """Hold `path` + ".lock" for as long as the block runs (POSIX advisory lock).

    Args:
        path: The file, or the folder, that is written.
        instead: What whoever is refused may do, besides waiting.

    Raises:
        LockedError: Another process holds it.
    """
    lock = path.with_name(path.name + ".lock")
    make_folder(lock.parent)
    descriptor = _acquire(lock, path, instead)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


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


def _acquire(lock: Path, path: Path, instead: str) -> int:
    """Lock the file that has the name now: a former holder may have unlinked the one we opened."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock_file(descriptor, wait=False)
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace") or "unknown"
            os.close(descriptor)
            raise LockedError(
                f"{path}: process {holder} is writing it now; wait until it ends, or end it, and run "
                f"this again{f'; or {instead}' if instead else ''}"
            ) from error
        except FileNotFoundError:
            pass
        except OnepassError:
            os.close(descriptor)
            raise
        os.close(descriptor)
