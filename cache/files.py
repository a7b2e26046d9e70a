"""Small files, written so that a reader sees the old one or the new one and never a half."""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onepass.cache.errors import (
    CorruptFileError,
    MissingFileError,
    OnepassError,
    OutOfSpaceError,
    UnreadableFileError,
    refused_by_system,
    unreadable,
)
from onepass.cache.flock import is_held, is_named, lock_file

TEMPORARY = ".tmp-"
MAX_JSON = 32_000_000  # bytes; in memory it may become twenty times as much
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fsync(path: Path) -> None:
    """Make a file's bytes durable, or the names in a folder (a rename is not, until its folder is synced)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable: its name is not, until its parent is synced."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync(folder.parent)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it into place.

    Those that killed writers of the same path left are deleted.

    Raises:
        OutOfSpaceError: The disk is full; `path` is as it was before.
    """
    make_folder(path.parent)
    for left in leftovers(path):
        if not is_held(left):
            left.unlink(missing_ok=True)
    held, temporary = _temporary_beside(path)
    try:
        with full_disk_named(path):
            yield temporary
            fsync(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
            fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(held)


def _temporary_beside(path: Path) -> tuple[int, Path]:
    """Make a temporary file; its lock, held while it is open, tells others that it is being written."""
    while True:
        descriptor, name = tempfile.mkstemp(
            prefix=TEMPORARY, suffix="-" + path.name[-80:], dir=path.parent
        )
        with suppress(OSError, OnepassError):  # where there are no locks, nobody deletes it either
            lock_file(descriptor, wait=True)  # for one who asks in this moment whether it is held
        if is_named(descriptor, Path(name)):  # who asked before it was locked has deleted it
            return descriptor, Path(name)
        os.close(descriptor)


def leftovers(path: Path) -> list[Path]:
    """Return the temporary files that killed writers of `path` left beside it."""
    ending = "-" + path.name[-80:]
    return [
        found
        for found in path.parent.glob(TEMPORARY + "*")
        if found.name.endswith(ending) and len(found.name) == len(TEMPORARY + "????????" + ending)
    ]


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Say of a write that the disk refuses what was being written.

    Raises:
        OutOfSpaceError: The disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise OutOfSpaceError(
            f"{path}: the disk (or the file size limit) is full; what was committed before is intact. "
            "Free some space or move the store with --cache-dir, then run the same command again"
        ) from error


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` by way of a synced temporary file and a rename."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode() + b"\n")


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Return a file's bytes.

    Args:
        path: The file.
        limit: How many it may have; a larger one is not read.

    Raises:
        MissingFileError: There is no such file.
        CorruptFileError: It is larger than `limit`.
        UnreadableFileError: The system refuses to read it, or it is no file: a device may have no end.
    """
    try:
        with open(path, "rb", opener=_open_now) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFileError(f"{path}: expected a file, found a pipe or a device")
            if limit is not None and status.st_size > limit:
                raise CorruptFileError(
                    f"{path}: expected at most {limit:,} bytes, found {status.st_size:,}"
                )
            return file.read()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, MemoryError) as error:
        if refused_by_system(error):
            raise unreadable(path, error) from error
        raise


def _open_now(name: str, flags: int) -> int:
    """Open a file without waiting, as one would for whoever writes into a pipe."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(content: bytes) -> Any:
    """Return what JSON text holds.

    Raises:
        ValueError: It is not JSON, not UTF-8, or nested without end.
    """
    try:
        return json.loads(content.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MissingFileError: There is no such file.
        CorruptFileError: It is not JSON, or larger than `MAX_JSON`.
        UnreadableFileError: The system refuses to read it.
    """
    try:
        return parse_json(read_bytes(path, MAX_JSON))
    except ValueError as error:
        raise CorruptFileError(
            f"{path}: expected a JSON file, but it cannot be read ({error})"
        ) from error
