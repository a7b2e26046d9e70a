"""A finished file of rows: its format, written once, read by memory map.

    /<column>                     (rows, …), contiguous: `h5py.File(path)["features"]`, or numpy.memmap
    /<side>                       labels and so on, one entry a row; text as in `onepass.cache.hdf5`
    /onepass/{inputs,attributes,made_by,layout}   JSON
    /onepass/json_digest          SHA-256 of the bytes of these four, one after the other
    /onepass/side_digest          SHA-256 of the side arrays
    /onepass/shard_digests        (shards, 32), SHA-256 of each range of `shard_rows` rows
    /onepass/digest               SHA-256 over these
    attribute: format

FORMAT is the number of this layout. Whoever changes the layout raises it, keeps a reader of the old
one, and proves with a test that the old one is still read (format 1: `onepass.cache.migrate`).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from onepass.cache.artifacts import from_json, to_json
from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.cache.files import atomic_path
from onepass.cache.hdf5 import (
    DTYPES,
    create_group,
    create_hdf5,
    open_hdf5,
    read_bytes,
    read_json,
    read_texts,
    write_attribute,
    write_json,
    write_texts,
)
from onepass.cache.made_by import MadeBy
from onepass.cache.memory_map import release
from onepass.cache.provenance import BLOCK, digest_array, digest_bytes, digest_json
from onepass.cache.shards import Column, RowLayout, map_column, shard_digest

FORMAT = 2
OURS = "onepass"  # the group of what is neither column nor side array
JSON_PARTS = ("inputs", "attributes", "made_by", "layout")
BLOCK_BYTES = 16_000_000  # of the rows that share a digest, about
SLACK = 1_000_000  # bytes kept free for HDF5's own structures


@dataclass(frozen=True, slots=True, repr=False)
class RowFile:
    """A finished file of rows, open for reading; any number of processes may read it.

    Attributes:
        path: Where it lies.
        columns: Read-only memory maps (rows, …), by name.
        side: Arrays or lists of text with one entry a row, by name.
        inputs: What the rows depend on.
        attributes: What else was said of them.
        made_by: Who wrote it, when and with what.
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
    made_by: MadeBy
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
        """Open a finished file; no row is read. What it says of itself is compared with its digests.

        Raises:
            MissingFileError: There is none.
            EarlierFormatError: It is of an earlier format.
            CorruptFileError: It is not a row file, is cut short, points outside itself, or its inputs,
                attributes or list of digests were changed.
            UnreadableFileError: The system refuses to read it, or to map it into memory.
        """
        advice = ". Delete it and run the command that made it again"
        with open_hdf5(path, "a finished row file", advice, form=FORMAT) as file:
            return cls._read(path, file)

    @classmethod
    def _read(cls, path: Path, file: h5py.File) -> "RowFile":
        ours = file[OURS]
        if digest_bytes(*(read_bytes(ours, part) for part in JSON_PARTS)) != _hex(
            ours, "json_digest"
        ):
            raise ValueError(f"its {', '.join(JSON_PARTS[:-1])} or {JSON_PARTS[-1]} were changed")
        shard_digests = [bytes(row).hex() for row in ours["shard_digests"][()]]
        digest = _hex(ours, "digest")
        if _digest_of(shard_digests) != digest:
            raise ValueError("its list of digests was changed")
        inputs, attributes, made_by, layout = (read_json(ours, part) for part in JSON_PARTS)
        layout = from_json(RowLayout, layout)
        if len(shard_digests) != layout.shards:
            raise ValueError(f"expected {layout.shards} digests, found {len(shard_digests)}")
        columns = {name: _map_column(file, layout, name) for name in layout.columns}
        side = {name: _read_side(file, name) for name in file if name not in (*columns, OURS)}
        wrong = {name: len(value) for name, value in side.items() if len(value) != layout.rows}
        if wrong:
            raise ValueError(f"expected side arrays of {layout.rows} entries, found {wrong}")
        return cls(
            path=path, columns=columns, side=side, inputs=inputs, attributes=attributes, made_by=from_json(MadeBy, made_by), layout=layout,
            shard_digests=shard_digests, digest=digest, side_digest=_hex(ours, "side_digest"),
        )  # fmt: skip

    def verify(self) -> None:
        """Read every byte and compare it with the digests.

        Raises:
            CorruptFileError: Names the first rows that are not what was written.
        """
        self.check_side()
        for index in range(self.layout.shards):
            for part in self.check_block(index).values():
                release(part)

    def check_side(self) -> None:
        """Compare the side arrays, as they were read, with their digest.

        Raises:
            CorruptFileError: They are not what was written.
        """
        if digest_side(self.side) != self.side_digest:
            raise CorruptFileError(
                f"{self.path}: labels, names or other side arrays were changed; make the file again"
            )

    def check_block(self, index: int) -> dict[str, np.ndarray]:
        """Return the rows of a shard's range, by column, after comparing them with their digest.

        Raises:
            CorruptFileError: They are not what was written.
        """
        start, stop = self.layout.shard_range(index)
        rows = {name: column[start:stop] for name, column in self.columns.items()}
        if shard_digest(rows) != self.shard_digests[index]:
            raise CorruptFileError(
                f"{self.path}: rows {start} to {stop - 1} differ from what was written; make the file again"
            )
        return rows


