"""Images that a table names or holds: CSV, TSV, JSON lines, Parquet, or a folder with Hugging Face's metadata file."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from onepass.cache.content import source_of as digest_of
from onepass.cache.errors import InvalidInputError, MissingFileError, UsageError
from onepass.cache.provenance import digest_bytes
from onepass.data.archive import NO_FILE, Tree, files_by_name, open_tree
from onepass.data.layout import one_form, split_of
from onepass.data.record import Origin
from onepass.data.sources.base import Request, Source, matching_files, own_name, splits_by_name
from onepass.data.sources.tabular import (
    Rows,
    choose_columns,
    columns_text,
    kept_cells,
    source_of,
)
from onepass.data.spool import open_spool
from onepass.data.tables import PARQUET, SUFFIXES, ImageColumn, Table, is_missing, read_table

METADATA = tuple(
    f"metadata{suffix}" for suffix in SUFFIXES
)  # as Hugging Face's image folders have it
ENDS = 1 << 20  # bytes at either end of a file by which it is known again
ELSEWHERE = re.compile(r"[A-Za-z]:[\\/]|\\\\|[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table, and what its place says of its images.

    Attributes:
        path: The file.
        split: The split of its rows where no column says more; "" for none.
        inside: Folder, below that of the data set, which its files are relative to; "" for the data set's own.
    """

    path: Path
    split: str = ""
    inside: str = ""


def recognises(place: str) -> bool:
    """Tell whether a place is of this kind."""
    path = Path(place).expanduser()
    if path.is_dir():
        return bool(_metadata(path) or _parquet_files(path))
    return place.lower().endswith(SUFFIXES)


@contextmanager
def open_sources(requests: Sequence[Request]) -> Iterator[Source]:
    """Yield the images of the rows of one or several tables, in their order.

    Raises:
        UsageError: There is no column of files or labels, or no table is named.
        InvalidInputError: Something is wrong with a row, or all files are missing.
        OnepassError: A table cannot be read.
    """
    places = [request.source for request in requests if request.source]
    request = requests[0]
    if not places or request.digest:
        raise UsageError("table: expected the path of a table on this machine, and no --digest")
    files = [file for place in places for file in _tables(place)]
    with open_tables("table", files, request, own_name(Path(places[0]))) as source:
        yield source


@contextmanager
def open_tables(
    kind: str,
    files: Sequence[TableFile],
    request: Request,
    name: str,
    read: Callable[[TableFile], Table] = lambda file: read_table(file.path),
) -> Iterator[Source]:
    """Yield the images of tables; as `open_sources`.

    Args:
        kind: Of the source.
        files: The tables, which have the same columns.
        request: What the user asks.
        name: What the data set is called.
        read: Opens a table.
    """
    with ExitStack() as stack:
        tables = [(file, read(file)) for file in files]
        first = tables[0][1]
        by_folder = first.path.name in METADATA and "label" not in request.columns
        needed = ("file",) if by_folder else ("file", "label")
        names = [*first.images, *first.names]
        chosen = choose_columns(str(first.path), names, request.columns, needed)
        shown = [chosen.get(role) for role in ("file", "label", "split")]
        kept = [column for column in first.names if column not in shown]
        rest = [column for column in kept if column not in chosen.values()]
        by_place = "" if "label" in chosen else "label = the folder of each file"
        said = [columns_text(chosen, rest, by_place)]
        if first.passed_over:
            passed_over = ", ".join(first.passed_over)
            said.append(f"columns of neither text nor numbers are left out: {passed_over}")
        opener = _Opener(request, stack, Counter(file.inside for file in files))
        yield source_of(
            kind,
            [opener.rows(file, table, chosen, kept) for file, table in tables],
            name=name,
            origins=[Origin(str(file.path.resolve()), _identity(file.path)) for file in files],
            said=said,
            group_column=chosen.get("group", ""),
        )


