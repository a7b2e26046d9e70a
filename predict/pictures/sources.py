"""What the words for new pictures mean: files, folders, patterns, zips, tars, addresses, tables, standard input."""

import glob
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from onepass.cache.errors import InvalidInputError, MissingFileError, OnepassError, UsageError
from onepass.cache.progress import human_bytes
from onepass.data.archive import TARS, Tree, open_tree
from onepass.data.sources.base import only_images
from onepass.data.sources.tabular import ROLES
from onepass.data.tables import SUFFIXES, read_table, texts
from onepass.predict.config import on_disk
from onepass.predict.pictures.addresses import MAX_BYTES, fetch_picture, is_address

STDIN = "-"
SHOWN = 8  # columns of a table that an error names


@dataclass(frozen=True, slots=True)
class Picture:
    """One new picture, not read yet.

    Attributes:
        name: What it is called in the answers.
        read: Returns its encoded bytes.
        path: The file that it is, or the archive that it is in; None for an address.
        member: Its name in that archive; "" where it is a file.
    """

    name: str
    read: Callable[[], bytes]
    path: Path | None = None
    member: str = ""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures in a fixed order, found one after the other.

    Attributes:
        total: How many there are; 0 where that is not known before the last.
        found: They.
    """

    total: int
    found: Iterable[Picture]


def find_pictures(
    words: Sequence[str], column: str, stack: ExitStack, stdin: IO[str] | None = None
) -> Pictures:
    """Return the pictures that words of the command line stand for, in their order.

    A file that a word names outright is a picture whatever it holds; in folders and zips the images are
    taken, by suffix or content, and what file managers leave there is passed over.

    Args:
        words: Files, folders, patterns, zips, tars, addresses, .csv and .parquet files, "-".
        column: Of the tables; "" takes the usual one.
        stack: Keeps zips open until it is closed.
        stdin: Gives the names of "-" (default: standard input).

    Raises:
        MissingFileError: A folder or a pattern holds no picture, or pyarrow is missing.
        UsageError: A table has no such column.
        OnepassError: A zip or a table is damaged, or refused as unsafe.
    """
    parts = [_expand(word, column, stack, stdin or sys.stdin) for word in words]
    known = all(part.total for part in parts)
    found = (picture for part in parts for picture in part.found)
    return Pictures(sum(part.total for part in parts) if known else 0, found)


def _expand(word: str, column: str, stack: ExitStack, stdin: IO[str]) -> Pictures:
    if word == STDIN:
        lines = (line.rstrip("\r\n") for line in stdin)
        return Pictures(0, (_named(line, Path(), trusted=False) for line in lines if line))
    if is_address(word):
        return Pictures(1, [_named(word, Path(), trusted=True)])
    path = Path(word).expanduser() if on_disk(word) else Path(word)
    suffix = path.suffix.lower()
    if not on_disk(word) and glob.has_magic(word):
        return _matches(word)
    if not on_disk(word):
        return Pictures(1, [picture_file(path, word)])
    if path.is_dir() or (word.lower().endswith((".zip", *TARS)) and path.is_file()):
        return _tree(path, stack)
    if suffix in SUFFIXES and path.is_file():
        names = _column(path, column)
        return Pictures(len(names), [_named(n, path.parent, trusted=False) for n in names])
    return Pictures(1, [picture_file(path, word)])


def _matches(pattern: str) -> Pictures:
    """Return the files that a pattern stands for."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  as the shell's own
    files = [picture_file(Path(match), match) for match in matches if Path(match).is_file()]
    if not files:
        raise MissingFileError(f"{pattern}: expected pictures, but no file is named so")
    return Pictures(len(files), files)


def _tree(path: Path, stack: ExitStack) -> Pictures:
    """Return the images of a folder, a zip or a tar."""
    whole = stack.enter_context(open_tree(path))
    tree, _ = only_images(whole)
    if not tree.files:
        raise MissingFileError(f"{path}: expected pictures, found none")

    def listed() -> Iterator[Picture]:
        for name in tree.files:
            if path.is_dir():
                yield picture_file(path / name, str(path / name))
            else:
                yield picture_inside(tree, name)

    return Pictures(len(tree.files), listed())


def _named(name: str, folder: Path, *, trusted: bool) -> Picture:
    """Return the picture of a name in a table or on a command line: an address, or a file."""
    if is_address(name):
        return Picture(name, partial(fetch_picture, name, trusted=trusted))
    return picture_file(folder / name, name)


def picture_file(path: Path, name: str) -> Picture:
    """Return the picture that a file is."""
    return Picture(name, partial(_read_file, path, name), path)


def picture_inside(archive: Tree, name: str) -> Picture:
    """Return the picture of that name in an archive."""
    return Picture(f"{archive.path}/{name}", partial(archive.read, name), archive.path, name)


def _read_file(path: Path, name: str) -> bytes:
    """Return a file's bytes.

    Raises:
        InvalidInputError: There is none, it is no plain file, too large, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(f"{name}: expected a file, found a folder, pipe or device")
        if status.st_size > MAX_BYTES:
            raise InvalidInputError(
                f"{name}: {human_bytes(status.st_size)}, more than the {human_bytes(MAX_BYTES)} that are allowed"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, OnepassError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"{name}: {reason}") from error


def _column(path: Path, column: str) -> list[str]:
    """Return the file names in a table.

    Raises:
        UsageError: It has no such column, or several and none is named.
        OnepassError: It cannot be read.
    """
    table = read_table(path)
    return [
        text
        for text in texts(table.cells(_chosen(path, table.names, [*table.images], column)))
        if text
    ]


def _chosen(path: Path, names: list[str], held: list[str], column: str) -> str:
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    if column and column not in names:
        raise UsageError(f"--column {column}: {path} has no such column; it has {shown or 'none'}")
    usual = [name for name in ROLES["file"] if name in names]
    if held and not column and not usual:
        raise UsageError(
            f"{path}: expected a column of file names, found the pictures themselves in {held[0]}, which only "
            "`onepass data prepare` reads; name a column of files with --column"
        )
    if not column and not usual and len(names) != 1:
        raise UsageError(f"{path}: name the column of the pictures with --column; it has {shown}")
    return column or (usual or names)[0]