def write_rows(
    path: Path,
    arrays: dict[str, np.ndarray],
    side: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
    attributes: dict[str, Any] | None = None,
    *,
    block_rows: int | None = None,
    made_by: MadeBy | None = None,
) -> RowFile:
    """Write a whole file at once: reserved, written, verified, synced, renamed.

    The arrays may be memory maps that are larger than the memory: they are read a block at a time.

    Args:
        path: The file to be; one that is there is replaced.
        arrays: By column, (rows, …).
        side: Arrays or lists of text with one entry a row.
        inputs: What the rows depend on (JSON).
        attributes: What else is to be said of them (JSON).
        block_rows: Rows that share a digest; about 16 MB of them where None.
        made_by: What is recorded of the making; that it was made now where None.

    Raises:
        InvalidInputError: The arrays differ in length, or one is of a type that is not stored.
        OutOfSpaceError: The disk is full; `path` is as it was.
    """
    columns = {name: Column(array.shape[1:], array.dtype.name) for name, array in arrays.items()}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1:
        raise InvalidInputError(f"{path}: expected columns of one length, received {lengths}")
    row_bytes = sum(column.row_bytes for column in columns.values())
    each = block_rows or max(1, BLOCK_BYTES // max(1, row_bytes))
    layout = RowLayout(columns, lengths.pop(), each)
    meta = {
        "inputs": inputs or {},
        "attributes": to_json(attributes or {}),
        "made_by": to_json(made_by or MadeBy.now()),
    }
    return write_blocks(
        path,
        layout,
        side or {},
        meta,
        lambda start, stop: {name: array[start:stop] for name, array in arrays.items()},
    )


def write_blocks(
    path: Path,
    layout: RowLayout,
    side: dict[str, Any],
    meta: dict[str, Any],
    block: Callable[[int, int], dict[str, np.ndarray]],
) -> RowFile:
    """Write a file a block at a time: reserved, written, verified, synced, renamed.

    Args:
        path: The file to be; one that is there is replaced.
        layout: Columns and rows.
        side: Arrays or lists of text with one entry a row.
        meta: The JSON values `inputs`, `attributes` and `made_by`.
        block: Returns the rows [start, stop) by column; asked for each block once, in order.

    Raises:
        InvalidInputError: A side array has another length, or something is of a type that is not stored.
        OutOfSpaceError: The disk is full; `path` is as it was.
    """
    with atomic_path(path) as temporary:
        offsets = write_skeleton(temporary, layout, side, meta)
        digests = []
        with temporary.open("r+b") as file:
            for start, stop in map(layout.shard_range, range(layout.shards)):
                rows = block(start, stop)
                digests.append(shard_digest(rows))
                for name, array in rows.items():
                    file.seek(offsets[name] + start * layout.columns[name].row_bytes)
                    file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
                    release(array)
        seal(temporary, digests)
        RowFile.open(temporary).verify()
    return RowFile.open(path)


def write_skeleton(
    path: Path, layout: RowLayout, side: dict[str, Any], meta: dict[str, Any]
) -> dict[str, int]:
    """Create a row file with everything but its rows and their digests; `seal` completes it.

    Args:
        path: A file to be overwritten.
        layout: Columns and rows.
        side: Arrays or lists of text with one entry a row.
        meta: The JSON values `inputs`, `attributes` and `made_by`.

    Returns:
        Where in the file each column begins (bytes); its rows are to be written there in C order.

    Raises:
        InvalidInputError: A side array has another length or a type that is not stored.
        OSError: There is no room for the file.
    """
    side = {n: v if isinstance(v, list) else np.asarray(v) for n, v in side.items()}
    _check_names_and_types(path, layout, side)
    side_bytes = sum(
        sum(8 + 4 * len(text) for text in v) if isinstance(v, list) else v.nbytes
        for v in side.values()
    )
    _reserve(path, layout.total_bytes + 32 * layout.shards + side_bytes + SLACK)
    with create_hdf5(path, align=True) as file:
        offsets = {
            n: _allocate(file, n, (layout.rows, *c.shape), c) for n, c in layout.columns.items()
        }
        for name, value in side.items():
            if isinstance(value, list):
                write_texts(file, name, value)
            else:
                file.create_dataset(name, data=value)
        ours = create_group(file, OURS)
        content = {**meta, "layout": to_json(layout)}
        texts = [write_json(ours, part, content[part]) for part in JSON_PARTS]
        digests = {"json_digest": digest_bytes(*texts), "side_digest": digest_side(side)}
        for name, digest in digests.items():
            ours.create_dataset(name, data=np.frombuffer(bytes.fromhex(digest), np.uint8))
        for name, shape in (("shard_digests", (layout.shards, 32)), ("digest", (32,))):
            _allocate(ours, name, shape, Column((), "uint8"))
        write_attribute(file, "format", FORMAT)
    return offsets


def seal(path: Path, digests: Sequence[str]) -> None:
    """Write the digests into a file whose rows are written; only then can it be opened.

    Args:
        path: A file that `write_skeleton` created.
        digests: SHA-256 (hex) of each shard's rows, see `onepass.cache.shards.shard_digest`.
    """
    with open_hdf5(path, "a row file without digests", form=FORMAT) as file:
        lists, digest = file[OURS]["shard_digests"], file[OURS]["digest"]
        if len(lists) != len(digests):
            raise InvalidInputError(f"{path}: expected {len(lists)} digests, got {len(digests)}")
        places = lists.id.get_offset(), digest.id.get_offset()
    with path.open("r+b") as raw:
        for place, values in zip(places, (digests, [_digest_of(digests)]), strict=True):
            raw.seek(place)
            raw.write(b"".join(map(bytes.fromhex, values)))


def digest_side(side: dict[str, Any]) -> str:
    """Return the SHA-256 (hex) of side arrays and lists of text, whatever their order."""
    parts = []
    for name in sorted(side):
        value = side[name]
        parts.append(
            f"{name}:{digest_json(value) if isinstance(value, list) else digest_array(value)}".encode()
        )
    return digest_bytes(*parts)


def _check_names_and_types(path: Path, layout: RowLayout, side: dict[str, Any]) -> None:
    lengths = {name: len(value) for name, value in side.items() if len(value) != layout.rows}
    types = {n: np.dtype(c.dtype) for n, c in layout.columns.items()}
    types |= {n: value.dtype for n, value in side.items() if not isinstance(value, list)}
    odd = {name: str(dtype) for name, dtype in types.items() if dtype not in DTYPES}
    names = [n for n in (*layout.columns, *side) if "/" in n or n in ("", ".", OURS)]
    names += side.keys() & layout.columns.keys()
    if lengths or odd or names:
        raise InvalidInputError(
            f"{path}: expected columns and side arrays of integers, floats or text, with a name of their own "
            f"and {layout.rows} entries; wrong lengths {lengths}, types {odd}, names {names}"
        )


def _reserve(path: Path, size: int) -> None:
    """Fail here, by a plain error, where HDF5 would meet the full disk (it may end the process then)."""
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS has no such call
            for start in range(0, size, BLOCK):
                file.write(bytes(min(BLOCK, size - start)))
        file.truncate(0)


def _allocate(group: h5py.Group, name: str, shape: tuple[int, ...], column: Column) -> int:
    """Give a contiguous array its place in the file without writing it; return the byte offset."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_layout(h5py.h5d.CONTIGUOUS)
    created.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    created.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    created.set_obj_track_times(False)
    kind = h5py.h5t.py_create(np.dtype(column.dtype), logical=True)
    return h5py.h5d.create(
        group.id, name.encode(), kind, h5py.h5s.create_simple(shape), created
    ).get_offset()


def _map_column(file: h5py.File, layout: RowLayout, name: str) -> np.ndarray:
    """Return a column as a read-only memory map, after checking that it is what the layout says."""
    column, dataset = layout.columns[name], file[name]
    wanted = ((layout.rows, *column.shape), np.dtype(column.dtype))
    if (dataset.shape, dataset.dtype) != wanted or not dataset.id.get_offset():
        raise ValueError(
            f"column {name!r}: expected contiguous {wanted}, found {(dataset.shape, dataset.dtype)}"
        )
    return map_column(file, dataset)


def _read_side(file: h5py.File, name: str) -> Any:
    return read_texts(file, name) if isinstance(file[name], h5py.Group) else file[name][()]


def _hex(group: h5py.Group, name: str) -> str:
    return read_bytes(group, name).hex()


def _digest_of(shard_digests: Sequence[str]) -> str:
    return digest_bytes(*(digest.encode() for digest in shard_digests))
