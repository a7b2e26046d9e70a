"""A tree of files, in a folder or inside an archive, that is read in place and never unpacked there.

Zips come from strangers: every member's name, kind and size is checked before the first is read.
"""

import errno
import os
import stat
import tempfile
import time
import zipfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import numpy as np

from onepass.cache.content import source_of
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    refused_by_system,
    unreadable,
)
from onepass.cache.progress import human_bytes
from onepass.cache.provenance import digest_json

JUST_NOW = 2_000_000_000  # ns; a file system may give two changes within it the same time
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
STORED_WAYS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
HEADER = 30  # bytes before the name of a member
ENCRYPTED = 1  # bit of a member's flags
DANGLING, NO_FILE = "a dangling link", "no such file"
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # what a dangling link gives
# Thumbnails, trash and notes of file managers and network drives, beside all names that begin with a dot.
SYSTEM_FOLDERS = frozenset(
    {
        "__macosx", "$recycle.bin", "system volume information", "lost+found", "found.000",
        "@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "@__thumb",
        "#recycle", "#snapshot", "network trash folder", "temporary items",
    }
)  # fmt: skip
SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".ds_store", "icon\r"}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold; more is refused as an attack or a mistake.

    Attributes:
        members: Files and folders.
        name: Characters of a member's name.
        member_bytes: Bytes of one member, unpacked; also of a file in a folder.
        growth: Bytes by which a member may grow while it is unpacked, which each thread may do at a time.
        total_bytes: Bytes of all members, unpacked.
        ratio: Times that a member over 1 MB may grow while it is unpacked.
    """

    members: int = 5_000_000
    name: int = 512
    member_bytes: int = 1 << 30
    growth: int = 1 << 27
    total_bytes: int = 1 << 38
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class Tree:
    """Files by relative name, "/" between the parts; hidden ones and those of the system are left out.

    Attributes:
        path: The folder or the zip.
        files: Names, sorted; also of links that lead nowhere.
        folders: Names of all folders, also of empty ones.
        identity: What tells cheaply whether the tree is another than before: of a zip, names, sizes
            and CRC-32 of its members as its directory lists them; of a folder, names, sizes and
            times of change.
        opener: Opens a file by its name below `path`.
        left_out: How many files of the whole tree were left out, by kind, such as {"in @eaDir": 12}.
        states: What the system, or the zip's directory, says of a file by its name below `path`: what is
            another once the file is. Without those that changed a moment ago and may do so again unseen.
        prefix: Folder inside of `path` that the names are relative to.
    """

    path: Path
    files: tuple[str, ...]
    folders: frozenset[str]
    identity: dict[str, Any]
    opener: Callable[[str], IO[bytes]]
    left_out: Counter[str]
    states: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    prefix: str = ""

    def stamp(self, name: str) -> bytes:
        """Return what tells without reading a file that it is as it was, 16 bytes; none where nothing does."""
        state = self.states.get(self.prefix + name)
        return source_of(repr((self.prefix + name, *state)).encode()).tobytes() if state else b""

    def read(self, name: str, limit: int = -1) -> bytes:
        """Return a file's bytes, or the first `limit` of them.

        Raises:
            MissingFileError: It is not there (any more), or is a link that leads nowhere.
            UnreadableFileError: The system refuses to read it.
            CorruptFileError: It cannot be unpacked, or its checksum is wrong.
            InvalidInputError: It is larger than any image.
        """
        most = Limits().member_bytes
        try:
            with self.opener(self.prefix + name) as file:
                content = file.read(limit if limit >= 0 else most + 1)
        except Exception as error:  # zipfile raises nearly anything on a damaged member
            if isinstance(error, OSError) and error.errno in NOWHERE:
                is_link = (self.path / self.prefix / name).is_symlink()
                why = DANGLING if is_link else NO_FILE
                raise MissingFileError(f"{self.prefix}{name}: {why}") from error
            if refused_by_system(error):
                raise unreadable(f"{self.path}: {self.prefix}{name}", error) from error
            raise CorruptFileError(
                f"{self.path}: {self.prefix}{name} cannot be read ({error})"
            ) from error
        if len(content) > most:
            raise InvalidInputError(f"{self.prefix}{name}: more than {human_bytes(most)}")
        return content

    def below(self, folder: str) -> "Tree":
        """Return the tree inside one of its folders ("" is the tree itself)."""
        if not folder:
            return self
        start = folder + "/"
        return replace(
            self,
            files=tuple(n.removeprefix(start) for n in self.files if n.startswith(start)),
            folders=frozenset(n.removeprefix(start) for n in self.folders if n.startswith(start)),
            prefix=self.prefix + start,
        )


@contextmanager
def open_tree(
    path: Path, limits: Limits | None = None, scratch: Path | None = None
) -> Iterator[Tree]:
    """Open a folder, a zip or a tar for reading.

    Args:
        path: The folder, the zip or the tar.
        limits: What an archive may hold.
        scratch: Folder for the unpacked copy of a compressed tar; the system's own by default.

    Raises:
        MissingFileError: There is neither.
        CorruptFileError: The file is no zip, or is cut short.
        UnreadableFileError: The system refuses to read it.
        InvalidInputError: The zip holds something that a data set does not need and an attack does, or
            it is a pipe or a device.
    """
    if path.is_dir():
        yield _folder_tree(path)
        return
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder; expected a folder, a zip or a tar")
    if not path.is_file():
        raise InvalidInputError(f"{path}: expected a folder, zip or tar, found a pipe or a device")
    if path.name.lower().endswith(TARS):
        from onepass.data.tars import open_tar

        with open_tar(path, limits or Limits(), scratch or Path(tempfile.gettempdir())) as tree:
            yield tree
        return
    with _open_zip(path) as archive:
        _check_members(path, archive.infolist(), limits or Limits())
        yield _zip_tree(path, archive)


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises nearly anything on a damaged directory
        if refused_by_system(error):
            raise unreadable(path, error) from error
        _read_one_byte(path)
        raise CorruptFileError(
            f"{path}: expected a folder or a zip, but it cannot be read as a zip ({error}); "
            "if it was downloaded or copied, it is probably cut short: get it again"
        ) from error


def _read_one_byte(path: Path) -> None:
    """Raise UnreadableFileError where the system refuses to read a file, which zipfile takes for a file of another kind."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise unreadable(path, error) from error


