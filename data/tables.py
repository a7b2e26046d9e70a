"""Tables of other programs: CSV, TSV, JSON lines and Parquet, read column by column and bounded.

Cells are as the file has them: text in CSV, also numbers elsewhere, None where there is nothing.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.files import parse_json, read_bytes
from onepass.cache.progress import human_bytes

CSV, JSON_LINES, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson"), ".parquet"
SUFFIXES = (*CSV, *JSON_LINES, PARQUET)
DELIMITERS = (",", ";", "\t")
MAX_TEXT = 1 << 30  # bytes of a file of text, and of the cells of a Parquet column
MAX_ROWS = 5_000_000
MAX_COLUMNS = 1_000
MAX_LINE = 1 << 20  # bytes of a row of JSON
BATCH, IMAGES = 4096, 32  # cells, and images, of a Parquet file that are in memory at a time
SHARED = 1024  # different cells of a column that are kept once each


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column that holds the images themselves.

    Attributes:
        paths: What each was called, None where that is not said.
        encoded: Yields the bytes of each file in order, None where there are none.
        size: Bytes of all of them.
    """

    paths: list[str | None]
    encoded: Callable[[], Iterator[bytes | None]]
    size: int


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
    if suffix == PARQUET:
        return _parquet(path)
    return _json_lines(path) if suffix in JSON_LINES else _csv(path)


def is_missing(cell: Any) -> bool:
    """Tell whether a cell says nothing: it is empty, or what programs write for not a number."""
    if isinstance(cell, str):
        return cell.strip() in ("", "nan", "NaN")
    return cell is None or cell != cell


def _csv(path: Path) -> Table:
    """Read comma-separated values; the commas may be semicolons or tabs."""
    columns: list[list[str]] = []
    lines: list[int] = []
    with _rows_of_csv(path) as reader:
        names = [name.strip() for name in next(reader, [])]
        _check_names(path, names)
        columns = [[] for _ in names]
        pools: list[dict[str, str]] = [{} for _ in names]
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) != len(names):
                cells = _fitted(path, reader.line_num, cells, len(names))
            for column, pool, cell in zip(columns, pools, cells, strict=True):
                column.append(_shared(pool, cell))
            lines.append(reader.line_num)
            _check_count(path, len(lines))
    named = dict(zip(names, columns, strict=True))
    return Table(path, names, named.__getitem__, lambda row: f"line {lines[row]}")


@contextmanager
def _rows_of_csv(path: Path) -> Iterator[Any]:
    """Yield a reader of the file's rows, by the delimiter that fits its first two.

    Raises:
        InvalidInputError: Its text is not UTF-8, or a row is not what CSV is.
    """
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
            if len(line) > MAX_LINE:
                raise ValueError(f"more than {MAX_LINE:,} bytes")
            row = parse_json(line.removeprefix(b"\xef\xbb\xbf"))
            if not isinstance(row, dict):
                raise ValueError(f"expected an object, found {str(row)[:40]}")
            for name, value in row.items():
                if name not in columns:
                    _check_names(path, [*columns, name])
                    columns[name] = [None] * len(lines)
                columns[name].append(json_cell(value))
        except ValueError as error:
            raise InvalidInputError(f"{path}: line {number}: {error}") from error
        lines.append(number)
        _check_count(path, len(lines))
        for column in columns.values():
            if len(column) < len(lines):
                column.append(None)
    return Table(path, list(columns), columns.__getitem__, lambda row: f"line {lines[row]}")


def json_cell(value: Any) -> Any:
    """Return a value of a JSON object as a cell; what is nested stays JSON."""
    is_plain = value is None or isinstance(value, str | int | float)
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _read_text(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_TEXT)
    except CorruptFileError as error:  # too large
        raise InvalidInputError(str(error)) from error


