"""A finished file of rows: its format, written once, read by memory map.

    /<column>                     (rows, …), contiguous: `h5py.File(path)["features"]`, or numpy.memmap
    /<side>                       labels, names and so on, one entry a row
    /onepass/{inputs,attributes,made_by,layout}   JSON text
    /onepass/shard_digests        SHA-256 of each range of `shard_rows` rows
    attributes: format, digest (over the shard digests), side_digest

FORMAT is the number of this layout. Whoever changes the layout raises it, keeps a reader of the old
one, and proves with a test that the old one is still read.
"""

import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from onepass.cache.artifacts import from_json, to_json
from onepass.cache.errors import (
    CorruptFileError,
    MissingFileError,
    OnepassError,
    refused_by_system,
    unreadable,
)
from onepass.cache.provenance import digest_array, digest_bytes, digest_json
from onepass.cache.shards import Column, RowLayout, open_hdf5, shard_digest

FORMAT = 1


@dataclass(frozen=True, slots=True, repr=False)
class RowFile:
    """A finished file of rows, open for reading; any number of processes may read it.

    Attributes:
        path: Where it lies.
        columns: Read-only memory maps (rows, …), by name.
        side: Arrays or lists of text with one entry a row, by name.
        inputs: What the rows depend on.
        attributes: What else was said of them.
        made: Command, time, machine and versions of the making.
        layout: Rows, columns and shards.
        shard_digests: SHA-256 (hex) of each shard's rows.
        digest: SHA-256 (hex) over the shard digests: the identity of the rows' values.
        side_digest: SHA-256 (hex) of the side arrays.
    """

    path: Path
    columns: dict[str, np.ndarray]
    side: dict[str, Any]
    inputs: dict[str, Any]
    attributes: dict[str, Any]
    made: dict[str, Any]
    layout: RowLayout
    shard_digests: list[str]
    digest: str
    side_digest: str

    def __repr__(self) -> str:
        columns = ", ".join(f"{n} {a.shape} {a.dtype}" for n, a in self.columns.items())
        return f"<RowFile {self.path}: {columns}, digest {self.digest[:8]}>"

    def __reduce__(self) -> tuple:
        return RowFile.open, (self.path,)  # a memory map would be pickled as all its bytes

    @classmethod
    def open(cls, path: Path) -> "RowFile":
        """Open a finished file; no row is read.

        Raises:
            MissingFileError: There is none.
            CorruptFileError: It is not a row file, is cut short, or points outside itself.
            UnreadableFileError: The system refuses to read it, or to map it into memory.
        """
        try:
            with open_hdf5(path) as file:
                return cls._read(path, file)
        except OnepassError:
            raise
        except FileNotFoundError as error:
            raise MissingFileError(f"{path}: no such file") from error
        except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
            if refused_by_system(error):
                raise unreadable(path, error) from error
            raise CorruptFileError(
                f"{path}: expected a finished row file, but it cannot be read ({error}). "
                f"Delete it and run the command that made it again"
            ) from error

    @classmethod
    def _read(cls, path: Path, file: h5py.File) -> "RowFile":
        if int(file.attrs["format"]) != FORMAT:
            raise ValueError(f"format {file.attrs['format']}, this version reads {FORMAT}")
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link to another file")
        meta = {
            name: json.loads(file["onepass"][name][()])
            for name in ("inputs", "attributes", "made_by", "layout")
        }
        layout = from_json(RowLayout, meta["layout"])
        columns = {name: _map_column(path, file[name], layout, name) for name in layout.columns}
        side = {
            name: _read_side(file[name])
            for name in file
            if name not in columns and name != "onepass"
        }
        return cls(
            path=path, columns=columns, side=side, inputs=meta["inputs"], attributes=meta["attributes"],
            made=meta["made_by"], layout=layout, shard_digests=list(file["onepass/shard_digests"].asstr()[()]),
            digest=str(file.attrs["digest"]), side_digest=str(file.attrs["side_digest"]),
        )  # fmt: skip

    def verify(self) -> None:
        """Read every byte and compare it with the digests.

        Raises:
            CorruptFileError: Names the first rows that are not what was written.
        """
        if digest_bytes(*(d.encode() for d in self.shard_digests)) != self.digest:
            raise CorruptFileError(
                f"{self.path}: its list of digests was changed; make the file again"
            )
        if _digest_side(self.side) != self.side_digest:
            raise CorruptFileError(
                f"{self.path}: labels, names or other side arrays were changed; make the file again"
            )
        for index, expected in enumerate(self.shard_digests):
            start, stop = self.layout.shard_range(index)
            rows = {name: column[start:stop] for name, column in self.columns.items()}
            if shard_digest(rows) != expected:
                raise CorruptFileError(
                    f"{self.path}: rows {start} to {stop - 1} differ from what was written; make the file again"
                )
            for part in rows.values():
                release(part)


