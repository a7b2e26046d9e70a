"""Files of format 1, read as they lie, for `onepass.cache.migrate` alone.

They hold strings of variable length. HDF5 (1.14.6) loops for ever where these are damaged, in a call that
nothing can interrupt; so HDF5 reads such a file in a process of its own, with a limit of time and memory, and
this process maps only the rows. The limit is one of the processor's time: a loop uses it, a slow disk does not.
"""

import json
import math
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from signal import SIGXCPU
from typing import Any, ClassVar

import h5py
import numpy as np

from onepass.cache.artifacts import Artifact, from_json, record, to_json
from onepass.cache.errors import CorruptFileError, OnepassError, UnreadableFileError
from onepass.cache.hdf5 import open_hdf5
from onepass.cache.made_by import How, MadeBy
from onepass.cache.memory_map import RowMap, release
from onepass.cache.provenance import digest_array, digest_bytes, digest_json
from onepass.cache.rowfile import digest_side
from onepass.cache.shards import RowLayout, shard_digest

FORMAT = 1
LEAST_SECONDS, BYTES_PER_SECOND = 5, 50_000_000  # of the processor; the limit grows with the file
WAITING = 12  # times as long may it take with what it waits for, such as a slow disk
LEAST_MEMORY = 2 << 30  # bytes, beyond the size of the file