class _Members(Mapping[str, tuple[int | str, ...]]):
    """What a zip's directory says of its files, as `Tree.states`, kept as numbers: a `ZipInfo` takes 600 bytes.

    Args:
        path: The zip.
        archive: The same, open; it forgets its directory.
    """

    SAID = ("header_offset", "compress_size", "file_size", "CRC", "compress_type", "flag_bits")

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        infos = sorted(archive.infolist(), key=attrgetter("filename"))
        self.archive, self.names = archive, [info.filename for info in infos]
        size = path.stat().st_size
        for info in infos:  # a place beyond all that a file may have: it is found where it is read
            info.header_offset = min(info.header_offset, size)
        said, when = attrgetter(*self.SAID), attrgetter("date_time")
        self.said = np.fromiter(map(said, infos), np.dtype((np.int64, len(self.SAID))), len(infos))
        self.when = np.fromiter(map(when, infos), np.dtype((np.int16, 6)), len(infos))
        places = self.said[:, self.SAID.index("header_offset")]
        begins = np.unique(places)
        self.ends = np.append(begins[1:], archive.start_dir)[np.searchsorted(begins, places)]
        # A name that was cut at a NUL, say: zipfile compares it as it stood in the directory.
        self.stood = {i.filename: i.orig_filename for i in infos if i.filename != i.orig_filename}
        archive.filelist.clear()
        archive.NameToInfo.clear()

    def listing(self) -> list[list]:
        """Return name, size (bytes) and CRC-32 of each, by name."""
        columns = (self.said[:, self.SAID.index(name)].tolist() for name in ("file_size", "CRC"))
        return list(map(list, zip(self.names, *columns, strict=True)))

    def open(self, name: str) -> IO[bytes]:
        at, info = self._at(name), zipfile.ZipInfo(self.stood.get(name, name))
        for field_name, value in zip(self.SAID, self.said[at].tolist(), strict=True):
            setattr(info, field_name, value)
        if info.header_offset + HEADER + len(info.filename) + info.compress_size > self.ends[at]:
            raise zipfile.BadZipFile("it overlaps another file")  # not every Python looks
        return self.archive.open(info)

    def __getitem__(self, name: str) -> tuple[int | str, ...]:
        at = self._at(name)
        said = dict(zip(self.SAID, self.said[at].tolist(), strict=True))
        return said["CRC"], said["file_size"], str(tuple(self.when[at].tolist()))

    def _at(self, name: str) -> int:
        at = bisect_left(self.names, name)
        if at == len(self.names) or self.names[at] != name:
            raise KeyError(name)
        return at

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _zip_tree(path: Path, archive: zipfile.ZipFile) -> Tree:
    members = _Members(path, archive)
    left_out: Counter[str] = Counter()
    names = []
    for name in members:
        if not (kind := set_aside(name)):
            names.append(name)
        elif not name.endswith("/"):
            left_out[kind] += 1
    files = tuple(name for name in names if not name.endswith("/"))
    folders = {name.rstrip("/") for name in names if name.endswith("/")}
    identity = {"kind": "zip", "digest": digest_json(members.listing())}
    return Tree(
        path, files, with_parents(files, folders), identity, members.open, left_out, members
    )


