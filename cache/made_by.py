"""Who made a file: the command, the time, the machine, the versions."""

import platform
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from onepass.cache.artifacts import optional, record

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


@record
class How:
    """What the bits of rows may depend on besides what they are made from; a resumed run keeps it.

    Attributes:
        batch: Images a step of the network that computed vectors; None where none did.
        decoder: What decoded the images; None of rows that are no pixels.
    """

    batch: int | None = optional()
    decoder: str | None = optional()


@record
class MadeBy:
    """What a reader of a file wants to know of its making.

    Attributes:
        command: The command line; "" where a program or a notebook called the library: what stands in
            its `sys.argv` says nothing of the work.
        created: When (ISO 8601, UTC).
        machine: Operating system and processor.
        versions: Of Python, and of each package that is installed and that numbers may depend on.
        batch: As in `How`, of a file of rows.
        decoder: As in `How`, of a file of rows.
        migrated: Who wrote the file anew in today's format; None where that is as it was.
    """

    command: str
    created: str
    machine: str
    versions: dict[str, str]
    batch: int | None = optional()
    decoder: str | None = optional()
    migrated: "MadeBy | None" = optional()

    @classmethod
    def now(cls, how: How | None = None) -> Self:
        """Return what is to be said of a file that is written now."""
        how = how or How()
        return cls(
            command=_command.get(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=f"{platform.system()} {platform.machine()}",
            versions=versions(),
            batch=how.batch,
            decoder=how.decoder,
        )


def versions() -> dict[str, str]:
    """Return the installed version of each package that numbers may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def own_version() -> str:
    """Return the version of Onepass: what the checkout says that it runs from, else what is installed."""
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return version("onepass")


_command: ContextVar[str] = ContextVar("onepass_command", default="")


@contextmanager
def recorded_command(command: str) -> Iterator[None]:
    """Let everything that is made in the block, in this thread, record this command line."""
    token = _command.set(command)
    try:
        yield
    finally:
        _command.reset(token)
