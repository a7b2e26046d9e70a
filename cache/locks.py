"""One writer at a time, by a lock that dies with its process.

The package filelock takes the same lock of the system, but leaves its file beside every row file and
cannot say which process holds it, which is what the user who is refused wants to know.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onepass.cache.errors import LockedError, OnepassError
from onepass.cache.files import TEMPORARY, fsync, leftovers, make_folder
from onepass.cache.flock import is_held, is_named, lock_file


@contextmanager
def exclusive(path: Path, instead: str = "") -> Iterator[None]:
    """Hold `path` + ".lock" for as long as the block runs (POSIX advisory lock).

    The temporary files that killed writers of the same path left are deleted.

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
        clear_leftovers(path)
        yield
    finally:
        lock.unlink(missing_ok=True)
        # Before a result is committed beside which a power loss would bring it back.
        with suppress(OSError):
            fsync(lock.parent)
        os.close(descriptor)


def clear_leftovers(path: Path) -> None:
    """Delete the temporary files that killed writers left; whoever calls is the only writer there.

    Args:
        path: A file, or a folder, whose folders are cleared too, but for those in which another process
            holds the lock of a file of its own.
    """
    for file in leftovers_below(path) if path.is_dir() else leftovers(path):
        file.unlink(missing_ok=True)


def leftovers_below(folder: Path) -> list[Path]:
    """Return the temporary files in a folder and those in it, as far as no one can be writing them."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob(TEMPORARY + "*")):
        found.setdefault(path.parent, []).append(path)
    written = {lock.parent for lock in folder.rglob("*.lock") if is_held(lock)}
    return [
        path
        for place, paths in found.items()
        if written.isdisjoint({place, *place.parents})
        for path in paths
        if path.is_file()
    ]


def _acquire(lock: Path, path: Path, instead: str) -> int:
    """Lock the file that has the name now: a former holder may have unlinked the one we opened."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock_file(descriptor, wait=False)
            if is_named(descriptor, lock):
                return descriptor
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace") or "unknown"
            os.close(descriptor)
            raise LockedError(
                f"{path}: process {holder} is writing it now; wait until it ends, or end it, and run "
                f"this again{f'; or {instead}' if instead else ''}"
            ) from error
        except OnepassError:
            os.close(descriptor)
            raise
        os.close(descriptor)
