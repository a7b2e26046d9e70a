"""Files that can only be read one after the other are copied once, into a temporary file that is read anywhere."""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onepass.cache.errors import OutOfSpaceError
from onepass.cache.files import full_disk_named, make_folder
from onepass.cache.progress import human_bytes

log = logging.getLogger(__name__)


class Spool:
    """The contents of many files in order; each is copied when it, or one behind it, is first asked for.

    Any number of threads may read. The copy has no name, so that it is gone however the process ends.

    Args:
        what: What is copied, for an error.
        contents: Begins to yield the files, None where there is none.
        size: Bytes of all of them.
        folder: Where the copy lies, such as that of the store, made if it is not there; that of the system
            where None.
    """

    def __init__(
        self,
        what: str,
        contents: Callable[[], Iterator[bytes | None]],
        size: int,
        folder: Path | None,
    ) -> None:
        self.what, self.contents, self.size = what, contents, size
        self.folder = folder or Path(tempfile.gettempdir())
        self._coming: Iterator[bytes | None] | None = None
        self._ends = [0]
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        """Return the content of a file, b"" where there is none.

        Raises:
            OnepassError: It, or what lies before it, cannot be read.
            OutOfSpaceError: The disk has no room for the copy.
        """
        with self._lock:
            if self._coming is None:
                self._file, self._coming = self._new_file(), self.contents()
            while len(self._ends) <= index + 1:
                content = next(self._coming, None) or b""
                self._write(content)
                self._ends.append(self._ends[-1] + len(content))
        start, end = self._ends[index], self._ends[index + 1]
        return os.pread(self._file.fileno(), end - start, start)

    def close(self) -> None:
        """Give the copy's room back."""
        if self._coming is not None:
            self._file.close()

    def _new_file(self) -> tempfile._TemporaryFileWrapper:
        make_folder(self.folder)
        free = shutil.disk_usage(self.folder).free
        if free < self.size:
            raise OutOfSpaceError(
                f"{self.what}: can only be read in order and needs a copy of {human_bytes(self.size)} for a while, "
                f"but {self.folder} has {human_bytes(free)} free. Free some space or move the store with --cache-dir"
            )
        log.info(
            f"{self.what}: copied once ({human_bytes(self.size)}) into a file that is deleted at the end"
        )
        return tempfile.TemporaryFile(dir=self.folder)  # type: ignore[return-value]

    def _write(self, content: bytes) -> None:
        with full_disk_named(self.folder):
            self._file.seek(self._ends[-1])
            self._file.write(content)
            self._file.flush()


@contextmanager
def open_spool(
    what: str, contents: Callable[[], Iterator[bytes | None]], size: int, folder: Path | None
) -> Iterator[Spool]:
    """Yield a `Spool`, and delete its copy behind."""
    spool = Spool(what, contents, size, folder)
    try:
        yield spool
    finally:
        spool.close()
