"""Local weights files: digest first, then a look inside, then Keras's loader. Never load_model."""

import math
import warnings
from pathlib import Path
from typing import Any

import h5py

from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    OnepassError,
    refused_by_system,
    unreadable,
)
from onepass.cache.hdf5 import WRONG_BYTES
from onepass.cache.provenance import digest_file

SUFFIXES = (".h5", ".hdf5")
MOST_GROWTH = 20  # times that a file's arrays may be larger than the file; weights hardly shrink


def check_exists(path: Path) -> None:
    """MissingFileError unless `path` is a file."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such weights file; check the path given with --weights")


def check_digest(where: str, found: str, expected: str | None) -> None:
    """Compare two SHA-256 digests, in hex, with or without the prefix `sha256:`.

    Raises:
        CorruptFileError: They differ; names both.
    """
    if expected is None:
        return
    wanted = expected.lower().removeprefix("sha256:")
    if found != wanted:
        raise CorruptFileError(
            f"{where}: expected SHA-256 {wanted}, received {found}; "
            "fetch the file again, or give the digest of the file that you mean"
        )


def checked_digest(path: Path, expected: str | None) -> str:
    """Return the file's SHA-256 in hex, after comparing it with `expected` if there is one."""
    check_exists(path)
    found = digest_file(path)
    check_digest(str(path), found, expected)
    return found


def count_numbers(path: Path) -> int:
    """Return how many floating-point weights an HDF5 weights file holds (optimizer state left out).

    Raises:
        InvalidInputError: The name does not end as a weights file's does, or the file points outside
            itself (HDF5 links or external storage), holds more than numbers, or would grow without measure.
        CorruptFileError: It is truncated or no HDF5 file at all.
        UnreadableFileError: The system refuses to read it.
    """
    check_exists(path)
    if path.suffix not in SUFFIXES:
        raise InvalidInputError(
            f"{path}: expected a weights file named *.weights.h5 or *.h5, received *{path.suffix}; "
            "save one with model.save_weights"
        )
    try:
        with h5py.File(path, "r") as file:
            return _count(file, path)
    except OnepassError:
        raise
    except (*WRONG_BYTES, SystemError) as error:  # the last: h5py, where HDF5 fails in a callback
        if refused_by_system(error):
            raise unreadable(path, error) from error
        raise CorruptFileError(
            f"{path}: expected an HDF5 weights file, but it is truncated or of another format; "
            "fetch or save it again"
        ) from error


def _count(file: h5py.File, path: Path) -> int:
    links: list[
        tuple[str, Any]
    ] = []  # h5py cannot pass an exception through, so look at them later
    file.visititems_links(lambda name, link: links.append((name, link)))
    total = size = 0
    for name, link in links:
        problem, numbers, count = _look(file, name, link)
        total, size = total + numbers, size + count
        if size > MOST_GROWTH * path.stat().st_size:
            problem = f"it would grow more than {MOST_GROWTH} times"
        if problem:
            raise InvalidInputError(
                f"{path}: refused: {problem}; save it again with model.save_weights"
            )
    return total


def _look(file: h5py.File, name: str, link: Any) -> tuple[str, int, int]:
    """Return what is wrong with an entry ("" for nothing), how many weights it holds, and its bytes in memory."""
    if not isinstance(link, h5py.HardLink):
        return f"{name} is a link, expected plain data", 0, 0
    item = file[name]
    if not isinstance(item, h5py.Dataset):
        return "", 0, 0
    if item.external or item.is_virtual:
        return f"{name} is stored outside the file", 0, 0
    if item.dtype.kind not in "fiub":
        return f"{name} is {item.dtype}, expected numbers", 0, 0
    counts = item.dtype.kind == "f" and not name.startswith("optimizer")
    return "", item.size if counts else 0, item.nbytes


def check_safetensors(path: Path) -> None:
    """Look at a file of safetensors, whose header says what lies where: nothing of it is run.

    Raises:
        MissingFileError: The package that reads it is not installed.
        CorruptFileError: It is truncated or of another format.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingFileError(
            f'{path}: needs safetensors; run: pip install "onepass[huggingface]"'
        ) from error
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        if refused_by_system(error):
            raise unreadable(path, error) from error
        raise CorruptFileError(
            f"{path}: expected a file of safetensors, but it is truncated or of another format; "
            "fetch or save it again"
        ) from error


def model_numbers(model: Any) -> int:
    """Return how many floating-point weights a keras.Model has."""
    return sum(math.prod(w.shape) for w in model.weights if "float" in str(w.dtype))


def load_hdf5(model: Any, path: Path, what: str) -> None:
    """Load a `.weights.h5` or legacy `.h5` file into a built model: all of it, or an error.

    Raises:
        InvalidInputError: The weights are another architecture's; the model is then unusable.
    """
    expected, received = model_numbers(model), count_numbers(path)
    if expected != received:
        raise another_architecture(path, what, f"{expected:,} weights", f"{received:,}")
    try:
        with warnings.catch_warnings():
            # Keras only warns where layers keep their random weights.
            warnings.filterwarnings("error", "Skipping nested container", UserWarning)
            model.load_weights(path)
    except (
        UserWarning,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OSError,
    ) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise another_architecture(path, what, "its layers", reason[0][:160]) from error


def another_architecture(path: Path, what: str, expected: str, received: str) -> InvalidInputError:
    """Return the error for a weights file that does not belong to the backbone."""
    return InvalidInputError(
        f"{path}: not the weights of {what}: expected {expected}, received {received}; "
        "choose the backbone that the file was saved from"
    )
