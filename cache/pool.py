"""Rows that exist already, in finished files and committed shards, found by what they are known by."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from onepass.cache.content import ContentIndex
from onepass.cache.rowfile import RowFile
from onepass.cache.shards import release


@dataclass(frozen=True, slots=True)
class _Part:
    """A finished file, or a committed shard.

    Attributes:
        path: Where it lies.
        columns: By name, each (n, …).
        block_rows: Rows that are checked at a time.
        check: Compares a block with its digest.
    """

    path: Path
    columns: dict[str, np.ndarray]
    block_rows: int
    check: Callable[[int], object]

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return some rows of a column, checked.

        Raises:
            CorruptFileError: They are not what was written.
        """
        for block in np.unique(rows // self.block_rows).tolist():
            self.check(block)
        found = self.columns[name][rows]
        release(self.columns[name][rows.min() : rows.max() + 1])
        return found


class RowPool:
    """Knows where the row of each of some digests lies, if anywhere.

    Args:
        wanted: (N, 16) uint8, repeats allowed. Equal ones are one row, known by the first of them.
    """

    def __init__(self, wanted: np.ndarray) -> None:
        self._index = ContentIndex(wanted)
        self._first = self._index.find(wanted)
        self._parts: list[_Part] = []
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
        """Add the rows of a finished file, known by the column `key`; each block is checked when it is read."""
        self._add(
            _Part(rows.path, rows.columns, rows.layout.shard_rows, cache(rows.check_block)), key
        )

    def add_shard(self, path: Path, arrays: dict[str, np.ndarray], key: str) -> None:
        """Add the rows of a committed shard that was checked already."""
        self._add(_Part(path, arrays, 1 << 62, lambda block: None), key)

    def _add(self, part: _Part, key: str) -> None:
        position = self._index.find(part.columns[key])
        rows = np.flatnonzero(position >= 0)
        rows = rows[self._part[position[rows]] < 0]
        # Written from the last to the first, so that of equal rows the first stays.
        self._part[position[rows][::-1]] = len(self._parts)
        self._row[position[rows][::-1]] = rows[::-1]
        self._parts.append(part)

    def origin(self, position: int) -> Path:
        """Return the file of a row that exists."""
        return self._parts[self._part[self._first[position]]].path

    def gather(self, positions: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return columns of the rows of some positions, all of which exist.

        Raises:
            CorruptFileError: A row is not what was written.
        """
        first = self._first[positions]
        part_of, row_of = self._part[first], self._row[first]
        return {name: self._column(name, part_of, row_of) for name in names}

    def _column(self, name: str, part_of: np.ndarray, row_of: np.ndarray) -> np.ndarray:
        column = self._parts[part_of[0]].columns[name]
        found = np.empty((len(part_of), *column.shape[1:]), column.dtype)
        for part in np.unique(part_of).tolist():
            here = part_of == part
            found[here] = self._parts[part].take(name, row_of[here])
        return found