def _check_names(path: Path, names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise InvalidInputError(
            f"{path}: expected at most {MAX_COLUMNS:,} columns, found {len(names):,}"
        )
    if twice := next((name for name in names if name and names.count(name) > 1), ""):
        raise InvalidInputError(
            f"{path}: expected columns of different names, found {twice!r} twice"
        )


def _check_count(path: Path, rows: int) -> None:
    if rows > MAX_ROWS:
        raise InvalidInputError(f"{path}: expected at most {MAX_ROWS:,} rows, found more")


def _shared(pool: dict[str, str], cell: str) -> str:
    """Return the same text for equal cells of a column of few, so that memory holds each once."""
    if len(pool) < SHARED:
        return pool.setdefault(cell, cell)
    return pool.get(cell, cell)


def _parquet(path: Path) -> Table:
    """Open a Parquet file; a column is read when it is asked for, images one after the other."""
    parquet = _reader(path)
    with _reading_parquet(path):
        file = parquet.ParquetFile(path)
        schema, rows = file.schema_arrow, file.metadata.num_rows
        _check_count(path, rows)
        _check_names(path, schema.names)
        images = {f.name: part for f in schema if (part := _image_part(f)) is not None}
        plain = [f.name for f in schema if _is_plain(f.type)]
        classes = _hugging_face_classes((schema.metadata or {}).get(b"huggingface", b""))

    def cells(name: str, part: str = "") -> list:
        found: list = []
        size = 0
        with _reading_parquet(path):
            for batch in _batches(path, name, part, BATCH):
                size += batch.nbytes
                if size > MAX_TEXT:
                    raise ValueError(f"column {name!r} has more than {human_bytes(MAX_TEXT)}")
                found += batch.to_pylist()
        return found

    def image_column(name: str) -> ImageColumn:
        part = images[name]
        has_paths = part and any(inside.name == "path" for inside in schema.field(name).type)
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        leaves = (group.column(n) for group in groups for n in range(group.num_columns))
        leaf = f"{name}.{part}".rstrip(".")
        size = sum(c.total_uncompressed_size for c in leaves if c.path_in_schema == leaf)
        paths = cells(name, "path") if has_paths else [None] * rows
        return ImageColumn(paths, lambda: _encoded(path, name, part), size)

    return Table(
        path,
        plain,
        cells,
        lambda row: f"row {row + 1}",
        {name: partial(image_column, name) for name in images},
        {name: names for name, names in classes.items() if name in plain},
        [name for name in schema.names if name not in (*plain, *images)],
    )


def pyarrow_parquet(path: Path) -> Any:
    """Return the module that reads and writes Parquet files.

    Raises:
        MissingFileError: It is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingFileError(
            f"{path}: Parquet files need pyarrow; install it with: pip install pyarrow"
        ) from error
    return parquet


def _reader(path: Path) -> Any:
    parquet = pyarrow_parquet(path)
    if not path.is_file():
        read_bytes(path, 0)  # the error says what it is instead
    return parquet


@contextmanager
def _reading_parquet(path: Path) -> Iterator[None]:
    """Raise what pyarrow meets in a damaged file as an error that names it."""
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ArrowException, ValueError, OverflowError, MemoryError, KeyError) as error:
        if isinstance(error, InvalidInputError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidInputError(f"{path}: expected a whole Parquet file ({reason})") from error


def _batches(path: Path, column: str, part: str, rows: int) -> Iterator[Any]:
    """Yield a column, or a part of a column of structures, a few rows at a time."""
    with _reader(path).ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=[f"{column}.{part}" if part else column]):
            array = batch.column(0)
            yield array.field(part) if part else array


def _encoded(path: Path, column: str, part: str) -> Iterator[bytes | None]:
    with _reading_parquet(path):
        for batch in _batches(path, column, part, IMAGES):
            yield from (value.as_py() for value in batch)


def _image_part(field: Any) -> str | None:
    """Return which part of a column holds encoded images, "" for the column itself; None where none does."""
    from pyarrow import types

    if types.is_struct(field.type):
        return next(
            (f.name for f in field.type if f.name == "bytes" and _image_part(f) == ""), None
        )
    is_binary = types.is_binary(field.type) or types.is_large_binary(field.type)
    return "" if is_binary else None


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return is_text or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)


def _hugging_face_classes(metadata: bytes) -> dict[str, list[str]]:
    """Return the names of classes by column, as the library `datasets` notes them in a file's schema."""
    try:
        features = parse_json(metadata)["info"]["features"] if metadata else {}
        return {
            name: [str(text) for text in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # of another program


def texts(cells: Iterable[Any]) -> list[str]:
    """Return cells as text, "" where one says nothing."""
    pool: dict[str, str] = {}
    return ["" if is_missing(cell) else _shared(pool, str(cell)) for cell in cells]
