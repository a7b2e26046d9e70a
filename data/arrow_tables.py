"""Parquet and Arrow files, read by pyarrow: columns when they are asked for, images one after the other or in place."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from onepass.cache.errors import InvalidInputError, MissingFileError
from onepass.cache.files import parse_json, read_bytes
from onepass.cache.progress import human_bytes
from onepass.data.tables import MAX_TEXT, ImageColumn, Table, check_count, check_names

BATCH, IMAGES = 4096, 32  # cells, and images, of a Parquet file that are in memory at a time
FILE_FORMAT = b"ARROW1"  # begins an Arrow file that is no stream


def read_parquet(path: Path) -> Table:
    """Open a Parquet file. Its images can only be read in order.

    Raises:
        InvalidInputError: It is none, is damaged, or larger than is allowed.
        MissingFileError: There is none, or pyarrow is not installed.
    """
    with _reading(path):
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata

    def cells(name: str, part: str = "") -> list:
        found: list = []
        size = 0
        with _reading(path):
            for batch in _batches(path, name, part, BATCH):
                size += batch.nbytes
                _check_size(name, size)
                found += batch.to_pylist()
        return found

    def image_column(name: str, part: str) -> ImageColumn:
        # Of all columns: pyarrow ends the process where what a file says of one column is damaged.
        groups = (metadata.row_group(n) for n in range(metadata.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        has_paths = _has_paths(schema.field(name))
        paths = cells(name, "path") if has_paths else [None] * metadata.num_rows
        return ImageColumn(paths, lambda: _encoded(path, name, part), size)

    return _table(path, schema, metadata.num_rows, cells, image_column)


def read_arrow(path: Path) -> Table:
    """Open an Arrow file, as the library `datasets` keeps them; it is mapped into memory.

    Raises:
        InvalidInputError: It is none, is damaged, or larger than is allowed.
        MissingFileError: There is none, or pyarrow is not installed.
    """
    with _reading(path):
        import pyarrow

        source = pyarrow.memory_map(str(path))
        is_file = source.read(len(FILE_FORMAT)) == FILE_FORMAT
        source.seek(0)
        reader = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
        found = reader.read_all()
        found.validate(full=True)  # otherwise a damaged offset would lead out of the file

    def cells(name: str) -> list:
        with _reading(path):
            _check_size(name, found[name].nbytes)
            return found[name].to_pylist()

    def image_column(name: str, part: str) -> ImageColumn:
        from pyarrow import compute

        column = compute.struct_field(found[name], part) if part else found[name]
        has_paths = _has_paths(found.schema.field(name))
        paths = compute.struct_field(found[name], "path").to_pylist() if has_paths else [None] * len(column)  # fmt: skip
        return ImageColumn(paths, lambda: iter(()), column.nbytes, lambda row: column[row].as_py())

    return _table(path, found.schema, found.num_rows, cells, image_column)


def _table(
    path: Path,
    schema: Any,
    rows: int,
    cells: Callable[[str], list],
    image_column: Callable[[str, str], ImageColumn],
) -> Table:
    check_count(path, rows)
    check_names(path, schema.names)
    images = {f.name: part for f in schema if (part := _image_part(f)) is not None}
    plain = [f.name for f in schema if _is_plain(f.type)]
    classes = _hugging_face_classes((schema.metadata or {}).get(b"huggingface", b""))
    return Table(
        path,
        plain,
        cells,
        lambda row: f"row {row + 1}",
        {name: partial(image_column, name, part) for name, part in images.items()},
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
            f"{path}: Parquet and Arrow files need pyarrow; install it with: pip install pyarrow"
        ) from error
    return parquet


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise what pyarrow meets in a damaged file as an error that names it, and its absence as one that helps."""
    pyarrow_parquet(path)
    from pyarrow import ArrowException

    if not path.is_file():
        read_bytes(path, 0)  # the error says what it is instead
    try:
        yield
    except (OSError, ArrowException, ValueError, OverflowError, MemoryError, KeyError) as error:
        if isinstance(error, InvalidInputError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        kind = path.suffix.lower().removeprefix(".").capitalize()
        raise InvalidInputError(f"{path}: expected a whole {kind} file ({reason})") from error


def _check_size(name: str, size: int) -> None:
    if size > MAX_TEXT:
        raise ValueError(f"column {name!r} has more than {human_bytes(MAX_TEXT)}")


def _batches(path: Path, column: str, part: str, rows: int) -> Iterator[Any]:
    """Yield a column, or a part of a column of structures, a few rows at a time."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        left = file.metadata.num_rows
        for batch in file.iter_batches(rows, columns=[f"{column}.{part}" if part else column]):
            array = batch.column(0)
            left -= len(array)
            yield array.field(part) if part else array
        if left:
            raise ValueError(
                f"column {column!r} has {abs(left)} rows too {'few' if left > 0 else 'many'}"
            )


def _encoded(path: Path, column: str, part: str) -> Iterator[bytes | None]:
    with _reading(path):
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


def _has_paths(field: Any) -> bool:
    from pyarrow import types

    return types.is_struct(field.type) and any(inside.name == "path" for inside in field.type)


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return is_text or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)


def _hugging_face_classes(metadata: bytes) -> Mapping[str, list[str]]:
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