def _folder_tree(path: Path) -> Tree:
    listing: list[list] = []
    folders: set[str] = set()
    left_out: Counter[str] = Counter()
    now = time.time_ns()
    try:
        _scan(path, listing, folders, left_out)
    except OSError as error:
        raise unreadable(error.filename or path, error) from error
    listing.sort()
    names = tuple(name for name, _, _ in listing)
    for name in [*names, *folders]:
        _check_text(path, name)
    identity = {"kind": "folder", "digest": digest_json(listing)}
    place = str(path.resolve())
    states = {
        n: (place, size, changed)
        for n, size, changed in listing
        if changed < now - JUST_NOW and size >= 0
    }

    def opener(name: str) -> IO[bytes]:
        return (path / name).open("rb")

    return Tree(path, names, frozenset(folders), identity, opener, left_out, states)


class _States(Mapping):
    """What the system says of a file below a folder, asked when it is wanted; as `Tree.states`."""

    def __init__(self, path: Path) -> None:
        self.path, self.place, self.now = str(path), str(path.resolve()), time.time_ns()

    def __getitem__(self, name: str) -> tuple[int | str, ...]:
        try:
            # of a million files in a table; pathlib would take five times as long
            found = os.stat(os.path.join(self.path, name))  # noqa: PTH116, PTH118
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise KeyError(name) from error
        if not stat.S_ISREG(found.st_mode) or found.st_mtime_ns >= self.now - JUST_NOW:
            raise KeyError(name)
        return self.place, found.st_size, found.st_mtime_ns

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def files_by_name(path: Path) -> Tree:
    """Return a folder whose files somebody else names, such as a table; it is not looked through."""

    def opener(name: str) -> IO[bytes]:
        if not stat.S_ISREG((path / name).stat().st_mode):
            raise InvalidInputError("expected a file, found a folder, pipe or device")
        return (path / name).open("rb")

    return Tree(path, (), frozenset(), {}, opener, Counter(), _States(path))


def _scan(top: Path, listing: list[list], folders: set[str], left_out: Counter[str]) -> None:
    """Add [name, size, time of change] of every file; a link to a folder above is not entered."""
    waiting: list[tuple[str, frozenset]] = [("", frozenset())]  # names, and what they lie in
    while waiting:
        above, ancestors = waiting.pop()
        folder = top / above
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in ancestors:
            left_out["link to a folder above it"] += 1
        else:
            found = _scan_one(folder, above, listing, left_out)
            folders.update(found)
            waiting += [(f"{name}/", ancestors | {here}) for name in found]


