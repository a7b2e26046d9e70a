"""Immutable shards: the unit that a killed run keeps or loses."""

import io
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from onepass.cache.artifacts import record
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    UnreadableFileError,
    refused_by_system,
    unreadable,
)
from onepass.cache.files import write_atomic
from onepass.cache.hdf5 import open_hdf5
from onepass.cache.provenance import digest_array, digest_bytes


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
    """What a row file holds, and the fixed map from rows to shards.

    Attributes:
        columns: Arrays by name; each has `rows` rows.
        rows: Rows in all, at least 1.
        shard_rows: Rows of a shard; the last may be shorter.
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


def shard_path(folder: Path, index: int) -> Path:
    """Return where a shard lies once it is committed."""
    return folder / f"shard-{index:06d}.h5"


def shard_digest(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of a shard's columns, whatever their order."""
    return digest_bytes(
        *(f"{name}:{digest_array(arrays[name])}".encode() for name in sorted(arrays))
    )


def write_shard(
    folder: Path, layout: RowLayout, plan: str, index: int, arrays: dict[str, np.ndarray]
) -> str:
    """Commit one shard: built in memory, verified, written, synced, renamed, folder synced.

    Any process may write any shard. HDF5 never writes to the disk itself: it may end the
    process when the disk is full, a plain write raises.

    Args:
        folder: Where the shards of the file lie.
        layout: What the file holds.
        plan: Digest of layout and inputs; a shard of another plan is not taken for one of this.
        index: Which shard.
        arrays: By column, (shard rows, …).

    Returns:
        The shard's digest.

    Raises:
        InvalidInputError: An array has another shape or dtype than the layout says.
        OutOfSpaceError: The disk is full; the shards before are intact.
    """
    _check_arrays(layout, index, arrays)
    digest = shard_digest(arrays)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.attrs.update({"plan": plan, "index": index, "digest": digest})
    write_atomic(shard_path(folder, index), buffer.getbuffer())
    read_shard(folder, layout, plan, index)
    return digest


def read_shard(folder: Path, layout: RowLayout, plan: str, index: int) -> dict[str, np.ndarray]:
    """Return a committed shard's columns after checking that they are what was written.

    Raises:
        CorruptFileError: It is missing, of another plan, or its bytes differ from its digest.
        UnreadableFileError: The system refuses to read it.
    """
    path = shard_path(folder, index)
    try:
        with open_hdf5(path) as file:
            written = (str(file.attrs["plan"]), int(file.attrs["index"]), str(file.attrs["digest"]))
            arrays = {name: file[name][()] for name in layout.columns}
        _check_arrays(layout, index, arrays)
    except UnreadableFileError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        if refused_by_system(error) and not isinstance(error, FileNotFoundError):
            raise unreadable(path, error) from error
        raise CorruptFileError(
            f"{path}: expected a complete shard, but it cannot be read ({error})"
        ) from error
    if written != (plan, index, shard_digest(arrays)):
        raise CorruptFileError(f"{path}: its rows differ from the digest written with them")
    return arrays


def _check_arrays(layout: RowLayout, index: int, arrays: dict[str, np.ndarray]) -> None:
    start, stop = layout.shard_range(index)
    wanted = {n: ((stop - start, *c.shape), np.dtype(c.dtype)) for n, c in layout.columns.items()}
    received = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if received != wanted:
        raise InvalidInputError(f"shard {index}: expected columns {wanted}, received {received}")
