"""A prepared data set: pixel rows with their labels, splits and names. Row order is law."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.artifacts import from_json
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    Remedy,
    unknown_name,
)
from onepass.cache.features import SPLITS
from onepass.cache.names import check_name
from onepass.cache.provenance import digest_array, digest_bytes, digest_json
from onepass.cache.rows import RowFile
from onepass.data.record import DatasetRecord
from onepass.data.sources import SOURCES

HELD_LABELS = "held_labels"  # side array (N,) int32: labels of test images, -1 where unknown

__all__ = [
    "HELD_LABELS",
    "SPLITS",
    "ImageDataset",
    "dataset_digest",
    "dataset_path",
    "open_dataset",
    "prepared_names",
]


@dataclass(frozen=True, slots=True, repr=False)
class ImageDataset:
    """N images in a fixed order: row i is the same image everywhere, forever.

    Attributes:
        name: Its name in the store.
        path: The HDF5 file that holds it.
        pixels: (N, H, W, C) uint8, read-only memory map; C is 3 (RGB) or 1 (grey).
        labels: (N,) int32; k means `class_ids[k]`, -1 unknown.
        split: (N,) int8, index into `SPLITS`.
        names: N file names.
        class_ids: Class k's identity, such as a wnid.
        class_names: Class k's name for people.
        digest: SHA-256 (hex) of all of the above but name and path.
        record: Source, licence, citation, published results (accuracy in %), what was skipped, …
        extra: Further arrays or lists with one entry a row, such as `probability`.
    """

    name: str
    path: Path
    pixels: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    names: list[str]
    class_ids: list[str]
    class_names: list[str]
    digest: str
    record: DatasetRecord
    extra: dict[str, Any]

    def __post_init__(self) -> None:
        rows, classes = len(self.names), len(self.class_ids)
        if (
            self.pixels.ndim != 4
            or self.pixels.dtype != np.uint8
            or self.pixels.shape[-1] not in (1, 3)
        ):
            raise InvalidInputError(
                f"{self.path}: expected pixels (N, H, W, 1 or 3) uint8, found {self.pixels.shape} {self.pixels.dtype}"
            )
        lengths = {len(self.pixels), len(self.labels), len(self.split), rows}
        if len(lengths) > 1 or len(self.class_names) != classes:
            raise InvalidInputError(
                f"{self.path}: expected one label, split and name a row and one name a class; "
                f"found lengths {sorted(lengths)} and {classes} class ids, {len(self.class_names)} class names"
            )
        if self.labels.min() < -1 or self.labels.max() >= classes:
            raise InvalidInputError(
                f"{self.path}: expected labels -1 to {classes - 1}, found {self.labels.min()} to {self.labels.max()}"
            )
        if self.split.min() < 0 or self.split.max() >= len(SPLITS):
            raise InvalidInputError(
                f"{self.path}: expected splits 0 to {len(SPLITS) - 1}, found others"
            )

    def __repr__(self) -> str:
        count, *shape = self.pixels.shape
        size = " × ".join(map(str, shape))
        return f"<ImageDataset {self.name}: {count:,} images of {size}, {len(self.class_ids)} classes, digest {self.digest[:8]}>"

    def __reduce__(self) -> tuple:
        return _open, (self.path, self.name)  # a memory map would be pickled as all its bytes

    @property
    def held_labels(self) -> np.ndarray:
        """Labels of the test images where they are known, (N,) int32, else -1.

        They are kept apart from `labels`, so that nothing is trained or chosen by them.
        """
        return self.extra.get(HELD_LABELS, np.full(len(self.names), -1, np.int32))

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of a split, int64, ascending.

        Raises:
            UnknownNameError: There is no split of that name.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        return np.flatnonzero(self.split == SPLITS.index(split))


def dataset_path(store: Path, name: str) -> Path:
    """Return where a data set's pixel rows lie once it is prepared."""
    return store / name / "pixels.h5"


def prepared_names(store: Path) -> list[str]:
    """Return the names of the data sets in a store, sorted."""
    return sorted(path.parent.name for path in store.glob("*/pixels.h5"))


def dataset_digest(
    pixels: str, side: dict[str, Any], class_ids: list[str], class_names: list[str]
) -> str:
    """Return the identity of a data set: pixels, labels, splits, names, class ids and class names.

    Args:
        pixels: Digest of the pixel rows (hex).
        side: Holds `labels` (N,) int32, `split` (N,) int8 and `names`.
        class_ids: K identities.
        class_names: K names for people.
    """
    parts = [pixels, digest_array(side["labels"]), digest_array(side["split"])]
    parts += [digest_json(list(texts)) for texts in (side["names"], class_ids, class_names)]
    return digest_bytes(*(part.encode() for part in parts))


def open_dataset(store: Path, name: str) -> ImageDataset:
    """Open a prepared data set; no pixel is read.

    Raises:
        UsageError: That cannot be the name of a data set.
        MissingFileError: The store is empty.
        UnknownNameError: It holds others; the nearest are named.
        CorruptFileError: The file is damaged, or its labels, names or classes were changed.
        UnreadableFileError: The system refuses to read it.
    """
    check_name("data set", name)
    path, known = dataset_path(store, name), prepared_names(store)
    if name not in known:
        can_be_made = name in SOURCES and name != "folder"
        remedy = Remedy("prepare", name) if can_be_made else Remedy("list data sets")
        if known:
            raise unknown_name("data set", name, known, remedy)
        raise MissingFileError(f"{path}: data set {name!r} is not prepared yet", remedy=remedy)
    return _open(path, name)


def _open(path: Path, name: str) -> ImageDataset:
    rows = RowFile.open(path)
    try:
        side = dict(rows.side)
        kept = {key: rows.attributes[key] for key in ("class_ids", "class_names", "digest")}
        digest = dataset_digest(rows.digest, side, kept["class_ids"], kept["class_names"])
        main = {key: side.pop(key) for key in ("labels", "split", "names")}
        pixels = rows.columns["pixels"]
    except (KeyError, AttributeError, TypeError) as error:
        raise CorruptFileError(
            f"{path}: expected a prepared data set, but {error} is missing"
        ) from error
    try:
        record = from_json(DatasetRecord, rows.attributes.get("record"))
    except CorruptFileError as error:
        raise CorruptFileError(
            f"{path}: {error}; delete the file and prepare {name} again"
        ) from error
    if digest != kept["digest"]:
        raise CorruptFileError(
            f"{path}: its labels, splits, names or classes differ from what was prepared "
            f"({kept['digest'][:8]}, now {digest[:8]}); delete the file and prepare {name} again"
        )
    return ImageDataset(
        name=name, path=path, pixels=pixels, extra=side, record=record, **main, **kept
    )
