"""Rows that survive a kill and a change of the data: written in shards, read without a copy.

A file under construction is the folder `<path>.parts` of immutable shards, which hold only the rows that
no other file has. Once all are committed, these and the others become one contiguous HDF5 file
(`onepass.cache.rowfile`), and the folder goes.
"""

import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from onepass.cache.artifacts import Artifact, record, to_json
from onepass.cache.content import contents_digest, find
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    LockedError,
    MissingFileError,
    OnepassError,
    OutOfSpaceError,
    StaleError,
)
from onepass.cache.files import TEMPORARY, leftovers, make_folder
from onepass.cache.locks import exclusive
from onepass.cache.made_by import How, MadeBy
from onepass.cache.pool import RowPool
from onepass.cache.progress import human_bytes
from onepass.cache.provenance import differences
from onepass.cache.rowfile import RowFile, write_blocks
from onepass.cache.shards import (
    Column,
    RowLayout,
    ShardKind,
    shard_keys,
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
    "ShardKind",
    "clear_away",
    "cut_shards",
    "finished",
    "inputs_of",
    "parts_folder",
    "read_plan",
    "recipe_of",
]

SHARD_BYTES = 16_000_000
SLACK = 8_000_000  # bytes kept free for HDF5's own structures, side arrays and the file system


@record
class RowFilePlan(Artifact):
    """What a file under construction will be: `plan.json` beside its shards.

    Attributes:
        kind: What its shards hold.
        rows: How many rows it will have.
        shard_rows: Rows of a shard and of a block.
        how: What the bits may depend on besides, such as the batch size; a resumed run keeps it.
    """

    kind: ShardKind
    rows: int
    shard_rows: int
    how: How

    FORMAT = 2

    @property
    def layout(self) -> RowLayout:
        """Of the file."""
        return RowLayout(self.kind.columns, self.rows, self.shard_rows)


def parts_folder(path: Path) -> Path:
    """Return the folder of the shards of a file under construction."""
    return path.with_name(path.name + ".parts")


def read_plan(path: Path) -> RowFilePlan | None:
    """Return the plan of the file under construction at `path`; None where there is none that can be read."""
    try:
        return RowFilePlan.read_optional(_plan_path(path))
    except CorruptFileError:
        return None


def finished(path: Path | None, inputs: dict[str, Any]) -> RowFile | None:
    """Return the finished file at `path` if there is one and it was made from exactly these inputs, else None."""
    if path is None or not path.exists():
        return None
    rows = RowFile.open(path)
    return rows if rows.inputs == inputs else None


def clear_away(rows: RowFile, key: str) -> None:
    """Remove what a killed run left beside a finished file, but for shards that hold rows besides its own.

    Args:
        rows: The file.
        key: The column by which its rows are known.
    """
    path, folder = rows.path, parts_folder(rows.path)
    lock = path.with_name(path.name + ".lock")
    if not (folder.exists() or lock.exists() or leftovers(path)):
        return
    with suppress(LockedError), exclusive(path):
        for shard in folder.glob("shard-*.h5"):
            keys = shard_keys(shard, key)
            if len(keys) and np.all(find(rows.columns[key], keys) >= 0):
                shard.unlink()
        for leftover in [*folder.glob(TEMPORARY + "*"), *leftovers(path)]:
            leftover.unlink()
        if not any(folder.glob("shard-*.h5")):
            shutil.rmtree(folder, ignore_errors=True)


def inputs_of(recipe: dict[str, Any], contents: np.ndarray) -> dict[str, Any]:
    """Return what the rows of a file depend on.

    Args:
        recipe: How they are made.
        contents: Of which images, in which order: (N, 16) uint8.
    """
    return {**recipe, "contents": contents_digest(contents)}


def recipe_of(rows: RowFile) -> dict[str, Any]:
    """Return how the rows of a finished file were made, whatever the images."""
    return {name: value for name, value in rows.inputs.items() if name != "contents"}


