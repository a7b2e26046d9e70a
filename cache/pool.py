"""Rows that exist already, in finished files and committed shards, found by what they are known by."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from onepass.cache.content import ContentIndex
from onepass.cache.errors import CorruptFileError, StaleError
from onepass.cache.memory_map import RowMap, release
from onepass.cache.progress import human_bytes
from onepass.cache.rowfile import RowFile
from onepass.cache.shards import ShardKind, read_shard

log = logging.getLogger(__name__)

WORTH_SAYING = 2_000_000_000  # bytes to be checked: some seconds
Rows = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class _File:
    """A finished file. Each of its blocks is compared with its digest before the first of its rows is given."""

    rows: RowFile
    check: Callable[[int], None]

    def take(self, names: Sequence[str], rows: np.ndarray) -> Rows:
        for block in np.unique(rows // self.rows.layout.shard_rows).tolist():
            self.check(block)
        columns = {name: self.rows.columns[name] for name in names}
        found = {name: column[rows] for name, column in columns.items()}
        for column in columns.values():
            release(column[rows.min() : rows.max() + 1])
        return found


class _Place(NamedTuple):
    """Where a column lies in a shard."""

    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Shard:
    """A committed shard that was checked. It is opened again for each look: there may be thousands."""

    path: Path
    identity: tuple[int, ...]
    places: dict[str, _Place]

    def take(self, names: Sequence[str], rows: np.ndarray) -> Rows:
        try:
            with self.path.open("rb") as file:
                if _identity(os.fstat(file.fileno())) == self.identity:
                    return {name: self._map(file, name)[rows] for name in names}
        except FileNotFoundError:
            pass
        raise StaleError(
            f"{self.path}: another process replaced it or took it away meanwhile; run the same command again"
        )

    def _map(self, file: IO[bytes], name: str) -> np.ndarray:
        dtype, offset, shape = self.places[name]
        return RowMap(self.path, file, dtype, offset, shape)


class RowPool:
    """Knows where the row of each of some digests lies, if anywhere.

    Args:
        wanted: (N, 16) uint8, repeats allowed. Equal ones are one row, known by the first of them.
    """

    def __init__(self, wanted: np.ndarray) -> None:
        self._index = ContentIndex(wanted)
        self._first = self._index.find(wanted)
        self._adding = threading.Lock()
        self._parts: list[_File | _Shard | None] = []
        self._files: list[Path] = []  # which file each part is of, or will be
        self._part = np.full(len(wanted), -1)  # where the row of a first position lies: which part,
        self._row = np.full(len(wanted), -1)  # and which of its rows

    @property
    def distinct(self) -> int:
        """How many different rows are wanted."""
        return int(np.count_nonzero(self._first == np.arange(len(self._first))))

    @property
    def known(self) -> np.ndarray:
        """Positions of the rows that exist, of equal ones the first; int64, ascending."""
        return np.flatnonzero(self._part >= 0)

    def unknown(self, positions: np.ndarray | None = None) -> np.ndarray:
        """Return those of some positions (default: all) whose rows do not exist, of equal ones the first."""
        first = self._first if positions is None else self._first[positions]
        return np.unique(first[self._part[first] < 0])

    def add_file(self, rows: RowFile, key: str) -> None:
        """Add the rows of a finished file, known by the column `key`.

        Blocks that are not what was written give none, and that is said. They are read once to know it;
        when their rows are gathered, perhaps hours later, they are checked again.
        """
        found, positions = self._new_rows(rows.columns[key])
        blocks = found // rows.layout.shard_rows
        size = len(found) * rows.layout.total_bytes // rows.layout.rows
        if size > WORTH_SAYING:
            log.info(f"{rows.path}: {human_bytes(size)} are checked before they are copied")
        whole = np.full(rows.layout.shards, True)
        for block in np.unique(blocks).tolist():
            try:
                _check(rows, block)
            except CorruptFileError as error:
                log.info(f"{error}; nothing is copied from them")
                whole[block] = False
        good = whole[blocks]
        part = _File(rows, cache(lambda block: _check(rows, block)))
        self._add(part, rows.path, found[good], positions[good])

    def add_shard(self, path: Path, kind: ShardKind) -> np.ndarray:
        """Add the rows of a committed shard; return what they are known by.

        Raises:
            CorruptFileError: It is of another kind, or not what was written.
            MissingFileError: There is none.
            UnreadableFileError: The system refuses to read it.
        """
        identity = _identity(path.stat()) if path.exists() else ()
        arrays = read_shard(path, kind)
        places = {n: _Place(a.dtype, a.offset, a.shape) for n, a in arrays.items()}  # type: ignore[attr-defined]
        keys = np.array(arrays[kind.key])
        file = path.parent.with_name(path.parent.name.removesuffix(".parts"))
        self._add(_Shard(path, identity, places), file, *self._new_rows(keys))
        return keys

    def count(self, path: Path, keys: np.ndarray) -> None:
        """Count rows as existing, unchecked, for a plan; they cannot be gathered."""
        self._add(None, path, *self._new_rows(keys))

    def _new_rows(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of these rows are wanted and lie nowhere yet, and the position of each."""
        positions = self._index.find(keys)
        rows = np.flatnonzero(positions >= 0)
        rows = rows[self._part[positions[rows]] < 0]
        return rows, positions[rows]

    def _add(
        self, part: _File | _Shard | None, file: Path, rows: np.ndarray, positions: np.ndarray
    ) -> None:
        with self._adding:  # several devices commit shards at a time
            number = len(self._parts)
            self._parts.append(part)
            self._files.append(file)
            # Written from the last to the first, so that of equal rows the first stays.
            self._part[positions[::-1]] = number
            self._row[positions[::-1]] = rows[::-1]

    def file_of(self, position: int) -> Path:
        """Return the file that a row which exists is of, finished or not."""
        return self._files[self._part[self._first[position]]]

    def sample(self, count: int) -> np.ndarray:
        """Return about `count` positions of rows that exist: as many of every file, spread over it; int64."""
        known = self.known
        number = {file: n for n, file in enumerate(dict.fromkeys(self._files))}
        file_of = np.array([number[file] for file in self._files], int)[self._part[known]]
        chosen = []
        for file in np.unique(file_of).tolist():
            of_file = known[file_of == file]
            each = min(len(of_file), max(1, count // len(number)))
            chosen.append(of_file[np.linspace(0, len(of_file) - 1, each).astype(int)])
        return np.sort(np.concatenate(chosen))[:count] if chosen else known

    def gather(self, positions: np.ndarray, names: Sequence[str]) -> Rows:
        """Return columns of the rows of some positions, all of which exist.

        Raises:
            CorruptFileError: A row of a finished file is not what was written.
            StaleError: A shard is no longer the one that was added.
        """
        first = self._first[positions]
        part_of, row_of = self._part[first], self._row[first]
        by_part = np.argsort(part_of, kind="stable")
        cuts = np.flatnonzero(np.diff(part_of[by_part])) + 1
        found: Rows = {}
        for places in np.split(by_part, cuts):
            part = self._parts[part_of[places[0]]]
            assert part is not None and part_of[places[0]] >= 0
            for name, rows in part.take(names, row_of[places]).items():
                if name not in found:
                    found[name] = np.empty((len(positions), *rows.shape[1:]), rows.dtype)
                found[name][places] = rows
        return found


def _check(rows: RowFile, block: int) -> None:
    for part in rows.check_block(block).values():
        release(part)


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    """Return what differs where a file was replaced by another."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
