"""A prepared data set: pixel rows with their labels, splits and names. Row order is law."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.content import contents_digest
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    Remedy,
    unknown_name,
)
from onepass.cache.features import SPLITS
from onepass.cache.names import MANIFEST, NEXT_PIXELS, PIXELS, check_name
from onepass.cache.notebook import as_html
from onepass.cache.rowfile import RowFile
from onepass.cache.stores import AnyStore, root, roots
from onepass.data.manifest import EXCLUDED, GROUP, HELD_LABELS, OF_FILES, Manifest, manifest_path
from onepass.data.record import DatasetRecord
from onepass.data.sources import KNOWN

__all__ = [
    "EXCLUDED",
    "HELD_LABELS",
    "SPLITS",
    "ImageDataset",
    "dataset_path",
    "open_dataset",
    "open_pixels",
    "prepared_names",
]

SHOWN = 12  # images in a notebook


@dataclass(frozen=True, slots=True, repr=False)
class ImageDataset:
    """N images in a fixed order: row i of its pixels, of its manifest and of its features is the same image.

    Attributes:
        name: Its name in the store.
        path: The HDF5 file that holds the pixels.
        pixels: (N, H, W, C) uint8, read-only memory map; C is 3 (RGB) or 1 (grey).
        content: (N, 16) uint8, digest of each row's pixels: the identity of the image.
        labels: (N,) int32; k means `class_ids[k]`, -1 unknown.
        split: (N,) int8, index into `SPLITS`, or `EXCLUDED`.
        names: N file names.
        groups: N texts, such as a patient's; images of one group are never parted. "" is a group of
            one; None where there are no groups.
        class_ids: Class k's identity, such as a wnid.
        class_names: Class k's name for people.
        digest: Identity of all of the above but name and path (hex).
        record: Source, licence, citation, published results (accuracy in %), what was skipped, …
        extra: Further arrays or lists with one entry a row, such as `probability`.
    """

    name: str
    path: Path
    pixels: np.ndarray
    content: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    names: list[str]
    groups: list[str] | None
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
        lengths = {len(self.pixels), len(self.content), len(self.labels), len(self.split), rows}
        if len(lengths) > 1 or len(self.class_names) != classes:
            raise InvalidInputError(
                f"{self.path}: expected one label, split and name a row and one name a class; "
                f"found lengths {sorted(lengths)} and {classes} class ids, {len(self.class_names)} class names"
            )
        if self.labels.min() < -1 or self.labels.max() >= classes:
            raise InvalidInputError(
                f"{self.path}: expected labels -1 to {classes - 1}, found {self.labels.min()} to {self.labels.max()}"
            )
        if self.split.min() < 0 or self.split.max() > EXCLUDED:
            raise InvalidInputError(f"{self.path}: expected splits 0 to {EXCLUDED}, found others")

    def __repr__(self) -> str:
        count, *shape = self.pixels.shape
        size = " × ".join(map(str, shape))
        return f"<ImageDataset {self.name}: {count:,} images of {size}, {len(self.class_ids)} classes, digest {self.digest[:8]}>"

    def _repr_html_(self) -> str:
        """Return what it is, with some of its images and their classes."""
        from onepass.data.contact_sheet import INK, Cell, sheet_html

        chosen = np.linspace(0, len(self.names) - 1, min(SHOWN, len(self.names))).astype(int)
        classes = [self.class_names[k] if k >= 0 else "" for k in self.labels[chosen]]
        cells = [Cell(self.pixels[i], ((of, INK),)) for i, of in zip(chosen, classes, strict=True)]
        return as_html(repr(self)[1:-1]) + sheet_html(cells)

    def __reduce__(self) -> tuple:
        # a memory map would be pickled as all its bytes
        return open_dataset, (self.path.parent.parent, self.name)

    @property
    def contents(self) -> str:
        """Identity of the images in their order (hex)."""
        return contents_digest(self.content)

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


def dataset_path(store: AnyStore, name: str) -> Path:
    """Return where a data set's pixel rows lie once it is prepared."""
    return root(store) / name / PIXELS


