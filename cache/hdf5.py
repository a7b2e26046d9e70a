"""HDF5 files of ours: created and opened here only, with the few of HDF5's means that we use.

A file holds plain arrays of numbers, contiguous, at most one group deep, and fixed-length attributes:

    text     group `<name>` of `utf8` (bytes,) uint8 and `offsets` (N + 1,) int64: entry i is utf8[offsets[i]:offsets[i + 1]]
    JSON     dataset (bytes,) uint8 of ASCII JSON
    digests  uint8

No variable-length string: HDF5 keeps those in a heap without checksums and loops for ever where that is
damaged. All its own structures are written in the form of HDF5 1.8, which carries checksums. Everything
else that HDF5 can do (links, virtual and external storage, filters, other types) is refused, before any
value is read, for a file may come from a stranger.
"""

import io
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5f, h5fd, h5g, h5l, h5o, h5p, h5t

from onepass.cache.errors import (
    CorruptFileError,
    EarlierFormatError,
    InvalidInputError,
    MissingFileError,
    OnepassError,
    Remedy,
    UnreadableFileError,
    refused_by_system,
    unreadable,
)

DTYPES = frozenset(
    map(np.dtype, ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"))
)
MOST_OBJECTS = 1000  # of a file; ours have about a dozen
MOST_ATTRIBUTES = 32  # of an object
DEEPEST = 1  # groups below the root
ATTRIBUTE_BYTES = 1 << 16

# What h5py, NumPy and json may raise over wrong bytes.
WRONG_BYTES = (OSError, LookupError, ValueError, RuntimeError, AttributeError, TypeError, RecursionError, OverflowError, MemoryError)  # fmt: skip


class _Target(io.FileIO):
    """A file that HDF5 writes, which keeps a refused write to itself: HDF5 crashes in its clean-up after one.

    Attributes:
        refused: The first error of the system; what was written from then on is lost.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.refused: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it; return how many bytes that are."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        with self._remembering():
            while rest:
                rest = rest[super().write(rest) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        """Make the file so many bytes long."""
        with self._remembering():
            return super().truncate(size)
        return size or 0

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # a new one: the frames of this one hold memory of HDF5, which is gone when they are cleared
            self.refused = self.refused or OSError(error.errno, error.strerror)


@contextmanager
def create_hdf5(target: Path | io.BytesIO, *, align: bool = False) -> Iterator[h5py.File]:
    """Create a file, on disk or in memory; the same content gives the same bytes.

    Args:
        target: A file that is overwritten, or a buffer.
        align: Let large arrays begin at multiples of 4096 bytes.

    Raises:
        OSError: The system refused a write.
    """
    buffer = target if isinstance(target, io.BytesIO) else _Target(target)
    try:
        with h5py.File(_create(str(target), buffer, align)) as file:
            yield file
    finally:
        if isinstance(buffer, _Target):
            buffer.close()
    if isinstance(buffer, _Target) and buffer.refused:
        raise buffer.refused


def _create(name: str, buffer: io.BytesIO | io.FileIO, align: bool) -> h5f.FileID:
    # In a frame of its own: an error keeps the frames that it passed, and these lists crash the process at its
    # end where they are still there.
    created, access = h5p.create(h5p.FILE_CREATE), h5p.create(h5p.FILE_ACCESS)
    created.set_obj_track_times(False)
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    if align:
        access.set_alignment(1 << 16, 1 << 12)
    access.set_fileobj_driver(h5fd.fileobj_driver, buffer)
    return h5f.create(os.fsencode(name), h5f.ACC_TRUNC, created, access)


@contextmanager
def open_hdf5(
    path: Path,
    expected: str = "a file of Onepass",
    advice: str = "",
    *,
    form: int | None = None,
    long_strings: bool = False,
) -> Iterator[h5py.File]:
    """Open a finished file for reading, after checking all that it holds but its values.

    The file never changes, so that no lock is needed. What goes wrong in the block because the values
    are not what the reader expects is an error of the file too.

    Args:
        path: The file.
        expected: What it should be, for the error.
        advice: How to mend it, for the error; begins with ". " where it is not empty.
        form: The only value of its attribute `format` that the reader knows; None for a file without.
        long_strings: Let strings of variable length pass: format 1 has them. Reading one may never end.

    Raises:
        MissingFileError: There is none.
        UnreadableFileError: It is no file, or the system refuses to read it.
        EarlierFormatError: Its format is an earlier one. Nothing else of it was read.
        CorruptFileError: It is no HDF5 file, is cut short, or holds what no file of ours does.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UnreadableFileError(f"{path}: expected a file, found a folder, a pipe or a device")
    try:
        with _open(path) as file:
            if form is not None:
                _check_format(path, file, form)
            _check_tree(file, long_strings=long_strings)
            yield file
    except OnepassError as error:
        if not isinstance(error, CorruptFileError) or str(path) in str(error):
            raise
        raise CorruptFileError(
            f"{path}: expected {expected}, but it cannot be read ({error}){advice}"
        ) from error
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except WRONG_BYTES as error:
        if refused_by_system(error):
            raise unreadable(path, error) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorruptFileError(
            f"{path}: expected {expected}, but it cannot be read ({reason}){advice}"
        ) from error


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")  # this process has it open already, with h5py's own default


def write_json(group: h5py.Group, name: str, value: Any) -> bytes:
    """Write a JSON value into a dataset of its own and return its bytes; lone surrogates survive as escapes."""
    text = json.dumps(value, allow_nan=False).encode("ascii")
    group.create_dataset(name, data=np.frombuffer(text, np.uint8))
    return text


def read_json(group: h5py.Group, name: str) -> Any:
    """Return a JSON value that `write_json` wrote."""
    return json.loads(read_bytes(group, name))


def read_bytes(group: h5py.Group, name: str) -> bytes:
    """Return the bytes of a uint8 dataset."""
    return _array(group, name, np.uint8).tobytes()


def write_texts(group: h5py.Group, name: str, texts: Sequence[str]) -> None:
    """Write N texts as a group of their UTF-8 bytes and offsets.

    Raises:
        InvalidInputError: One is no text: a file name that is not UTF-8 has lone surrogates.
    """
    encoded = []
    for number, text in enumerate(texts):
        try:
            encoded.append(text.encode())
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"{name}: expected text that UTF-8 can express, but entry {number} is {text!r}; rename it"
            ) from error
    inner = create_group(group, name)
    inner.create_dataset("utf8", data=np.frombuffer(b"".join(encoded), np.uint8))
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    inner.create_dataset("offsets", data=np.concatenate([[0], np.cumsum(lengths)]).astype("<i8"))


