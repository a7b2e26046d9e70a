"""What the file system of a folder can do, really tried: locks, memory maps, room."""

import mmap
import os
import shutil
import tempfile
from pathlib import Path

from onepass.cache.artifacts import record
from onepass.cache.errors import OnepassError
from onepass.cache.flock import lock_file


@record
class FileSystem:
    """What was found.

    Attributes:
        path: The folder that was asked about.
        kind: Of the file system, such as "ext4" or "nfs4"; "" where the system does not say.
        free: Bytes.
        locks: Why files cannot be locked against other processes; "" where they can.
        maps: Why files cannot be mapped into memory; "" where they can.
    """

    path: Path
    kind: str
    free: int
    locks: str
    maps: str

    @property
    def problem(self) -> str:
        """What keeps rows from being stored there; "" for nothing."""
        return "; ".join(filter(None, (self.locks, self.maps)))


def try_file_system(path: Path) -> FileSystem:
    """Write, lock and map a file in a folder, or where it would be made, and take it away again."""
    path = path.absolute()
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    try:
        with tempfile.NamedTemporaryFile(prefix=".tmp-doctor-", dir=folder) as file:
            file.write(os.urandom(mmap.PAGESIZE))
            file.flush()
            locks, maps = _locks(file.fileno(), Path(file.name)), _maps(file.fileno())
    except OSError as error:
        locks = maps = f"nothing can be written ({error.strerror})"
    return FileSystem(path, _kind(folder), free, locks, maps if maps != locks else "")


def _locks(descriptor: int, path: Path) -> str:
    """Lock an open file; a second lock on it has to be refused."""
    try:
        lock_file(descriptor, wait=False)
    except (OSError, OnepassError) as error:
        return f"files cannot be locked ({error})"
    second = os.open(path, os.O_RDWR)
    try:
        lock_file(second, wait=False)
    except BlockingIOError:
        return ""
    except OSError as error:
        return f"files cannot be locked ({error})"
    finally:
        os.close(second)
    return "a lock does not keep others out"


def _maps(descriptor: int) -> str:
    """Read an open file of one page through a memory map, and compare."""
    try:
        with mmap.mmap(descriptor, mmap.PAGESIZE, access=mmap.ACCESS_READ) as mapped:
            same = mapped[:] == os.pread(descriptor, mmap.PAGESIZE, 0)
    except (OSError, ValueError) as error:
        return f"files cannot be mapped into memory ({error})"
    return "" if same else "a memory map shows other bytes than the file has"


def _kind(folder: Path) -> str:
    """Return the kind of the file system that a folder lies on, as Linux lists what is mounted."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounted = {Path(words[1].replace("\\040", " ")): words[2] for words in map(str.split, lines)}
    real = folder.resolve()
    return next((mounted[p] for p in (real, *real.parents) if p in mounted), "")