def prepared_names(store: AnyStore) -> list[str]:
    """Return the names of the data sets in a store, sorted; those of an earlier format too."""
    found = {
        path.parent.name
        for top in roots(store)
        for file in (MANIFEST, PIXELS)
        for path in top.glob(f"*/{file}")
    }
    return sorted(found)


def open_dataset(store: AnyStore, name: str) -> ImageDataset:
    """Open a prepared data set; no pixel is read.

    Raises:
        UsageError: That cannot be the name of a data set.
        MissingFileError: The store is empty, or has the manifest without the pixels.
        UnknownNameError: It holds others; the nearest are named.
        CorruptFileError: A file is damaged, or its labels, names or classes were changed.
        UnreadableFileError: The system refuses to read one.
    """
    manifest, pixels = _open_together(store, name)
    extra = {key: column for key, column in manifest.columns.items() if key not in OF_FILES}
    return ImageDataset(
        name=name,
        path=pixels.path,
        pixels=pixels.columns["pixels"],
        content=manifest.content,
        labels=manifest.labels,
        split=manifest.split,
        names=manifest.names,
        groups=extra.pop(GROUP, None),
        class_ids=manifest.class_ids,
        class_names=manifest.class_names,
        digest=manifest.digest,
        record=manifest.record,
        extra=extra,
    )


def manifest_of(store: AnyStore, name: str) -> Manifest:
    """Open the manifest of a prepared data set, which is small; its pixels are left alone.

    Raises:
        OnepassError: As `open_dataset`; and the data set is of an earlier Onepass.
    """
    check_name("data set", name)
    known = prepared_names(store)
    if name not in known:
        can_be_made = name in KNOWN
        remedy = Remedy("prepare", name) if can_be_made else Remedy("list data sets")
        if known:
            raise unknown_name("data set", name, known, remedy)
        raise MissingFileError(
            f"{dataset_path(store, name)}: data set {name!r} is not prepared yet", remedy=remedy
        )
    home = home_of(store, name)
    if not manifest_path(home, name).exists():
        RowFile.open(dataset_path(home, name))  # of an earlier format: the error says what to do
    return Manifest.open(manifest_path(home, name))


def home_of(store: AnyStore, name: str) -> Path:
    """Return the first of the stores that has the data set."""
    here = [top for top in roots(store) if name in prepared_names(top)]
    return here[0] if here else root(store)


def open_pixels(store: AnyStore, name: str, contents: str) -> RowFile | None:
    """Return the pixel file of a data set that holds these images in this order; None where none does.

    While a data set is replaced, the new manifest counts from the moment that it is there, and the pixels
    that belong to it may still have their other name. A manifest may have its pixels in a store that is only
    read.

    Args:
        store: Where to look.
        name: Of the data set.
        contents: `Manifest.contents`.

    Raises:
        CorruptFileError: `pixels.h5` is damaged, and no other file fits.
        UnreadableFileError: The system refuses to read one.
    """
    for path in (top / name / file for top in roots(store) for file in (NEXT_PIXELS, PIXELS)):
        if path.exists():
            try:
                rows = RowFile.open(path)
            except (MissingFileError, CorruptFileError):  # renamed just now; or half a file
                if path.name == NEXT_PIXELS:
                    continue
                raise
            if rows.inputs.get("contents") == contents and "pixels" in rows.columns:
                return rows
    return None


def _open_together(store: AnyStore, name: str) -> tuple[Manifest, RowFile]:
    """Open the manifest and the pixels that belong to it; once more where a writer came between the two."""
    for _ in range(2):
        manifest = manifest_of(store, name)
        if pixels := open_pixels(store, name, manifest.contents):
            return manifest, pixels
    raise MissingFileError(
        f"{dataset_path(store, name)}: expected the pixels that its manifest describes, found none; "
        f"name the store that has them with --read-from, or prepare {name} again"
    )
