"""Immutable shards: the unit that a killed run keeps or loses.

A shard holds some rows and, in one of its columns, what each is known by. It has no number: a run with
other images, or in another order, finds in it what it needs.
"""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from onepass.cache.artifacts import record, to_json
from onepass.cache.content import CONTENT_BYTES
from onepass.cache.errors import CorruptFileError, InvalidInputError, OnepassError
from onepass.cache.files import write_atomic
from onepass.cache.hdf5 import (
    create_hdf5,
    file_of,
    open_hdf5,
    read_attribute,
    write_attribute,
)
from onepass.cache.memory_map import RowMap, release
from onepass.cache.provenance import digest_array, digest_bytes, digest_json


class Column(NamedTuple):
    """One array of a row file: its shape per row and its dtype (as NumPy writes it)."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@record
class RowLayout:
    """What a row file holds, and the fixed map from rows to blocks, each with a digest of its own.

    Attributes:
        columns: Arrays by name; each has `rows` rows.
        rows: Rows in all, at least 1.
        shard_rows: Rows of a block; the last may be shorter.
    """

    columns: dict[str, Column]
    rows: int
    shard_rows: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.shard_rows < 1 or not self.columns:
            raise InvalidInputError(
                f"a row file needs at least one column, one row and one row a shard; received "
                f"{len(self.columns)} columns, {self.rows} rows, {self.shard_rows} rows a shard"
            )

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_rows)

    @property
    def total_bytes(self) -> int:
        """Bytes of all rows of all columns."""
        return self.rows * sum(column.row_bytes for column in self.columns.values())

    def shard_range(self, index: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a shard."""
        start = index * self.shard_rows
        return start, min(start + self.shard_rows, self.rows)


@record
class ShardKind:
    """What the shards of a file under construction have in common.

    Attributes:
        columns: Arrays by name.
        key: The column, (16,) uint8, by which a row is known.
        recipe: What the rows depend on besides their images (JSON).
    """

    columns: dict[str, Column]
    key: str
    recipe: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it; every shard carries it."""
        return digest_json(to_json(self))


def shard_path(folder: Path, first_key: np.ndarray) -> Path:
    """Return where a shard lies once it is committed: it is named after its first row."""
    return folder / f"shard-{first_key.tobytes().hex()}.h5"


def shard_digest(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of a shard's columns, whatever their order."""
    return digest_bytes(
        *(f"{name}:{digest_array(arrays[name])}".encode() for name in sorted(arrays))
    )


def write_shard(folder: Path, kind: ShardKind, arrays: dict[str, np.ndarray]) -> Path:
    """Commit one shard: built in memory, written, synced, renamed, folder synced, read again.

    Any process may write any shard. HDF5 never writes to the disk itself: it may end the
    process when the disk is full, a plain write raises.

    Args:
        folder: Where the shards of the file lie.
        kind: What it holds; a shard of another kind is not taken for one of this.
        arrays: By column, (rows, …).

    Returns:
        Where it lies.

    Raises:
        InvalidInputError: An array has another shape or dtype than the kind says.
        OutOfSpaceError: The disk is full; the shards before are intact.
    """
    if wrong := _wrong_arrays(kind, arrays):
        raise InvalidInputError(wrong)
    buffer = io.BytesIO()
    with create_hdf5(buffer) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        write_attribute(file, "kind", kind.digest)
        write_attribute(file, "digest", shard_digest(arrays))
    path = shard_path(folder, arrays[kind.key][0])
    write_atomic(path, buffer.getbuffer())
    read_shard(path, kind)
    return path


def write_shard_once(folder: Path, kind: ShardKind, arrays: dict[str, np.ndarray]) -> None:
    """Commit a shard, unless another process did: what was adopted is never replaced."""
    with suppress(OnepassError):
        there = read_shard(shard_path(folder, arrays[kind.key][0]), kind)
        if np.array_equal(there[kind.key], arrays[kind.key]):
            return
    write_shard(folder, kind, arrays)


def read_shard(path: Path, kind: ShardKind) -> dict[str, np.ndarray]:
    """Return a committed shard's columns, as memory maps, after checking that they are what was written.

    Raises:
        MissingFileError: There is none.
        CorruptFileError: It is of another kind, or its bytes differ from its digest.
        UnreadableFileError: The system refuses to read it.
    """
    with open_hdf5(path, "a complete shard") as file:
        if read_attribute(file, "kind") != kind.digest:
            raise ValueError("it is of other columns or another recipe")
        arrays = {name: map_column(file, file[name]) for name in kind.columns}
        if wrong := _wrong_arrays(kind, arrays):
            raise ValueError(wrong)
        digest = read_attribute(file, "digest")
    if digest != shard_digest(arrays):
        raise CorruptFileError(f"{path}: its rows differ from the digest written with them")
    for array in arrays.values():
        release(array)
    return arrays


def shard_keys(path: Path, key: str) -> np.ndarray:
    """Return what the rows of a committed shard are known by, (n, 16) uint8, unchecked; none where it cannot be read."""
    try:
        with open_hdf5(path, "a complete shard") as file:
            return np.asarray(file[key][()], np.uint8).reshape(-1, CONTENT_BYTES)
    except OnepassError:
        return np.empty((0, CONTENT_BYTES), np.uint8)


def map_column(file: h5py.File, dataset: h5py.Dataset) -> np.ndarray:
    """Return a contiguous dataset of an open file as a read-only memory map.

    Raises:
        ValueError: It has no place in the file.
    """
    if not dataset.id.get_offset():
        raise ValueError(f"expected rows in {dataset.name}, found no place for them")
    with file_of(file) as raw:
        return RowMap(
            Path(file.filename), raw, dataset.dtype, dataset.id.get_offset(), dataset.shape
        )


def _wrong_arrays(kind: ShardKind, arrays: dict[str, np.ndarray]) -> str:
    """Return in which way arrays are not what a shard of the kind holds, "" where they are."""
    rows = len(arrays[kind.key]) if kind.key in arrays else 0
    wanted = {n: ((rows, *c.shape), np.dtype(c.dtype)) for n, c in kind.columns.items()}
    received = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if received != wanted or not rows:
        return f"shard: expected columns {wanted}, received {received}"
    return ""
