"""Small files, written so that a reader sees the old one or the new one and never a half."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onepass.cache.errors import (
    CorruptFileError,
    MissingFileError,
    OutOfSpaceError,
    refused_by_system,
    unreadable,
)

TEMPORARY = ".tmp-"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is not, until its folder is synced)."""
    descriptor = os.open(folder, os.O_RDONLY)
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
    fsync_folder(folder.parent)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it into place.

    Raises:
        OutOfSpaceError: The disk is full; `path` is as it was before.
    """
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(
        prefix=TEMPORARY, suffix="-" + path.name[-80:], dir=path.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.chmod(0o644)
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise out_of_space(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """Return the temporary files that killed writers of `path` left beside it."""
    ending = "-" + path.name[-80:]
    return [
        found
        for found in path.parent.glob(TEMPORARY + "*")
        if found.name.endswith(ending) and len(found.name) == len(TEMPORARY + "????????" + ending)
    ]


def out_of_space(path: Path) -> OutOfSpaceError:
    """Return the error for a write that the disk refused."""
    return OutOfSpaceError(
        f"{path}: the disk (or the file size limit) is full; what was committed before is intact. "
        "Free some space or move the store with --cache-dir, then run the same command again"
    )


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` by way of a synced temporary file and a rename."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MissingFileError: There is no such file.
        CorruptFileError: It is not JSON.
        UnreadableFileError: The system refuses to read it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (ValueError, OSError, RecursionError) as error:  # the last: brackets without end
        if refused_by_system(error):
            raise unreadable(path, error) from error
        raise CorruptFileError(
            f"{path}: expected a JSON file, but it cannot be read ({error})"
        ) from error