def release(rows: np.ndarray) -> None:
    """Let the system take back the memory of rows that were read through a memory map.

    They stay readable: the next look fetches them again. Without this a process that reads a file from
    end to end seems to hold all of it. Rows that are no memory map are left alone.
    """
    mapped = getattr(rows, "_mmap", None)
    if mapped is None or not rows.size:
        return
    begin = rows.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, first, begin + rows.nbytes - first)


def write_skeleton(
    path: Path, layout: RowLayout, digests: list[str], side: dict[str, Any], meta: dict[str, Any]
) -> dict[str, int]:
    """Create a row file with everything but its rows.

    Args:
        path: A file to be overwritten.
        layout: Columns and rows.
        digests: SHA-256 (hex) of each shard.
        side: Arrays or lists of text with one entry a row.
        meta: The JSON values `inputs`, `attributes` and `made_by`.

    Returns:
        Where in the file each column begins (bytes); its rows are to be written there in C order.
    """
    with h5py.File(path, "w", alignment_threshold=1 << 16, alignment_interval=1 << 12) as file:
        offsets = {
            n: _allocate(file, n, (layout.rows, *c.shape), c) for n, c in layout.columns.items()
        }
        for name, value in side.items():
            kind = h5py.string_dtype() if isinstance(value, list) else value.dtype
            file.create_dataset(name, data=value, dtype=kind)
        group = file.create_group("onepass")
        for name, content in {**meta, "layout": to_json(layout)}.items():
            group.create_dataset(name, data=json.dumps(content), dtype=h5py.string_dtype())
        group.create_dataset("shard_digests", data=digests, dtype=h5py.string_dtype())
        digest = digest_bytes(*(d.encode() for d in digests))
        file.attrs.update({"format": FORMAT, "digest": digest, "side_digest": _digest_side(side)})
    return offsets


def _allocate(file: h5py.File, name: str, shape: tuple[int, ...], column: Column) -> int:
    """Give a contiguous column its place in the file without writing it; return the byte offset."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_layout(h5py.h5d.CONTIGUOUS)
    created.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    created.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(np.dtype(column.dtype), logical=True)
    return h5py.h5d.create(
        file.id, name.encode(), kind, h5py.h5s.create_simple(shape), created
    ).get_offset()


def _map_column(path: Path, dataset: h5py.Dataset, layout: RowLayout, name: str) -> np.ndarray:
    """Return a column as a read-only memory map, after checking that it is what the layout says."""
    column = layout.columns[name]
    wanted = ((layout.rows, *column.shape), np.dtype(column.dtype))
    offset = dataset.id.get_offset()
    if (dataset.shape, dataset.dtype) != wanted or offset is None or dataset.external:
        raise ValueError(
            f"column {name!r}: expected contiguous {wanted}, found {(dataset.shape, dataset.dtype)}"
        )
    return np.memmap(path, wanted[1], "r", offset, wanted[0])


def _read_side(dataset: h5py.Dataset) -> Any:
    if dataset.external:
        raise ValueError(f"{dataset.name} lies in another file")
    return list(dataset.asstr()[()]) if h5py.check_string_dtype(dataset.dtype) else dataset[()]


def _digest_side(side: dict[str, Any]) -> str:
    parts = []
    for name in sorted(side):
        value = side[name]
        parts.append(
            f"{name}:{digest_json(value) if isinstance(value, list) else digest_array(value)}".encode()
        )
    return digest_bytes(*parts)