def _scan_one(folder: Path, above: str, listing: list[list], left_out: Counter[str]) -> list[str]:
    """Add the files that lie in a folder itself; return the names of the folders in it."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = above + entry.name
            found = _status(entry)
            is_folder = found is not None and stat.S_ISDIR(found.st_mode)
            if kind := set_aside(entry.name + "/" * is_folder):
                left_out[kind] += _count_files(entry.path) if is_folder else 1
            elif found is None:
                listing.append([name, -1, 0])
            elif is_folder:
                folders.append(name)
            elif stat.S_ISREG(found.st_mode):
                listing.append([name, found.st_size, found.st_mtime_ns])
            else:
                left_out["pipe or device"] += 1
    return folders


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return what the system says of a file or folder; None for a link that leads nowhere."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno in NOWHERE:
            return None
        raise


def _count_files(folder: str) -> int:
    """Return how many files lie below a folder, as far as it may be looked into."""
    count, waiting = 0, [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    count += 1
    return count


def with_parents(files: tuple[str, ...], folders: set[str]) -> frozenset[str]:
    found = set(folders)
    for name in [*files, *folders]:
        while "/" in name:
            name = name.rpartition("/")[0]
            if name in found and name not in folders:
                break
            found.add(name)
    return frozenset(found)


def set_aside(name: str) -> str:
    """Return as what a file, or a folder whose name ends with "/", is left out; "" where it is not."""
    *folders, last = name.split("/")
    for part in folders:
        if part.startswith(".") or part.casefold() in SYSTEM_FOLDERS:
            return f"in {part}"
    if last.casefold() in SYSTEM_FILES:
        return last.strip()
    return "hidden" if last.startswith(".") else ""


def _check_text(path: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{path}: file name {name!a} is not UTF-8; rename it") from error


def _check_members(path: Path, infos: list[zipfile.ZipInfo], limits: Limits) -> None:
    """Refuse a zip by its directory alone, before anything in it is unpacked."""
    if len(infos) > limits.members:
        raise refused(path, f"{len(infos):,} members, more than {limits.members:,}")
    names: set[str] = set()
    for info in infos:
        if why := _objection(info, limits):
            raise refused(path, f"{info.filename[:80]!r} {why}")
        if info.filename in names:
            raise refused(path, f"{info.filename!r} is in it twice")
        names.add(info.filename)
    total = sum(info.file_size for info in infos)
    if total > limits.total_bytes:
        raise refused(
            path, f"{human_bytes(total)} unpacked, more than {human_bytes(limits.total_bytes)}"
        )
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise refused(path, "its members overlap")


def refused(path: Path, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path}: refused as unsafe: {why}. If you trust it, unpack it yourself and give the folder"
    )


def name_objection(name: str, limits: Limits) -> str:
    """Return what speaks against a member's name; "" for nothing."""
    if len(name) > limits.name:
        return f"has a name of {len(name)} characters, more than {limits.name}"
    if name.startswith("/") or "\\" in name or name[1:2] == ":":
        return "is an absolute name, or not one with / between its parts"
    if any(part in ("", ".", "..") for part in name.rstrip("/").split("/")):
        return "leaves its folder, or has an empty part"
    return ""


def _objection(info: zipfile.ZipInfo, limits: Limits) -> str:
    """Return what speaks against a member; "" for nothing."""
    if why := name_objection(info.filename, limits):
        return why
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in STORED_WAYS:
        return "is packed in a way other than stored or deflated"
    if info.file_size > limits.member_bytes:
        return f"has {human_bytes(info.file_size)}, more than {human_bytes(limits.member_bytes)}"
    if info.file_size > max(1_000_000, limits.ratio * info.compress_size):
        return f"would grow more than {limits.ratio} times"
    if info.file_size - info.compress_size > limits.growth:
        return f"would grow by more than {human_bytes(limits.growth)}"
    return ""
