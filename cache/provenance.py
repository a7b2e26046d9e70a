"""Digests, and why a file is stale."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 1 << 22  # bytes read at a time


def digest_bytes(*parts: bytes | memoryview) -> str:
    """Return the SHA-256, in hex, of the parts' lengths and contents (so that ("ab", "c") is not ("a", "bc"))."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def digest_array(array: np.ndarray) -> str:
    """Return the SHA-256, in hex, of an array's dtype, shape and values in C order."""
    header, total = f"{array.dtype.str}{array.shape}".encode(), hashlib.sha256()
    size = array.size * array.dtype.itemsize
    for count, parts in ((len(header), [header]), (size, array_bytes(array))):  # as `digest_bytes`
        total.update(count.to_bytes(8, "little"))
        for part in parts:
            total.update(part)
    return total.hexdigest()


def array_bytes(array: Any) -> Iterator[memoryview]:
    """Yield the bytes of an array in C order, of one that is not so, or not in memory, block by block."""
    if not array.size:
        return
    if not array.ndim or (isinstance(array, np.ndarray) and array.flags.c_contiguous):
        yield np.ascontiguousarray(array).data.cast("B")
        return
    rows = max(1, BLOCK * len(array) // (array.size * array.dtype.itemsize))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).data.cast("B")


def digest_json(value: Any) -> str:
    """Return the SHA-256, in hex, of a JSON value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def digest_file(path: Path) -> str:
    """Return the SHA-256, in hex, of a file's bytes, as `sha256sum` prints it."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def digest_content(path: Path) -> str:
    """Return `digest_bytes` of a file's bytes, which are not held."""
    total = hashlib.sha256(path.stat().st_size.to_bytes(8, "little"))
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say in words how two sets of inputs differ: `size: 96, now 128; weights: …`."""

    def brief(value: Any) -> str:
        text = str(value)
        return text if len(text) <= 24 else text[:20] + "…"

    names = [name for name in {**recorded, **wanted} if recorded.get(name) != wanted.get(name)]
    return "; ".join(
        f"{name}: {brief(recorded.get(name))}, now {brief(wanted.get(name))}" for name in names
    )
