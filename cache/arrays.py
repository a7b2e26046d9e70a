"""Arrays by name in one `.npz` file: ours stored as they are, never compressed, never pickled.

The reader is not `numpy.load`, which allocates what a member's header asks for and raises whatever its
parsers do: here each member is compared with the bytes that are there, before anything is made of it.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from onepass.cache.files import atomic_path
from onepass.cache.memory_map import RowMap
from onepass.cache.provenance import array_bytes, digest_content

KINDS = "biufcUS"  # of numbers and text, as `numpy.dtype.kind` has them
SUFFIX = ".npy"
MOST_GROWTH, MOST_UNPACKED = 200, 1 << 32  # of a compressed file: times, and bytes in all


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays as the bytes of an `.npz` file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    _write(buffer, {name: np.asanyarray(array) for name, array in arrays.items()})
    return buffer.getvalue()


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> str:
    """Write such a file atomically; return `digest_bytes` of its bytes.

    Args:
        path: The file.
        arrays: By name; what is read by `array[begin:end]`, and not whole in memory, will do.
    """
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            _write(file, arrays)
        return digest_content(temporary)


def remembered(
    path: Path, key: Mapping[str, np.ndarray], name: str, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """Return the array that such a file holds beside an equal key, else make it, and keep it there.

    Args:
        path: The file; a damaged one is none.
        key: Arrays by name, which say what it is the array of.
        name: Of the array.
        make: Makes it.
    """
    try:
        kept = unpack_arrays(path.read_bytes())
        if all(np.array_equal(kept[part], array) for part, array in key.items()):
            return kept[name]
    except (OSError, ValueError, KeyError):
        pass  # none yet, or damaged
    made = make()
    write_arrays(path, {**key, name: made})
    return made


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file of ours as read-only memory maps: its bytes were compared with their digests.

    Raises:
        ValueError: They are not what `pack_arrays` makes.
    """
    found: dict[str, np.ndarray] = {}
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        size, members = path.stat().st_size, archive.infolist()
        _check_members(members, size)
        for member in members:
            file.seek(member.header_offset + 26)  # lengths of the name and of what follows it
            start = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
            if start + member.file_size > size:
                raise ValueError(f"{member.filename} ends beyond the file")
            file.seek(start)
            shape, order, dtype = _header(file, member.file_size)
            if order == "F":
                raise ValueError(
                    f"{member.filename} lies in the order of Fortran, which is not mapped"
                )
            empty = 0 in shape  # there is nothing to be mapped
            found[member.filename.removesuffix(SUFFIX)] = (
                np.empty(shape, dtype) if empty else RowMap(path, file, dtype, file.tell(), shape)
            )
    return found


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file of ours as read-only memory maps, after comparing its bytes with their checksums.

    Raises:
        ValueError: They are not what `pack_arrays` makes.
        OSError: The system refuses to read it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive.infolist(), path.stat().st_size)
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} is not what was written")
        return map_arrays(path)
    except OSError:
        raise
    except Exception as error:  # as in `unpack_arrays`
        reason = f"{error}"[:200] or type(error).__name__
        raise ValueError(f"not a file of arrays: {reason}") from error


def unpack_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file's bytes; together they are no larger than the file.

    Raises:
        ValueError: They are not what `pack_arrays` makes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            _check_members(members, len(content))
            return {m.filename.removesuffix(SUFFIX): _array(archive.read(m)) for m in members}
    except Exception as error:  # zipfile and NumPy's parser of headers raise nearly anything
        alone = " (a single array)" if content.startswith(np.lib.format.MAGIC_PREFIX) else ""
        reason = f"{error}"[:200] or type(error).__name__
        raise ValueError(f"not a file of arrays{alone}: {reason}") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file of another program, which may have compressed them.

    Raises:
        ValueError: They are none, of objects, or larger than `MOST_GROWTH` and `MOST_UNPACKED` allow.
        OSError: The system refuses to read it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            most = min(MOST_GROWTH * path.stat().st_size, MOST_UNPACKED)
            _check_members(members, most, packed=True)
            return {m.filename.removesuffix(SUFFIX): _array(archive.read(m)) for m in members}
    except OSError:
        raise
    except Exception as error:  # as in `unpack_arrays`
        raise ValueError(
            f"not a file of arrays: {f'{error}'[:200] or type(error).__name__}"
        ) from error


def _write(file: IO[bytes], arrays: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(name + SUFFIX, "w", force_zip64=True) as member:
                if isinstance(array, np.ndarray):
                    np.lib.format.write_array(member, array, allow_pickle=False)
                    continue
                described = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(member, described)
                for part in array_bytes(array):
                    member.write(part)


def _check_members(members: list[zipfile.ZipInfo], most: int, *, packed: bool = False) -> None:
    """Refuse what arrays do not need; together they may have `most` bytes."""
    names = {member.filename for member in members}
    if len(names) != len(members) or not all(name.endswith(SUFFIX) for name in names):
        raise ValueError(f"expected arrays of different names, each ending with {SUFFIX}")
    if not packed and any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("a member is compressed, which Onepass never does")
    if sum(member.file_size for member in members) > most:
        raise ValueError(f"its members are larger than {'is allowed' if packed else 'the file'}")


def _array(member: bytes) -> np.ndarray:
    """Return the array of a member, after comparing its header with its bytes."""
    stream = io.BytesIO(member)
    shape, order, dtype = _header(stream, len(member))
    flat = np.frombuffer(member, dtype, math.prod(shape), stream.tell())
    if dtype.kind == "U":
        codes = flat.view(f"{dtype.str[0]}u4")
        if codes.size and (codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes < 0xE000)).any()):
            raise ValueError("text that is not Unicode")
    return np.array(flat.reshape(shape, order=order))


def _header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Read the header of a member of `size` bytes; return shape, order and dtype of the bytes that follow it."""
    begin = stream.tell()
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran_order, dtype = read[version](stream)
    if dtype.kind not in KINDS or dtype.itemsize == 0:
        raise ValueError(
            f"dtype {str(dtype)[:40]}, expected numbers or text (objects are never read)"
        )
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"shape {str(shape)[:80]}")
    left, count = size - (stream.tell() - begin), math.prod(shape)
    if count * dtype.itemsize != left:
        raise ValueError(f"an array of {count:,} × {dtype} has {left:,} bytes in the file")
    return shape, "F" if fortran_order else "C", dtype
