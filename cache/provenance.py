"""Digests, what made a file, and why it is stale."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 1 << 22  # bytes read at a time
PACKAGES = (
    "tensorflow",
    "jax",
    "keras",
    "keras-hub",
    "openvino",
    "numpy",
    "h5py",
    "scikit-learn",
    "pillow",
)


def digest_bytes(*parts: bytes | memoryview) -> str:
    """Return the SHA-256, in hex, of the parts' lengths and contents (so that ("ab", "c") is not ("a", "bc"))."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def digest_array(array: np.ndarray) -> str:
    """Return the SHA-256, in hex, of an array's dtype, shape and values in C order."""
    header = f"{array.dtype.str}{array.shape}".encode()
    return digest_bytes(header, np.ascontiguousarray(array).data.cast("B") if array.size else b"")


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


def versions() -> dict[str, str]:
    """Return the installed version of each package that numbers may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


_command: ContextVar[str] = ContextVar("onepass_command", default="")


@contextmanager
def recorded_command(command: str) -> Iterator[None]:
    """Let everything that is made in the block, in this thread, record this command line."""
    token = _command.set(command)
    try:
        yield
    finally:
        _command.reset(token)


def made_by() -> dict[str, Any]:
    """Return what a reader of a result wants to know of its making: command, time, machine, versions.

    The command is "" where a program or a notebook called the library: what stands in its `sys.argv`
    says nothing of the work.
    """
    return {
        "command": _command.get(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say in words how two sets of inputs differ: `size: 96, now 128; weights: …`."""

    def brief(value: Any) -> str:
        text = str(value)
        return text if len(text) <= 24 else text[:20] + "…"

    names = [name for name in {**recorded, **wanted} if recorded.get(name) != wanted.get(name)]
    return "; ".join(
        f"{name}: {brief(recorded.get(name))}, now {brief(wanted.get(name))}" for name in names
    )
