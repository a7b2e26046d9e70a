"""Tables of other programs: CSV, TSV and JSON lines, and by pyarrow Parquet and Arrow, column by column and bounded.

Cells are as the file has them: text in CSV, also numbers elsewhere, None where there is nothing.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.cache.files import parse_json, read_bytes

CSV, JSON_LINES, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson"), ".parquet"
BINARY = (PARQUET, ".arrow")
SUFFIXES = (*CSV, *JSON_LINES, *BINARY)
DELIMITERS = (",", ";", "\t")
MAX_TEXT = 1 << 30  # bytes of a file of text, and of the cells of a Parquet column
MAX_ROWS = 5_000_000
MAX_COLUMNS = 1_000
MAX_LINE = 1 << 20  # bytes of a row of JSON
MISSING = frozenset({"", "nan", "NaN"})
BLOCK = 4096  # rows of a CSV file that are taken apart at a time
SHARED = 1024  # different cells of a column that are kept once each


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column that holds the images themselves.

    Attributes:
        paths: What each was called, None where that is not said.
        encoded: Begins to yield the bytes of each file in order, None where there are none.
        size: Bytes of all of them.
        at: Returns the bytes of row i; None where they can only be read in order.
    """

    paths: list[str | None]
    encoded: Callable[[], Iterator[bytes | None]]
    size: int
    at: Callable[[int], bytes | None] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        path: The file.
        names: Of its columns that hold text and numbers.
        cells: Returns a column's cells.
        place: Returns what an error calls a row, such as "line 7".
        images: The columns that hold images, by name.
        classes: Names of classes by column; its cells are indices into them, -1 for none.
        passed_over: Columns of lists and other values that are neither text nor a number.
    """

    path: Path
    names: list[str]
    cells: Callable[[str], Sequence[Any]]
    place: Callable[[int], str]
    images: Mapping[str, Callable[[], ImageColumn]] = field(default_factory=dict)
    classes: Mapping[str, list[str]] = field(default_factory=dict)
    passed_over: Sequence[str] = ()


def read_table(path: Path) -> Table:
    """Open a table; its suffix says of which kind.

    Raises:
        InvalidInputError: It is no such table, or larger than is allowed.
        MissingFileError: There is none, or pyarrow is not installed, which reads Parquet.
        UnreadableFileError: The system refuses to read it.
    """
    suffix = path.suffix.lower()
    if suffix in BINARY:
        from onepass.data.arrow_tables import read_arrow, read_parquet

        return read_parquet(path) if suffix == PARQUET else read_arrow(path)
    return _json_lines(path) if suffix in JSON_LINES else _csv(path)


def is_missing(cell: Any) -> bool:
    """Tell whether a cell says nothing: it is empty, or what programs write for not a number."""
    if isinstance(cell, str):
        return cell in MISSING or cell.strip() in MISSING
    return cell is None or cell != cell


def _csv(path: Path) -> Table:
    """Read comma-separated values; the commas may be semicolons or tabs."""
    columns: list[list[str]] = []
    lines: list[int] = []
    with _rows_of_csv(path) as reader:
        names = [name.strip() for name in next(reader, [])]
        check_names(path, names)
        columns = [[] for _ in names]
        pools: list[dict[str, str]] = [{} for _ in names]
        for some in _blocks(path, reader, len(names), lines):
            for column, pool, cells in zip(columns, pools, zip(*some, strict=True), strict=True):
                column += _shared(pool, cells)
            check_count(path, len(lines))
    named = dict(zip(names, columns, strict=True))
    return Table(path, names, named.__getitem__, lambda row: f"line {lines[row]}")


def _blocks(path: Path, reader: Any, count: int, lines: list[int]) -> Iterator[list[list[str]]]:
    """Yield the rows that are not empty, some at a time, and add their lines."""
    block: list[list[str]] = []
    for cells in reader:
        if not any(cells):
            continue
        block.append(cells if len(cells) == count else _fitted(path, reader.line_num, cells, count))
        lines.append(reader.line_num)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


@contextmanager
def _rows_of_csv(path: Path) -> Iterator[Any]:
    """Yield a reader of the file's rows, by the delimiter that fits its first two."""
    content = _read_text(path)

    def reader(delimiter: str) -> Any:
        text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
        return csv.reader(text, delimiter=delimiter)

    def fit(delimiter: str) -> tuple[bool, int]:
        rows = reader(delimiter)
        with suppress(csv.Error):
            first, second = len(next(rows, [])), len(next(rows, []))
            return first > 1 and first == second, first
        return False, 0

    current = None
    try:
        current = reader(max(DELIMITERS, key=fit))
        yield current
    except UnicodeDecodeError as error:
        after = f" after line {current.line_num}" if current else ""
        raise InvalidInputError(
            f"{path}: expected text in UTF-8 ({error.reason}{after}); save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        line = f"line {current.line_num}: " if current else ""
        raise InvalidInputError(f"{path}: {line}{error}") from error


def _fitted(path: Path, line: int, cells: list[str], count: int) -> list[str]:
    """Return a row with empty cells added or taken away at its end."""
    if any(cells[count:]):
        raise InvalidInputError(
            f"{path}: line {line}: expected {count} cells as in the first line, found {len(cells)}; "
            'a text with a delimiter in it has to stand in "quotes"'
        )
    return (cells + [""] * count)[:count]


def _json_lines(path: Path) -> Table:
    """Read one JSON object a line; what is nested stays JSON."""
    columns: dict[str, list] = {}
    lines: list[int] = []
    for number, line in enumerate(io.BytesIO(_read_text(path)), start=1):
        if not line.strip():
            continue
        try:
            row = json_cells(line.removeprefix(b"\xef\xbb\xbf"))
        except ValueError as error:
            raise InvalidInputError(f"{path}: line {number}: {error}") from error
        if new := [name for name in row if name not in columns]:
            check_names(path, [*columns, *new])
            columns |= {name: [None] * len(lines) for name in new}
        for name, cell in row.items():
            columns[name].append(cell)
        lines.append(number)
        check_count(path, len(lines))
        for column in columns.values():
            if len(column) < len(lines):
                column.append(None)
    return Table(path, list(columns), columns.__getitem__, lambda row: f"line {lines[row]}")


def json_cells(content: bytes) -> dict[str, Any]:
    """Return the values of a JSON object as cells by column; what is nested stays JSON.

    Raises:
        ValueError: It is no object, or longer than is allowed.
    """
    if len(content) > MAX_LINE:
        raise ValueError(f"more than {MAX_LINE:,} bytes")
    row = parse_json(content)
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, found {str(row)[:40]}")
    return {name: _json_cell(value) for name, value in row.items()}


def _json_cell(value: Any) -> Any:
    is_plain = value is None or isinstance(value, str | int | float)
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _read_text(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_TEXT)
    except CorruptFileError as error:  # too large
        raise InvalidInputError(str(error)) from error


def check_names(path: Path, names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise InvalidInputError(
            f"{path}: expected at most {MAX_COLUMNS:,} columns, found {len(names):,}"
        )
    counts = Counter(names)
    if twice := next((name for name in counts if name and counts[name] > 1), ""):
        raise InvalidInputError(
            f"{path}: expected columns of different names, found {twice!r} twice"
        )


def check_count(path: Path, rows: int) -> None:
    if rows > MAX_ROWS:
        raise InvalidInputError(f"{path}: expected at most {MAX_ROWS:,} rows, found more")


def _shared(pool: dict[str, str], cells: Sequence[str]) -> list[str]:
    """Return the same text for equal cells of a column of few, so that memory holds each once."""
    if len(pool) < SHARED:
        return [pool.setdefault(cell, cell) for cell in cells]
    return [pool.get(cell, cell) for cell in cells]


def texts(cells: Iterable[Any]) -> list[str]:
    """Return cells as text, "" where one says nothing."""
    return [
        (cell if isinstance(cell, str) else str(cell)) if not is_missing(cell) else ""
        for cell in cells
    ]