@dataclass(frozen=True, slots=True)
class MappedArray:
    """Where the values of an array lie in a file."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def map(self) -> np.ndarray:
        """Return the array as a read-only memory map.

        Raises:
            CorruptFileError: The file has become shorter.
        """
        with self.path.open("rb") as file:
            nbytes = math.prod(self.shape) * self.dtype.itemsize
            if self.offset + nbytes > os.fstat(file.fileno()).st_size:
                raise CorruptFileError(f"{self.path}: became shorter while it was read")
            return RowMap(self.path, file, self.dtype, self.offset, self.shape)


@dataclass(frozen=True, slots=True)
class EarlierRows:
    """A finished file of format 1; all but its rows was compared with its digests.

    Attributes:
        path: Where it lies.
        columns: Where its rows lie, by name.
        side: Arrays or lists of text with one entry a row, by name.
        inputs: What the rows depend on.
        attributes: What else was said of them.
        made_by: Who wrote it, when and with what.
        layout: Rows, columns and blocks.
        block_digests: SHA-256 (hex) of each block of rows.
        digest: SHA-256 (hex) over these.
        side_digest: SHA-256 (hex) of the side arrays.
    """

    path: Path
    columns: dict[str, MappedArray]
    side: dict[str, Any]
    inputs: dict[str, Any]
    attributes: dict[str, Any]
    made_by: MadeBy
    layout: RowLayout
    block_digests: list[str]
    digest: str
    side_digest: str

    @property
    def dataset_digest(self) -> str:
        """Identity of the data set whose pixels these are (hex), as it was told in format 1."""
        side, texts = self.side, [self.attributes["class_ids"], self.attributes["class_names"]]
        parts = [self.digest, digest_array(side["labels"]), digest_array(side["split"])]
        parts += [digest_json(each) for each in (side["names"], *texts)]
        return digest_bytes(*(part.encode() for part in parts))

    def check(self, column: str, inputs: set[str], attributes: set[str], side: set[str]) -> None:
        """Refuse a file that is of another kind, or lacks what one of this kind has.

        Raises:
            CorruptFileError: Says what is missing.
        """
        missing = (inputs - self.inputs.keys()) | (attributes - self.attributes.keys())
        missing |= {column} ^ self.columns.keys() | (side - self.side.keys())
        if missing or self.inputs.get("kind") != column:
            raise CorruptFileError(
                f"{self.path}: expected {column} of format 1, found {self.inputs.get('kind')!r} and no "
                f"{', '.join(sorted(missing))}; delete the file and make it again"
            )

    def checked_columns(
        self, each: Callable[[dict[str, np.ndarray]], None] = lambda rows: None
    ) -> dict[str, np.ndarray]:
        """Return the columns as memory maps, after comparing each block with its digest.

        Args:
            each: Called with the rows of each block, by column, in order.

        Raises:
            CorruptFileError: Names the first rows that are not what was written.
        """
        columns = {name: array.map() for name, array in self.columns.items()}
        for index, expected in enumerate(self.block_digests):
            start, stop = self.layout.shard_range(index)
            rows = {name: column[start:stop] for name, column in columns.items()}
            if shard_digest(rows) != expected:
                raise CorruptFileError(
                    f"{self.path}: rows {start} to {stop - 1} differ from what was written; delete the file "
                    "and make it again"
                )
            each(rows)
            for part in rows.values():
                release(part)
        return columns


@record
class EarlierPlan(Artifact):
    """What a file under construction was to be: `plan.json` beside the shards of format 1.

    Attributes:
        layout: Columns, rows, shards.
        inputs: What the rows depend on (JSON).
        how: What the bits may depend on besides, such as the batch size.
    """

    SAME_SINCE: ClassVar[int] = 0

    layout: RowLayout
    inputs: dict[str, Any]
    how: How

    @property
    def digest(self) -> str:
        """SHA-256 of the plan; every shard carries it."""
        return digest_json(
            {"layout": to_json(self.layout), "inputs": self.inputs, "how": to_json(self.how)}
        )


def read_rows(path: Path) -> EarlierRows:
    """Read a finished file of format 1, all but its rows.

    Raises:
        CorruptFileError: It is damaged: not what was written, or HDF5 came to no end with it.
        UnreadableFileError: The system refuses to read it.
    """
    return _in_child(_read_rows, path)


def read_shard(path: Path, plan: EarlierPlan, index: int) -> dict[str, np.ndarray]:
    """Read a committed shard of format 1, and compare it with its digest.

    Raises:
        CorruptFileError: It is damaged, or of another plan.
        UnreadableFileError: The system refuses to read it.
    """
    written, places = _in_child(_read_shard, path)
    arrays = {name: place.map() for name, place in places.items()}
    if written != (plan.digest, index, shard_digest(arrays)):
        raise CorruptFileError(f"{path}: its rows differ from the digest written with them")
    return arrays


def _in_child(read: Callable[[Path], Any], path: Path) -> Any:
    """Return what `read(path)` returns or raises in a process of its own, if it ends in time."""
    size = path.stat().st_size
    seconds = LEAST_SECONDS + size // BYTES_PER_SECOND
    context = multiprocessing.get_context("spawn")  # a fork would share what HDF5 keeps in memory
    ours, theirs = context.Pipe(duplex=False)
    limits = (seconds, LEAST_MEMORY + size)
    child = context.Process(target=_child, args=(theirs, read, path, *limits), daemon=True)
    child.start()
    theirs.close()
    result: Any = None
    hangs = False
    try:
        with suppress(EOFError):  # it ended without a word
            ours.recv()  # it has begun; how long a process needs for that says nothing of the file
            hangs = not ours.poll(WAITING * seconds)
            result = None if hangs else ours.recv()
        if not hangs:
            child.join(seconds)
            hangs = child.exitcode == -SIGXCPU
    finally:
        child.kill()
        child.join()
        ours.close()
    if isinstance(result, OnepassError):
        raise result
    if result is None and not hangs and (child.exitcode or 0) > 0:
        raise UnreadableFileError(
            f"{path}: the process that was to read it ended with exit code {child.exitcode}, which says "
            "nothing of the file; its own error stands above"
        )
    if result is None:
        what = (
            f"came to no end with it in {seconds} s" if hangs else "ended the process that read it"
        )
        raise CorruptFileError(
            f"{path}: is damaged: HDF5 {what}; delete the file and make it again"
        )
    return result


def _child(
    connection: Connection, read: Callable[[Path], Any], path: Path, seconds: int, memory: int
) -> None:
    """Read within limits that hold also when the parent was killed."""
    begun = math.ceil(time.process_time())
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, begun + seconds),
        (resource.RLIMIT_DATA, memory),
    ):
        with suppress(OSError, ValueError):  # macOS knows no limit of data
            resource.setrlimit(what, (limit, resource.getrlimit(what)[1]))
    connection.send("begun")
    try:
        connection.send(read(path))
    except OnepassError as error:
        connection.send(error)


def _read_rows(path: Path) -> EarlierRows:
    with open_hdf5(
        path, "a row file of format 1", ". Delete it", form=FORMAT, long_strings=True
    ) as file:
        meta = {
            name: json.loads(file["onepass"][name][()])
            for name in ("inputs", "attributes", "made_by", "layout")
        }
        layout = from_json(RowLayout, meta["layout"])
        columns = {}
        for name, column in layout.columns.items():
            place = _place(path, file[name])
            if (place.shape, place.dtype) != (
                (layout.rows, *column.shape),
                np.dtype(column.dtype),
            ):
                raise ValueError(f"column {name!r} is not what its layout says")
            columns[name] = place
        side = {n: _side(file[n]) for n in file if n not in columns and n != "onepass"}
        rows = EarlierRows(
            path=path, columns=columns, side=side, inputs=meta["inputs"], attributes=meta["attributes"],
            made_by=from_json(MadeBy, meta["made_by"]), layout=layout, block_digests=list(file["onepass/shard_digests"].asstr()[()]),
            digest=str(file.attrs["digest"]), side_digest=str(file.attrs["side_digest"]),
        )  # fmt: skip
        if digest_bytes(*(d.encode() for d in rows.block_digests)) != rows.digest:
            raise ValueError("its list of digests was changed")
        if digest_side(side) != rows.side_digest or len(rows.block_digests) != layout.shards:
            raise ValueError("labels, names or other side arrays were changed")
        return rows


def _read_shard(path: Path) -> tuple[tuple[str, int, str], dict[str, MappedArray]]:
    with open_hdf5(path, "a shard of format 1", long_strings=True) as file:
        written = (str(file.attrs["plan"]), int(file.attrs["index"]), str(file.attrs["digest"]))
        return written, {name: _place(path, file[name]) for name in file}


def _place(path: Path, dataset: h5py.Dataset) -> MappedArray:
    offset = dataset.id.get_offset()
    if not offset or dataset.dtype.hasobject:
        raise ValueError(f"{dataset.name} holds no contiguous numbers")
    return MappedArray(path, offset, dataset.shape, dataset.dtype)


def _side(dataset: h5py.Dataset) -> Any:
    return (
        list(dataset.asstr()[()]) if h5py.check_string_dtype(dataset.dtype) else np.asarray(dataset)
    )
