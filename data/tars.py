"""Tars as trees of files, read in place; a compressed one is unpacked once into a file that is deleted at the end.

Tars come from strangers, as zips do: every member's name, kind and size is checked before the first is read.
"""

import bz2
import gzip
import io
import logging
import lzma
import os
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from onepass.cache.errors import CorruptFileError, OnepassError, refused_by_system, unreadable
from onepass.cache.files import full_disk_named, make_folder
from onepass.cache.progress import Progress, human_bytes
from onepass.cache.provenance import digest_json
from onepass.data.archive import (
    JUST_NOW,
    Limits,
    Tree,
    name_objection,
    refused,
    set_aside,
    with_parents,
)

PACKED: dict[str, Callable[..., Any]] = {
    ".tgz": gzip.open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open,
}  # fmt: skip
HEADER = 1 << 20  # bytes that a member's header may have: a name, and what else is said of it
BLOCK = 1 << 22  # bytes that are unpacked at a time
MEGABYTE = 1_000_000

log = logging.getLogger(__name__)


@contextmanager
def open_tar(path: Path, limits: Limits, scratch: Path) -> Iterator[Tree]:
    """Open a tar for reading.

    Args:
        path: The tar, whose name ends with one of `TARS`.
        limits: What it may hold.
        scratch: Folder for the unpacked copy of a compressed one.

    Raises:
        CorruptFileError: It is no tar, or is cut short.
        UnreadableFileError: The system refuses to read it.
        InvalidInputError: It holds something that a data set does not need and an attack does.
        OutOfSpaceError: The disk has no room for the copy.
    """
    with ExitStack() as stack:
        try:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
            if unpack := PACKED.get(path.suffix.lower()):
                packed = stack.enter_context(unpack(file))
                file = stack.enter_context(_unpacked(path, packed, file, limits, scratch))
            tree = _tree(path, file, limits)
        except OnepassError:
            raise
        except (
            Exception
        ) as error:  # tarfile and the decompressors raise nearly anything on damaged input
            if refused_by_system(error):
                raise unreadable(path, error) from error
            raise CorruptFileError(
                f"{path}: cannot be read as a tar ({error}); if it was downloaded or copied, it is probably cut "
                "short: get it again"
            ) from error
        yield tree


def first_names(path: Path) -> list[str]:
    """Return the names of the first members, as far as a few blocks go; none of what is no tar."""
    names: list[str] = []
    try:
        with path.open("rb") as file:
            unpack = PACKED.get(path.suffix.lower())
            head = io.BytesIO((unpack(file) if unpack else file).read(BLOCK))
        with tarfile.open(fileobj=_Headers(head), mode="r:") as archive:  # type: ignore[call-overload]
            names += (member.name for member in archive)
    except Exception:  # what is wrong with it is said where it is opened
        return names
    return names


@contextmanager
def _unpacked(
    path: Path, packed: IO[bytes], file: IO[bytes], limits: Limits, scratch: Path
) -> Iterator[IO[bytes]]:
    """Yield the unpacked content as a file without a name, which is gone however the process ends.

    Args:
        path: The tar.
        packed: Gives its content, from `file`.
        file: The tar as it is.
        limits: What it may hold.
        scratch: Folder of the copy.
    """
    make_folder(scratch)
    size = path.stat().st_size
    most = min(limits.total_bytes, max(limits.growth, limits.ratio * size))
    with (
        tempfile.TemporaryFile(dir=scratch) as copy,
        Progress(size // MEGABYTE, "MB", f"unpacking {path.name}") as progress,
    ):
        while block := packed.read(BLOCK):
            if copy.tell() + len(block) > most:
                raise refused(path, f"it unpacks to more than {human_bytes(most)}")
            with full_disk_named(scratch):
                copy.write(block)
            progress.advance(file.tell() // MEGABYTE - progress.done)
        copy.flush()
        log.info(
            f"{path}: unpacked once ({human_bytes(copy.tell())}) into a file that is deleted at the end"
        )
        yield copy


class _Headers:
    """A file as `tarfile` sees it, which is given headers only: what a member says of itself is never much."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self.file = file.seek, file.tell, file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _tree(path: Path, file: IO[bytes], limits: Limits) -> Tree:
    places: dict[str, tuple[int, int]] = {}
    folders: set[str] = set()
    left_out: Counter[str] = Counter()
    listing: list[list] = []
    for name, member in _members(path, file, limits):
        if kind := set_aside(name + "/" * member.isdir()):
            left_out[kind] += member.isfile()
        elif member.isdir():
            folders.add(name)
        else:
            places[name] = member.offset_data, member.size
            listing.append([name, member.size, member.mtime])
    status = path.stat()
    state = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    is_old = status.st_mtime_ns < time.time_ns() - JUST_NOW
    files = tuple(sorted(places))

    def opener(name: str) -> IO[bytes]:
        offset, length = places[name]
        content = os.pread(file.fileno(), length, offset)
        if len(content) < length:
            raise EOFError("it became shorter")
        return io.BytesIO(content)

    return Tree(
        path,
        files,
        with_parents(files, folders),
        {"kind": "tar", "digest": digest_json(sorted(listing))},
        opener,
        left_out,
        {name: (*state, *place) for name, place in places.items()} if is_old else {},
    )


def _members(path: Path, file: IO[bytes], limits: Limits) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield the members by name, each after it was checked."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    names: set[str] = set()
    with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:  # type: ignore[call-overload]
        for count, member in enumerate(archive, start=1):
            archive.members.clear()  # which would keep all of them
            name = member.name.removeprefix("./")
            if count > limits.members:
                raise refused(path, f"more than {limits.members:,} members")
            if name in ("", "."):
                continue
            if why := _objection(member, name, limits):
                raise refused(path, f"{name[:80]!r} {why}")
            if name in names and not member.isdir():
                raise refused(path, f"{name[:80]!r} is in it twice")
            if member.offset_data + member.size > size:
                raise CorruptFileError(f"{path}: {name[:80]!r} is cut short; get the tar again")
            names.add(name)
            yield name, member
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(
            tarfile.BLOCKSIZE
        ):  # tarfile would take it for the end
            raise ValueError("no header and no end where one should be")


def _objection(member: tarfile.TarInfo, name: str, limits: Limits) -> str:
    """Return what speaks against a member; "" for nothing."""
    if why := name_objection(name, limits):
        return why
    if not (member.isfile() or member.isdir()) or member.issparse():
        return "is a link, a device or a file with holes, not a file"
    if not 0 <= member.size <= limits.member_bytes:
        return f"has {human_bytes(member.size)}, more than {human_bytes(limits.member_bytes)}"
    return ""
