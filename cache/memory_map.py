"""Rows of a file as an array that is read when it is looked at: `RowMap`."""

import mmap
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from onepass.cache.errors import CorruptFileError


class RowMap(np.memmap):
    """A read-only memory map that looks at the length of its file before rows are read.

    A file that another program cuts while it is mapped would end the process with SIGBUS. Our own commands
    never change a file in place: they replace it, and a map keeps what it has.
    """

    path: Path | None
    _mmap: mmap.mmap | None  # NumPy's own: None of what is a copy

    def __new__(
        cls, path: Path, file: IO[Any], dtype: Any, offset: int, shape: tuple[int, ...]
    ) -> Self:
        """Map an array that lies in an open file.

        Args:
            path: Of the file, for messages.
            file: The same, open for reading.
            dtype: Of the array.
            offset: Where it begins (bytes).
            shape: Of the array.
        """
        rows: Any = super().__new__(cls, file, dtype, "r", offset, shape)
        rows.path = path
        return rows

    def __array_finalize__(self, parent: Any) -> None:
        super().__array_finalize__(parent)
        self.path = getattr(parent, "path", None)

    def __getitem__(self, rows: Any) -> Any:
        """Return rows, as any array does.

        Raises:
            CorruptFileError: The file became shorter than the array is.
        """
        if (mapped := self._mmap) is not None:
            end = self.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY + len(
                mapped
            )
            if (size := mapped.size()) < end:
                raise CorruptFileError(
                    f"{self.path}: expected at least {end:,} bytes, found {size:,}: another program cut it while "
                    "it was read"
                )
        return super().__getitem__(rows)


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
