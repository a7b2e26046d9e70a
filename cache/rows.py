"""Rows that survive a kill: dense arrays of N rows, written in shards, read without a copy.

A file under construction is the folder `<path>.parts` of immutable shards. Once all are
committed they become one contiguous HDF5 file (`onepass.cache.rowfile`), and the folder goes.
"""

import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from onepass.cache.artifacts import Artifact, record, to_json
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    OutOfSpaceError,
)
from onepass.cache.files import TEMPORARY, atomic_path, leftovers, make_folder
from onepass.cache.locks import exclusive
from onepass.cache.progress import human_bytes
from onepass.cache.provenance import BLOCK, differences, digest_json, made_by
from onepass.cache.rowfile import RowFile, write_skeleton
from onepass.cache.shards import (
    Column,
    RowLayout,
    read_shard,
    shard_digest,
    shard_path,
    write_shard,
)

log = logging.getLogger(__name__)

__all__ = [
    "Column",
    "RowFile",
    "RowFilePlan",
    "RowLayout",
    "RowWriter",
    "finished",
    "parts_folder",
    "read_plan",
]

SHARD_BYTES = 16_000_000
SLACK = 8_000_000  # bytes kept free for HDF5's own structures, side arrays and the file system


@record
class RowFilePlan(Artifact):
    """What a file under construction will be: `plan.json` beside its shards.

    Attributes:
        layout: Columns, rows, shards.
        inputs: What the rows depend on (JSON); other inputs mean other rows.
        how: What the bits may depend on besides, such as the batch size; a resumed run keeps it.
    """

    layout: RowLayout
    inputs: dict[str, Any]
    how: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the plan; every shard carries it."""
        return digest_json({"layout": to_json(self.layout), "inputs": self.inputs, "how": self.how})

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 0 had the same fields."""
        return value


def parts_folder(path: Path) -> Path:
    """Return the folder of the shards of a file under construction."""
    return path.with_name(path.name + ".parts")


def read_plan(path: Path) -> RowFilePlan | None:
    """Return the plan of the file under construction at `path`; None where there is none that can be read."""
    try:
        return RowFilePlan.read_optional(_plan_path(path))
    except CorruptFileError:
        return None


def finished(path: Path, inputs: dict[str, Any]) -> RowFile | None:
    """Return the finished file at `path` if it was made from exactly these inputs, else None."""
    if not path.exists():
        return None
    rows = RowFile.open(path)
    return rows if rows.inputs == inputs else None


class RowWriter:
    """The one writer of a file: knows which shards are missing, takes them, and joins them at the end.

    Use as a context manager. Leaving it without `finish` keeps the shards for the next run.

    Args:
        path: The file to be.
        layout: What it will hold.
        inputs: What the rows depend on (JSON). Shards made from others are dropped, and that is said.
        how: What else their bits may depend on (JSON); see `read_plan`.

    Raises:
        LockedError: Another process writes this file.
        OutOfSpaceError: Fewer bytes free than the file needs; nothing was written.
    """

    def __init__(
        self,
        path: Path,
        layout: RowLayout,
        inputs: dict[str, Any],
        how: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.plan = path, RowFilePlan(layout, inputs, how or {})
        self.layout, self.folder = layout, parts_folder(path)
        self.digests: dict[int, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "RowWriter":
        try:
            self._stack.enter_context(exclusive(self.path))
            self._recover()
            _preflight(self.path, 2 * self.layout.total_bytes + SLACK - self._committed_bytes())
            self.plan.write(_plan_path(self.path))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def missing(self) -> tuple[int, ...]:
        """Shards that are not committed yet, in order."""
        return tuple(index for index in range(self.layout.shards) if index not in self.digests)

    def shard_range(self, index: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a shard."""
        return self.layout.shard_range(index)

    def write(self, index: int, arrays: dict[str, np.ndarray]) -> None:
        """Commit one shard; see `onepass.cache.shards.write_shard`, which other processes may call instead."""
        self.digests[index] = write_shard(self.folder, self.layout, self.plan.digest, index, arrays)

    def adopt(self, index: int) -> None:
        """Take over a shard that another process committed, after checking it."""
        self.digests[index] = shard_digest(
            read_shard(self.folder, self.layout, self.plan.digest, index)
        )

    def finish(
        self, side: dict[str, Any] | None = None, attributes: dict[str, Any] | None = None
    ) -> RowFile:
        """Join the shards into one contiguous file, verify it, put it in its place, and drop the shards.

        Args:
            side: Arrays or lists of text with one entry a row.
            attributes: What else is to be said of the rows (JSON).

        Raises:
            InvalidInputError: Shards are missing, or a side array has another length.
        """
        side = {
            name: value if isinstance(value, list) else np.asarray(value)
            for name, value in (side or {}).items()
        }
        wrong = {name: len(value) for name, value in side.items() if len(value) != self.layout.rows}
        if self.missing or wrong:
            raise InvalidInputError(
                f"{self.path}: expected {self.layout.shards} shards and side arrays of {self.layout.rows} entries; "
                f"missing shards {list(self.missing)}, wrong lengths {wrong}"
            )
        with atomic_path(self.path) as temporary:
            _reserve(temporary, self.layout.total_bytes + SLACK)
            digests = [self.digests[index] for index in range(self.layout.shards)]
            made = {**made_by(), **self.plan.how}
            meta = {
                "inputs": self.plan.inputs,
                "attributes": to_json(attributes or {}),
                "made_by": made,
            }
            offsets = write_skeleton(temporary, self.layout, digests, side, meta)
            self._fill(temporary, offsets)
            RowFile.open(temporary).verify()
        shutil.rmtree(self.folder)
        return RowFile.open(self.path)

    def _recover(self) -> None:
        """Keep the shards that are whole and of this plan; drop everything else."""
        before = read_plan(self.path)
        if before and before.digest != self.plan.digest:
            changed = differences(before.inputs, self.plan.inputs) or "other shards"
            log.info(
                f"{self.path.name}: an unfinished run was made from other inputs ({changed}); starting anew"
            )
            shutil.rmtree(self.folder)
        make_folder(self.folder)
        for leftover in [*self.folder.glob(TEMPORARY + "*"), *leftovers(self.path)]:
            leftover.unlink()
        for index in range(self.layout.shards):
            if shard_path(self.folder, index).exists():
                try:
                    self.adopt(index)
                except CorruptFileError as error:
                    log.info(f"{error}; it is computed again")
                    shard_path(self.folder, index).unlink()

    def _committed_bytes(self) -> int:
        return sum(shard_path(self.folder, index).stat().st_size for index in self.digests)

    def _fill(self, path: Path, offsets: dict[str, int]) -> None:
        with path.open("r+b") as file:
            for index in range(self.layout.shards):
                start, _ = self.layout.shard_range(index)
                for name, array in read_shard(
                    self.folder, self.layout, self.plan.digest, index
                ).items():
                    file.seek(offsets[name] + start * self.layout.columns[name].row_bytes)
                    file.write(np.ascontiguousarray(array).data.cast("B"))


def _plan_path(path: Path) -> Path:
    return parts_folder(path) / "plan.json"


def _preflight(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutOfSpaceError(
            f"{path}: needs {human_bytes(needed)} while it is made, but {path.parent} has {human_bytes(free)} free. "
            "Nothing was written. Free some space or move the store with --cache-dir"
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