class RowWriter:
    """The one writer of a file: knows which rows are missing, takes them, and gathers all of them at the end.

    A row is known by a digest. What other files or committed shards hold already is not asked for
    again, and of equal rows only the first is. Use as a context manager; leaving it without `finish`
    keeps the shards, if there are any, for the next run.

    Args:
        path: The file to be.
        kind: What it will hold, `content`, (16,) uint8, among it, and how that is made. Shards made in another
            way are dropped, and that is said.
        wanted: (N, 16) uint8: what each row is known by, in row order.
        shard_rows: Rows of a shard.
        how: What else their bits may depend on; see `read_plan`.
        donors: Finished files whose rows may be copied: their recipe is the same, or as good.
        begun: Folders of shards of other files of the same recipe, which may be copied.

    Attributes:
        pool: Where each row lies.
        carried: How many different rows other files have.
        stored: How many earlier runs of this file made.

    Raises:
        LockedError: Another process writes this file.
        OutOfSpaceError: Fewer bytes free than the file needs; nothing was written.
    """

    def __init__(
        self,
        path: Path,
        kind: ShardKind,
        wanted: np.ndarray,
        *,
        shard_rows: int,
        how: How | None = None,
        donors: Sequence[RowFile] = (),
        begun: Sequence[Path] = (),
    ) -> None:
        self.path, self.folder, self.wanted = path, parts_folder(path), wanted
        self.plan = RowFilePlan(kind, len(wanted), shard_rows, how or How())
        self._donors = donors
        self._begun = [folder for folder in begun if folder != self.folder]
        self.pool = RowPool(wanted)
        self._stack = ExitStack()
        self.carried = self.stored = 0

    def __enter__(self) -> "RowWriter":
        try:
            self._stack.enter_context(exclusive(self.path))
            self._stack.callback(self._drop_bare_plan)
            self._recover()
            row_bytes = sum(column.row_bytes for column in self.plan.kind.columns.values())
            missing = sum(map(len, self.missing))
            _preflight(self.path, self.plan.layout.total_bytes + missing * row_bytes + SLACK)
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
    def missing(self) -> list[np.ndarray]:
        """Positions in `wanted` whose rows are still to be made, a shard at a time, in order."""
        return cut_shards(self.pool.unknown(), self.plan.shard_rows)

    def write(self, positions: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Commit the rows of some positions as one shard, but for those that are there already.

        See `onepass.cache.shards.write_shard`, which other processes may call instead.

        Raises:
            StaleError: They are not of the images that were asked for.
        """
        self._check_keys(positions, arrays[self.plan.kind.key])
        new = np.isin(positions, self.pool.unknown(positions))
        if new.any():
            new_rows = {name: array[new] for name, array in arrays.items()}
            path = write_shard(self.folder, self.plan.kind, new_rows)
            self.pool.add_shard(path, self.plan.kind)

    def adopt(self, positions: np.ndarray) -> None:
        """Take over the shard of these rows that another process committed, after checking it.

        Raises:
            CorruptFileError: It is not what was written.
            StaleError: It is not of the images that were asked for.
        """
        path = shard_path(self.folder, self.wanted[positions[0]])
        try:
            keys = self.pool.add_shard(path, self.plan.kind)
        except MissingFileError:  # it is named after another image
            keys = np.empty(0, np.uint8)
        self._check_keys(positions, keys)

    def column(self, name: str, positions: np.ndarray | None = None) -> np.ndarray:
        """Return a column of the rows of some positions (default: all), none of which may be missing."""
        positions = np.arange(len(self.wanted)) if positions is None else positions
        return self.pool.gather(positions, [name])[name]

    def finish(
        self, attributes: dict[str, Any] | None = None, order: np.ndarray | None = None
    ) -> RowFile:
        """Gather the rows into one contiguous file, verify it, put it in its place, and drop the shards.

        Args:
            attributes: What else is to be said of the rows (JSON).
            order: Positions in `wanted` that become the rows, in this order (default: all).

        Raises:
            InvalidInputError: Rows are missing.
            CorruptFileError: A row to be copied is not what was written.
        """
        order = np.arange(len(self.wanted)) if order is None else order
        missing = self.pool.unknown(order)
        if len(missing):
            raise InvalidInputError(
                f"{self.path}: expected all of {len(order)} rows; missing rows {missing[:10].tolist()}"
            )
        columns, keys = self.plan.kind.columns, self.column(self.plan.kind.key, order)
        if not np.array_equal(keys, self.wanted[order]):
            # No file can be the cause: this would be a fault of ours, and wrong rows of it for ever.
            raise RuntimeError(f"{self.path}: the rows found are not those of the images asked for")
        meta = {
            "inputs": inputs_of(self.plan.kind.recipe, self.column("content", order)),
            "attributes": to_json(attributes or {}),
            "made_by": to_json(MadeBy.now(self.plan.how)),
        }
        rows = write_blocks(
            self.path,
            RowLayout(columns, len(order), self.plan.shard_rows),
            {},
            meta,
            lambda start, stop: self.pool.gather(order[start:stop], list(columns)),
        )
        shutil.rmtree(self.folder)
        return rows

    def _recover(self) -> None:
        """Find the rows that exist; drop shards of another recipe, and what is not whole."""
        before = read_plan(self.path)
        if before and before.kind.digest != self.plan.kind.digest:
            changed = differences(before.kind.recipe, self.plan.kind.recipe) or "other columns"
            log.info(
                f"{self.path.name}: an unfinished run was made from other inputs ({changed}); starting anew"
            )
            shutil.rmtree(self.folder)
        make_folder(self.folder)
        for leftover in [*self.folder.glob(TEMPORARY + "*"), *leftovers(self.path)]:
            leftover.unlink()
        for donor in self._donors:
            self.pool.add_file(donor, self.plan.kind.key)
        for folder in self._begun:
            for shard in sorted(folder.glob("shard-*.h5")):
                with suppress(OnepassError):  # another's: it goes, or is mended, with its own run
                    self.pool.add_shard(shard, self.plan.kind)
        self.carried = len(self.pool.known)
        for shard in sorted(self.folder.glob("shard-*.h5")):
            try:
                self.pool.add_shard(shard, self.plan.kind)
            except CorruptFileError as error:
                log.info(f"{error}; it is computed again")
                shard.unlink()
        self.stored = len(self.pool.known) - self.carried

    def _drop_bare_plan(self) -> None:
        """Remove a plan without shards: it is nothing to go on with."""
        if not any(self.folder.glob("shard-*.h5")):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _check_keys(self, positions: np.ndarray, keys: np.ndarray) -> None:
        if not np.array_equal(keys, self.wanted[positions]):
            raise StaleError(
                f"{self.path}: the images changed while their rows were made: expected those that were there at the "
                "start, received others; nothing of them was kept. Run the same command again"
            )


def cut_shards(positions: np.ndarray, shard_rows: int) -> list[np.ndarray]:
    """Return positions a shard at a time, in order."""
    return [positions[start : start + shard_rows] for start in range(0, len(positions), shard_rows)]


def _plan_path(path: Path) -> Path:
    return parts_folder(path) / "plan.json"


def _preflight(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutOfSpaceError(
            f"{path}: needs {human_bytes(needed)} while it is made, but {path.parent} has {human_bytes(free)} free. "
            "Nothing was written. Free some space or move the store with --cache-dir"
        )