def _tables(place: str) -> list[TableFile]:
    """Return the tables at a place: a file, a pattern of files, or a folder that has some."""
    path = Path(place).expanduser()
    if path.is_dir():
        if found := _metadata(path):
            inside = ["" if file.parent == path else file.parent.name for file in found]
            return [TableFile(f, split_of(i), i) for f, i in zip(found, inside, strict=True)]
        files = _parquet_files(path)
    else:
        files = matching_files(place)
    if not files:
        raise MissingFileError(
            f"{place}: expected {', '.join(METADATA)} or Parquet files, found none"
        )
    return [TableFile(f, split) for f, split in zip(files, splits_by_name(files), strict=True)]


def _metadata(folder: Path) -> list[Path]:
    below = sorted(path for path in folder.iterdir() if path.is_dir() and split_of(path.name))
    found = [place / name for place in (folder, *below) for name in METADATA]
    return [path for path in found if path.is_file()]


def _parquet_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob(f"*{PARQUET}"), *folder.glob(f"data/*{PARQUET}")])


def _identity(path: Path) -> str:
    """Return what tells a table of the same name and content elsewhere."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(ENDS)
        file.seek(max(0, size - ENDS))
        return digest_bytes(str(size).encode(), head, file.read(ENDS))


class _Opener:
    """Makes the rows of tables, and keeps open what their images are read from.

    Args:
        request: Says where the files lie.
        stack: Closes what is opened.
        counts: How many tables there are by `TableFile.inside`.
    """

    def __init__(self, request: Request, stack: ExitStack, counts: Counter[str]) -> None:
        self.request, self.stack, self.counts = request, stack, counts
        self.tree: Tree | None = None
        if request.images:
            path = Path(request.images).expanduser()
            self.tree = (
                files_by_name(path)
                if path.is_dir()
                else stack.enter_context(open_tree(path, scratch=request.scratch))
            )

    def rows(
        self, file: TableFile, table: Table, chosen: dict[str, str], kept: Sequence[str]
    ) -> Rows:
        """Return the rows of a table.

        Raises:
            UsageError: It lacks a column that the first table has.
        """
        lacking = {*chosen.values(), *kept} - {*table.names, *table.images}
        if lacking:
            raise UsageError(
                f"{table.path}: expected the column {min(lacking)!r} as in the first table"
            )

        several = self.counts.total() > 1

        def place(row: int) -> str:
            return f"{table.path.name} {table.place(row)}" if several else table.place(row)

        column = chosen["file"]
        images: _Named | _Held
        if column in table.images:
            images = self._held(file, table.images[column](), place)
        else:
            tree, prefix = self._place_of(file)
            images = _Named(tree, table.cells(column), prefix, place)
            images.refuse_all_missing(table.path)
        cells: dict[str, Sequence[Any]] = {
            role: table.cells(name) for role, name in chosen.items() if role in ("label", "split")
        }
        if "label" not in cells:
            cells["label"] = [PurePosixPath(name).parent.name for name in images.names]
        if "split" not in cells and file.split:
            cells["split"] = [file.split] * len(images.names)
        return Rows(
            where=str(table.path),
            names=images.names,
            read=images.read,
            place=place,
            cells=cells,
            classes=table.classes.get(chosen.get("label", ""), []),
            kept=kept_cells(chosen, kept, table.cells),
            stamp=images.stamp,
            folder=images.folder,
            wrong=images.wrong,
        )

    def _place_of(self, file: TableFile) -> tuple[Tree, str]:
        """Return what a table's files are relative to, and what comes before their names in the data set."""
        if self.tree:
            return self.tree, ""
        return files_by_name(file.path.parent), f"{file.inside}/" if file.inside else ""

    def _held(self, file: TableFile, column: ImageColumn, place: Callable[[int], str]) -> "_Held":
        tree, prefix = self._place_of(file)
        if self.counts[file.inside] > 1:  # in each of which the rows begin anew
            prefix += f"{file.path.stem}/"
        at = column.at
        if at is None:
            spool = open_spool(str(file.path), column.encoded, column.size, self.request.scratch)
            at = self.stack.enter_context(spool).read

        def content(row: int) -> bytes:
            found, path = at(row), column.paths[row]
            if not found and not path:
                raise InvalidInputError("there is no image")
            return found or tree.read(str(path))

        state = files_by_name(file.path.parent).stamp(file.path.name)
        state += file.inside.encode() if state else b""
        return _Held(_names(column.paths, prefix), content, state, place)


