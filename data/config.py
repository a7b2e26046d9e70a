"""The flags of `onepass data`. Imports next to no module, so that `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path

from onepass.cache.commandline.flags import ClusterConfig, StoreConfig, flag, parse_bytes
from onepass.cache.errors import UsageError
from onepass.cache.names import check_new_dataset
from onepass.data.record import SYMMETRIES
from onepass.data.sources import OWN, SOURCES

LARGEST_SIDE = 4096  # px
NO_SYMMETRY = "none"
ROLES = ("file", "label", "split", "group", "fold")  # of a table's columns
MAX_SIDE = 320  # px
DEFAULT_FIT = "stretch"  # measured: benchmarks/fit.py


def _check_pattern(pattern: str) -> None:
    import regex  # it takes a moment, and --help needs none

    try:
        regex.compile(pattern)
    except regex.error as error:
        raise UsageError(
            f"--group-by {pattern!r}: expected a regular expression ({error})"
        ) from error


def _check_columns(columns: tuple[str, ...]) -> None:
    for word in columns:
        if word.partition("=")[0] not in ROLES or "=" not in word:
            raise UsageError(
                f"--columns {word}: expected ROLE=COLUMN, where ROLE is one of {', '.join(ROLES)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig(ClusterConfig):
    """Flags of `onepass data prepare`."""

    kind: str = flag(
        help=f"a path of your own: {'; '.join(OWN.values())}. Or a name: {', '.join(SOURCES)}",
        positional=True,
        metavar="PATH_OR_NAME",
    )
    source: tuple[str, ...] = flag(
        (), "paths, or addresses of zips, where NAME is given; several become one data set"
    )
    name: str | None = flag(None, "name in the store (default: NAME; of a path, its own name)")
    images: str = flag(
        "", "folder, zip or tar of the files that a table names (default: the table's folder)"
    )
    columns: tuple[str, ...] = flag(
        (),
        "columns of a table that are not found by their names, such as file=path label=species split= (none); "
        f"of {', '.join(ROLES)}",
        metavar="ROLE=COLUMN",
    )
    max_side: int | None = flag(
        None,
        f"largest height and width of the rows (px; default: {MAX_SIDE}, or as prepared before)",
    )
    fit: str | None = flag(
        None,
        "images of several sizes become squares: with borders, cut, or distorted "
        f"(default: {DEFAULT_FIT}, or as prepared before)",
        choices=("pad", "crop", "stretch"),
    )
    pad: str | None = flag(
        None,
        "borders of --fit pad: black, the image's mean colour, or its mirror image "
        "(default: black, or as prepared before)",
        choices=("black", "mean", "reflect"),
    )
    channels: str | None = flag(
        None,
        "1 (grey) or 3 (RGB) (default: 1 where all images are grey, or as prepared before)",
        choices=("1", "3"),
    )
    layout: str = flag(
        "auto",
        "auto: folders named like splits (train, Validation, test_images) are splits; "
        "classes: every folder at the top is a class",
        choices=("auto", "classes"),
    )
    symmetries: tuple[str, ...] = flag(
        (), "changes that leave the class of every image what it is, for fine-tuning to use: "
        f"{', '.join(SYMMETRIES)}, or {NO_SYMMETRY} (default: as before)", metavar="CHANGE",
    )  # fmt: skip
    hold_back: int | None = flag(
        None, "hold N labelled images out of the data set, of each class (and whole groups) in its proportion, and write "
        "them into its folder held-out, as new pictures for predict; 0: none (default: those held out before)",
        metavar="N",
    )  # fmt: skip
    on_bad: str = flag(
        "refuse",
        "images that cannot be decoded: stop, or leave them out",
        choices=("refuse", "skip"),
    )
    seed: int | None = flag(
        None,
        "of the validation split, where the images come without one (default: 0, or as drawn before)",
    )
    resplit: bool = flag(False, "draw the validation split anew instead of keeping it")
    group: str | None = flag(
        None,
        "column that says which images belong together, never on both sides of a split (default: as before; '' for none)",
    )
    group_by: str | None = flag(
        None,
        "the same by file name: a regular expression whose first group (else all it matches) is the group "
        "(default: as before; '' for none)",
        metavar="REGEX",
    )
    drop_leaks: str | None = flag(
        None,
        "exclude images of this split that another split has too",
        choices=("train", "val"),
    )
    allow_fewer: bool = flag(False, "go on where more than half of the images are gone")
    rehash: bool = flag(False, "read every file again, also where its size and time did not change")
    dry_run: bool = flag(False, "say what is new and what is carried over; do nothing")
    digest: str = flag("", "md5:… or sha256:… that a download must have")
    raw_dir: Path | None = flag(None, "folder of the downloads (default: data/raw)")
    memory: float | None = flag(
        None,
        "how much the work may take, such as 2GB: as many processes decode as have room (default: half of what is free)",
        metavar="SIZE",
        parse=parse_bytes,
    )

    def __post_init__(self) -> None:
        self.check_cluster()
        if self.max_side is not None and not 1 <= self.max_side <= LARGEST_SIDE:
            raise UsageError(f"--max-side: expected 1 to {LARGEST_SIDE}, received {self.max_side}")
        if self.pad and self.fit not in (None, "pad"):
            raise UsageError(f"--pad {self.pad}: expected --fit pad, received --fit {self.fit}")
        if self.name is not None:
            check_new_dataset("--name", self.name)
        for name, value in (("--seed", self.seed), ("--hold-back", self.hold_back)):
            if value is not None and value < 0:
                raise UsageError(f"{name}: expected 0 or more, received {value}")
        known = set(self.symmetries) <= {*SYMMETRIES, NO_SYMMETRY}
        if not known or (NO_SYMMETRY in self.symmetries and len(self.symmetries) > 1):
            raise UsageError(
                f"--symmetries {' '.join(self.symmetries)}: expected some of {', '.join(SYMMETRIES)}, or {NO_SYMMETRY}"
            )
        if self.group and self.group_by:
            raise UsageError("--group and --group-by: expected one of them, received both")
        if self.group_by:
            _check_pattern(self.group_by)
        _check_columns(self.columns)

    @property
    def fit_and_pad(self) -> str:
        """How images that are no squares become squares, as in `fit_image`; "" where no flag says."""
        if self.pad in ("mean", "reflect"):
            return f"pad {self.pad}"
        return self.fit or ("pad" if self.pad else "")

    @property
    def column_of(self) -> dict[str, str]:
        """The column of a table by what it is for."""
        words = (word.partition("=") for word in self.columns)
        return {role: column for role, _, column in words}

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
    history: bool = flag(False, "list what changed when instead")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelabelConfig(StoreConfig):
    """Flags of `onepass data relabel`."""

    name: str = flag(help="name of a prepared data set", positional=True)
    labels: Path = flag(
        help="table (CSV, .tsv, .jsonl, .parquet) with the columns file and label; the label excluded takes an image out"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig(StoreConfig):
    """Flags of `onepass data export`."""

    name: str = flag(help="name of a prepared data set", positional=True)
    labels: bool = flag(False, "write file, label and split of every image as a table (CSV)")
    out: Path | None = flag(None, "the file to write (default: NAME-labels.csv)")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsConfig(StoreConfig):
    """Flags of `onepass cache export`."""

    key: str = flag(
        help="DATASET/BACKBONE@SIZE, as `onepass cache list` prints it", positional=True
    )
    format: str = flag(
        "parquet",
        "parquet: a row for each image, its vector in one column; npy: vectors.npy and rows.csv; csv: a column for "
        "each number; projector: vectors.tsv and metadata.tsv for TensorFlow's Embedding Projector",
        choices=("parquet", "npy", "csv", "projector"),
    )
    out: Path | None = flag(
        None, "the file to write; of npy and projector the folder (default: named like the key)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig(StoreConfig):
    """Flags of `onepass data verify`."""

    name: str = flag("", "name of a prepared data set; all where none is given", positional=True)
