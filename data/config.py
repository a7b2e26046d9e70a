"""The flags of `onepass data`. Imports next to no module, so that `--help` answers at once."""

import re
from dataclasses import dataclass
from pathlib import Path

from onepass.cache.commandline.flags import StoreConfig, flag
from onepass.cache.errors import UsageError
from onepass.data.sources import SOURCES

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LARGEST_SIDE = 4096  # px


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig(StoreConfig):
    """Flags of `onepass data prepare`."""

    kind: str = flag(help=", ".join(SOURCES), positional=True, metavar="NAME")
    source: str | None = flag(None, "folder, zip, or address of a zip")
    name: str | None = flag(None, "name in the store (default: NAME; of a folder, its own name)")
    max_side: int = flag(320, "larger images are scaled down to this height and width (px)")
    fit: str = flag(
        "pad",
        "images of several sizes become squares with black borders, or cut",
        choices=("pad", "crop"),
    )
    on_bad: str = flag(
        "refuse",
        "images that cannot be decoded: stop, or leave them out",
        choices=("refuse", "skip"),
    )
    seed: int = flag(0, "of the validation split, where the images come without one")
    digest: str = flag("", "md5:… or sha256:… that a download must have")
    raw_dir: Path | None = flag(None, "folder of the downloads (default: data/raw)")

    def __post_init__(self) -> None:
        if not 1 <= self.max_side <= LARGEST_SIDE:
            raise UsageError(f"--max-side: expected 1 to {LARGEST_SIDE}, received {self.max_side}")
        if self.name is not None and not NAME.fullmatch(self.name):
            raise UsageError(f"--name: expected letters, digits, . _ or -, received {self.name!r}")
        if self.seed < 0:
            raise UsageError(f"--seed: expected 0 or more, received {self.seed}")

    @property
    def raw(self) -> Path:
        """Folder of the downloads."""
        return self.raw_dir or Path("data/raw")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListConfig(StoreConfig):
    """Flags of `onepass data list`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowConfig(StoreConfig):
    """Flags of `onepass data show`."""

    name: str = flag(help="name of a prepared data set", positional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig(StoreConfig):
    """Flags of `onepass data verify`."""

    name: str = flag("", "name of a prepared data set; all where none is given", positional=True)