def _names(paths: Sequence[str | None], prefix: str) -> list[str]:
    """Return the names of images that lie in a table: what they were called where that tells them apart."""
    names = [one_form(path if path else "") for path in paths]
    if any(name.startswith("/") or ELSEWHERE.match(name) for name in names):
        names = [PurePosixPath(name).name for name in names]
    if "" not in names and len(set(names)) == len(names):
        return [prefix + name for name in names]
    return [f"{prefix}{row:07d}" for row in range(len(paths))]


class _Named:
    """Images that a table names.

    Args:
        tree: What the names are relative to.
        cells: The names as the table has them.
        prefix: Before their names in the data set.
        place: Returns what an error calls a row.
    """

    def __init__(
        self, tree: Tree, cells: Sequence[Any], prefix: str, place: Callable[[int], str]
    ) -> None:
        self.tree, self.prefix, self.place = tree, prefix, place
        self.listed = frozenset(tree.files)
        self.files = ["" if is_missing(cell) else _plain(str(cell)) for cell in cells]
        self.names = [prefix + one_form(file) if file else "" for file in self.files]
        self.folder = str(tree.path)
        self.wrong = {
            row: f"{file}: expected a file of this machine, with a path relative to {tree.path}"
            for row, file in enumerate(self.files)
            if ELSEWHERE.match(file)
        }

    def read(self, row: int) -> bytes:
        file, where = self.files[row], f"below {self.tree.path} ({self.place(row)})"
        if self.listed and file not in self.listed:
            raise MissingFileError(f"{self.names[row]}: {NO_FILE} {where}")
        try:
            return self.tree.read(file)
        except MissingFileError as error:
            raise MissingFileError(f"{error} {where}") from error

    def stamp(self, row: int) -> bytes:
        return self.tree.stamp(self.files[row])

    def refuse_all_missing(self, table: Path) -> None:
        """Refuse a table none of whose files is there: they are probably relative to another folder."""
        if not self.files or self.wrong:
            return
        there = (
            self.listed.__contains__
            if self.listed
            else lambda file: (self.tree.path / file).exists()
        )
        if not any(there(file) for file in self.files if file):
            raise InvalidInputError(
                f"{table}: none of its {len(self.files):,} files is there, such as {self.files[0]} "
                f"({self.place(0)}) below {self.tree.path}; name the folder (or zip) they are in with --images"
            )


def _plain(cell: str) -> str:
    """Return a path as this system writes it: images\\cat\\1.jpg becomes images/cat/1.jpg."""
    text = cell.strip()
    if ELSEWHERE.match(text):
        return text
    return text.replace("\\", "/").removeprefix("./")


class _Held:
    """Images that a table holds.

    Args:
        names: What they are called.
        content: Returns the bytes of a row.
        state: What tells that the file is as it was, as `Item.stamp`.
        place: Returns what an error calls a row.
    """

    folder = ""
    wrong: dict[int, str] = {}  # noqa: RUF012  nothing can be wrong with their names

    def __init__(
        self,
        names: list[str],
        content: Callable[[int], bytes],
        state: bytes,
        place: Callable[[int], str],
    ) -> None:
        self.names, self.content, self.state, self.place = names, content, state, place

    def read(self, row: int) -> bytes:
        try:
            return self.content(row)
        except (InvalidInputError, MissingFileError) as error:
            raise type(error)(f"{self.names[row]} ({self.place(row)}): {error}") from error

    def stamp(self, row: int) -> bytes:
        return digest_of(self.state + str(row).encode()).tobytes() if self.state else b""
