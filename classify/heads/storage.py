"""Heads on disk: `arrays.npz` and `head.json`, numbers and words, never code."""

from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.arrays import map_arrays, unpack_arrays, write_arrays
from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    OnepassError,
    UnreadableFileError,
)
from onepass.cache.files import read_bytes
from onepass.cache.memory import may_be_held
from onepass.cache.provenance import digest_bytes, digest_content
from onepass.classify.heads.base import Head
from onepass.classify.heads.lazy_rows import LazyRows, blocks
from onepass.classify.heads.registry import find_head


@record
class StoredArray:
    """An array of `arrays.npz`, as it must be.

    Attributes:
        shape: Its lengths.
        dtype: NumPy's text for it, such as "<f4".
    """

    shape: tuple[int, ...]
    dtype: str


@record
class HeadRecord(Artifact):
    """A fitted head without its arrays: `head.json`.

    Attributes:
        kind: Its name in the registry.
        version: Of the class that wrote it.
        params: Its hyper-parameters.
        facts: Fitted values that are no arrays; see `Head.FACTS`.
        arrays: By name.
        digest: SHA-256 of `arrays.npz` (hex).
    """

    kind: str
    version: int
    params: dict[str, Any]
    facts: dict[str, Any]
    arrays: dict[str, StoredArray]
    digest: str


def save_head(head: Head, folder: Path) -> None:
    """Write a fitted head; `head.json` comes last and holds the digest of the arrays.

    Raises:
        InvalidInputError: Its classes are neither numbers nor text.
    """
    arrays = {name: stored(getattr(head, name)) for name in head.ARRAYS}
    if arrays["classes_"].dtype == object:
        arrays["classes_"] = arrays["classes_"].astype(str)
    for name, array in arrays.items():
        if array.dtype.kind not in head.ARRAYS[name][1]:
            raise InvalidInputError(f"{head.kind}: {name} of dtype {array.dtype} cannot be stored")
    digest = write_arrays(folder / "arrays.npz", arrays)
    HeadRecord(
        kind=head.kind,
        version=head.version,
        params=head.get_params(deep=False),
        facts={name: getattr(head, name) for name in head.FACTS},
        arrays=_described(arrays),
        digest=digest,
    ).write(folder / "head.json")


def load_head(folder: Path) -> Head:
    """Read a head, after checking that it is what was written.

    Raises:
        MissingFileError: There is none in the folder.
        CorruptFileError: A file is damaged, of another format, or does not fit the other one.
        UnreadableFileError: The system refuses to read one.
    """
    if not (folder / "head.json").exists():
        raise MissingFileError(f"{folder}: no stored head; run the classify command again")
    try:
        record = HeadRecord.read(folder / "head.json")
        kind = find_head(record.kind)
        head = kind(**record.params)
        arrays = _read_arrays(folder / "arrays.npz", record.digest)
        facts = {name: record.facts[name] for name in kind.FACTS}
        _check(kind, arrays, record.arrays, facts["n_features_in_"])
    except UnreadableFileError:
        raise
    except (KeyError, TypeError, ValueError, OSError, OnepassError) as error:
        raise CorruptFileError(
            f"{folder}: expected a stored head, but it cannot be read ({error}). "
            "Delete the folder and run the classify command again"
        ) from error
    for name, value in {**arrays, **facts}.items():
        setattr(head, name, value)
    return head


def stored(value: Any) -> Any:
    """Return what a head has learnt as it is written: an array, or rows that are gathered when they are read."""
    return value if isinstance(value, LazyRows) else np.asarray(value)


def _read_arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file, mapped where the memory budget has no room for them."""
    held = not path.exists() or may_be_held(path.stat().st_size)
    content = read_bytes(path) if held else b""
    if (digest_bytes(content) if held else digest_content(path)) != digest:
        raise ValueError("arrays.npz differs from the digest written with it")
    return unpack_arrays(content) if held else map_arrays(path)


def _described(arrays: dict[str, np.ndarray]) -> dict[str, StoredArray]:
    return {name: StoredArray(array.shape, array.dtype.str) for name, array in arrays.items()}


def _check(
    kind: type[Head],
    arrays: dict[str, np.ndarray],
    recorded: dict[str, StoredArray],
    features: int,
) -> None:
    """Compare names, shapes, dtypes and mutual lengths of the arrays with what a head of this kind holds."""
    received = _described(arrays)
    if received != recorded or set(received) != set(kind.ARRAYS):
        raise ValueError(f"expected arrays {recorded}, received {received}")
    lengths: dict[str, int] = {"D": features}
    for name, (dimensions, kinds) in kind.ARRAYS.items():
        array = arrays[name]
        if array.ndim != len(dimensions) or array.dtype.kind not in kinds:
            raise ValueError(f"{name}: expected {dimensions} of kind {kinds}, received {array.dtype} {array.shape}")  # fmt: skip
        for letter, length in zip(dimensions, array.shape, strict=True):
            if lengths.setdefault(letter, length) != length:
                raise ValueError(
                    f"{name}: expected {letter} = {lengths[letter]}, received {length}"
                )
        if array.dtype.kind == "f" and not _is_finite(array):
            raise ValueError(f"{name} holds NaN or Inf")


def _is_finite(array: np.ndarray) -> bool:
    if array.ndim != 2:
        return bool(np.isfinite(array).all())
    return all(np.isfinite(array[block]).all() for block in blocks(array))
