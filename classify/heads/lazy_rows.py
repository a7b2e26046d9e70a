"""Rows that are gathered when they are looked at: what is larger than the memory budget is never whole in memory.

To whoever reads them by `rows[begin:end]` or `rows[numbers]` they are an array (n, D).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from onepass.cache.memory import may_be_held

BLOCK_NUMBERS = 1 << 22  # numbers of a block: 34 MB as float64


class LazyRows:
    """Rows (n, D); a subclass gives `_read`.

    Attributes:
        shape: (n, D).
        dtype: Of the numbers.
    """

    ndim = 2

    def __init__(self, rows: int, features: int, dtype: Any) -> None:
        self.shape, self.dtype = (rows, features), np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """How many bytes they would take."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Return the rows of a slice, or of numbers from 0 on."""
        return self._read(np.arange(*key.indices(len(self))) if isinstance(key, slice) else key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.whole().astype(dtype or self.dtype, copy=False)

    def whole(self) -> np.ndarray:
        """Return all rows, read block by block."""
        out = np.empty(self.shape, self.dtype)
        for block in blocks(self):
            out[block] = self[block]
        return out

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        raise NotImplementedError


Rows = Any  # np.ndarray | LazyRows: (n, D)


class Chosen(LazyRows):
    """Some rows of an array, in any order."""

    def __init__(self, X: Rows, rows: np.ndarray) -> None:
        super().__init__(len(rows), X.shape[1], X.dtype)
        self.X, self.rows = X, rows

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        return _gathered(self.X, self.rows[numbers])


class Stacked(LazyRows):
    """The rows of one array below those of the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        first = parts[0]
        super().__init__(sum(map(len, parts)), first.shape[1], first.dtype)
        self.parts = parts

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        out, begin = np.empty((len(numbers), self.shape[1]), self.dtype), 0
        for part in self.parts:
            here = (numbers >= begin) & (numbers < begin + len(part))
            out[here] = part[numbers[here] - begin]
            begin += len(part)
        return out


class SideBySide(LazyRows):
    """The columns of one array after those of the other; the widest dtype."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        columns = sum(part.shape[1] for part in parts)
        super().__init__(len(parts[0]), columns, np.result_type(*(part.dtype for part in parts)))
        self.parts = parts

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        return np.concatenate([_gathered(part, numbers) for part in self.parts], axis=1)


class Mapped(LazyRows):
    """What a function makes of the rows of an array, block by block."""

    def __init__(
        self, X: Rows, function: Callable[[Any], np.ndarray], features: int, dtype: Any
    ) -> None:
        super().__init__(len(X), features, dtype)
        self.X, self.function = X, function

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        return self.function(_gathered(self.X, numbers))


def take(X: Rows, rows: np.ndarray) -> Rows:
    """Return X[rows]: without a copy where they follow one another, and lazily where they are too many to be held."""
    if isinstance(X, LazyRows) or not _in_a_row(rows):
        return held(Chosen(X, rows))
    return X[int(rows[0]) : int(rows[-1]) + 1]


def held(rows: Rows) -> Rows:
    """Return rows as an array where the memory budget has room for them, else as they are."""
    return rows.whole() if isinstance(rows, LazyRows) and may_be_held(rows.nbytes) else rows


def blocks(X: Rows) -> Iterator[slice]:
    """Yield slices that cover the rows of X (n, D) in order."""
    rows = max(1, BLOCK_NUMBERS // max(1, X.shape[1]))
    for start in range(0, X.shape[0], rows):
        yield slice(start, min(start + rows, X.shape[0]))


def _gathered(X: Rows, rows: np.ndarray) -> np.ndarray:
    return X[int(rows[0]) : int(rows[-1]) + 1] if _in_a_row(rows) else X[rows]


def _in_a_row(rows: np.ndarray) -> bool:
    return (
        bool(len(rows)) and rows[-1] - rows[0] + 1 == len(rows) and bool(np.all(np.diff(rows) == 1))
    )