def read_texts(group: h5py.Group, name: str) -> list[str]:
    """Return the texts that `write_texts` wrote."""
    inner = group[name]
    content, offsets = read_bytes(inner, "utf8"), _array(inner, "offsets", np.int64)
    whole = len(offsets) and offsets[0] == 0 and offsets[-1] == len(content)
    if not whole or np.any(np.diff(offsets) < 0):
        raise ValueError(f"{inner.name}: its offsets do not divide its {len(content)} bytes")
    ends = offsets.tolist()
    return [content[a:b].decode() for a, b in itertools.pairwise(ends)]


def write_attribute(group: h5py.Group, name: str, value: str | int) -> None:
    """Write an attribute of fixed length: a number, or ASCII text."""
    group.attrs[name] = np.bytes_(value, "ascii") if isinstance(value, str) else np.int64(value)


def read_attribute(group: h5py.Group, name: str) -> str | int:
    """Return an attribute that `write_attribute` wrote."""
    value = group.attrs[name]
    return value.decode("ascii") if isinstance(value, bytes) else int(value)


def create_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Create a group without the times that h5py would put into it."""
    created = h5p.create(h5p.GROUP_CREATE)
    created.set_obj_track_times(False)
    return h5py.Group(h5g.create(parent.id, name.encode(), gcpl=created))


def file_of(file: h5py.File) -> io.BufferedReader:
    """Return the very file that is open, to be mapped: its path may have become that of another."""
    return os.fdopen(os.dup(file.id.get_vfd_handle()), "rb")


def _array(group: h5py.Group, name: str, dtype: type) -> np.ndarray:
    dataset = group[name]
    if dataset.dtype != dtype or dataset.ndim != 1:
        raise ValueError(
            f"{dataset.name}: expected (n,) {np.dtype(dtype)}, found {dataset.shape} {dataset.dtype}"
        )
    return dataset[()]


def _check_format(path: Path, file: h5py.File, known: int) -> None:
    attribute = h5a.open(file.id, b"format")
    if not isinstance(attribute.get_type(), h5t.TypeIntegerID) or attribute.shape != ():
        raise ValueError("its attribute 'format' is not a number")
    found = int(file.attrs["format"])
    if found < known:
        raise EarlierFormatError(
            f"{path}: expected format {known}, found format {found} of an earlier Onepass",
            remedy=Remedy("migrate"),
        )
    if found > known:
        raise ValueError(f"it has format {found} of a later Onepass, this one reads format {known}")


def _check_tree(file: h5py.File, *, long_strings: bool) -> None:
    """Raise ValueError where anything in the file is not of the kinds that ours are made of."""
    size = os.fstat(file.id.get_vfd_handle()).st_size
    declared, objects = 0, 0
    waiting: list[tuple[str, Any, int]] = [("/", file.id, 0)]
    while waiting:
        where, item, depth = waiting.pop()
        _check_attributes(where, item, long_strings=long_strings)
        if isinstance(item, h5d.DatasetID):
            declared += _check_dataset(where, item, size, long_strings=long_strings)
            if declared > size:
                raise ValueError(f"its arrays would hold more than the {size} bytes of the file")
            continue
        group = h5g.open(item, b"/") if isinstance(item, h5f.FileID) else item
        if not isinstance(group, h5g.GroupID) or depth > DEEPEST:
            raise ValueError(f"{where} is neither an array nor a group of arrays")
        objects += len(group)
        if objects > MOST_OBJECTS:
            raise ValueError(f"it holds more than {MOST_OBJECTS} objects")
        names: list[bytes] = []
        # in native order, for to sort damaged names HDF5 (1.14.6) reads memory that is not its own
        group.links.iterate(names.append, order=h5.ITER_NATIVE)
        for name in names:
            inner = f"{where.rstrip('/')}/{name.decode(errors='backslashreplace')}"
            if group.links.get_info(name).type != h5l.TYPE_HARD:
                raise ValueError(f"{inner} is a link to another place")
            waiting.append((inner, h5o.open(group, name), depth + 1))


def _check_attributes(where: str, item: Any, *, long_strings: bool) -> None:
    count = h5a.get_num_attrs(item)
    if count > MOST_ATTRIBUTES:
        raise ValueError(f"{where} has {count} attributes")
    for index in range(count):
        attribute = h5a.open(item, index=index)
        kind = attribute.get_type()
        if isinstance(kind, h5t.TypeStringID):
            plain = long_strings or not kind.is_variable_str()
        else:
            plain = isinstance(kind, h5t.TypeIntegerID | h5t.TypeFloatID)
        if not plain or kind.get_size() * math.prod(attribute.shape) > ATTRIBUTE_BYTES:
            raise ValueError(f"an attribute of {where} is no number or short text")


def _check_dataset(where: str, dataset: h5d.DatasetID, size: int, *, long_strings: bool) -> int:
    """Return how many bytes a dataset declares, after checking its type and where its values lie."""
    kind, created, shape = dataset.get_type(), dataset.get_create_plist(), dataset.shape
    is_string = isinstance(kind, h5t.TypeStringID) and kind.is_variable_str()
    is_number = isinstance(kind, h5t.TypeIntegerID | h5t.TypeFloatID) and kind.dtype in DTYPES
    if kind.committed() or not (is_number or (is_string and long_strings)):
        raise ValueError(f"{where} is of a type that no file of ours has")
    layout = created.get_layout()
    if layout not in (h5d.CONTIGUOUS, h5d.COMPACT) or created.get_external_count():
        raise ValueError(
            f"{where} lies in pieces or in another file, expected one contiguous array"
        )
    if shape is None:
        raise ValueError(f"{where} has no shape")
    bytes_ = math.prod(shape) * kind.get_size()
    offset = dataset.get_offset() if layout == h5d.CONTIGUOUS else 0
    if bytes_ and (offset is None or offset + bytes_ > size):
        raise ValueError(
            f"{where} declares {bytes_} bytes that the file, of {size} bytes, does not hold"
        )
    return bytes_
