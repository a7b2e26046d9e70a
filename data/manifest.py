"""The manifest of a data set: for row i of its pixels the name, the label, the split and what else is known.

It is small, and the only file that changes where a label, a split or a name does.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.artifacts import from_json, record
from onepass.cache.content import contents_digest
from onepass.cache.errors import CorruptFileError
from onepass.cache.features import SPLITS
from onepass.cache.names import MANIFEST
from onepass.cache.provenance import digest_array, digest_bytes, digest_json
from onepass.cache.rowfile import RowFile, write_rows
from onepass.cache.stores import AnyStore, root
from onepass.data.record import DatasetRecord

log = logging.getLogger(__name__)

EXCLUDED = len(SPLITS)  # the split of a row that is kept, but neither trained on nor reported

# Columns that a manifest may have besides labels, split and names, one entry a row.
SOURCE = "source"  # (N, 16) uint8: digest of the encoded file, zeros where unknown
STAMP = "stamp"  # (N, 16) uint8: digest of the file's name, size and time of change, zeros where unknown
IMAGE_SIZE = "image_size"  # (N, 2) int32: width and height of the image as it came (px)
GREY = "grey"  # (N,) uint8: 1 where the image as it came is grey
HELD_LABELS = "held_labels"  # (N,) int32: labels of test images, -1 where unknown
# N texts: images of one group never lie on both sides of a split; "" is a group of one
GROUP = "group"
SOURCE_LABELS = "source_labels"  # (N,) int32: what the source said where a label was corrected
# (N,) int8: what the source said of a row that is excluded; -1 nothing
SOURCE_SPLIT = "source_split"
OF_FILES = (SOURCE, STAMP, IMAGE_SIZE, GREY)  # what is known of the files, and nobody's result
FOLD = "fold"  # N texts, of a source that says so: the fold of cross-validation, "" for none
# What a further column cannot be called.
RESERVED = frozenset(
    {*OF_FILES, HELD_LABELS, SOURCE_LABELS, SOURCE_SPLIT, "labels", "split", "names", "content"}
)


@record
class Change:
    """One entry of a data set's history.

    Attributes:
        when: ISO 8601, UTC.
        command: The command line; "" where a program called the library.
        what: What changed, in words, one line each.
        digest: Of the data set after it (hex).
    """

    when: str
    command: str
    what: list[str]
    digest: str


@dataclass(frozen=True, repr=False)  # without slots, for what is computed once
class Manifest:
    """What is known of the N rows of a data set besides their pixels; row i is row i of the pixel file.

    Attributes:
        path: The file `manifest.h5`.
        content: (N, 16) uint8, digest of each row's pixels.
        labels: (N,) int32; k means `class_ids[k]`, -1 unknown.
        split: (N,) int8, index into `SPLITS`, or `EXCLUDED`.
        names: N file names.
        class_ids: Class k's identity, such as a wnid.
        class_names: Class k's name for people.
        record: Source, licence, citation, published results, what was skipped, …
        columns: Further arrays or lists with one entry a row, such as `SOURCE` or `probability`.
        history: What changed when, the oldest first.
        pixels: Identity of the pixel rows that goes into the digest; "" for that of their contents.
    """

    path: Path
    content: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    names: list[str]
    class_ids: list[str]
    class_names: list[str]
    record: DatasetRecord
    columns: dict[str, Any] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    pixels: str = ""

    @cached_property
    def contents(self) -> str:
        """Identity of the images in their order (hex); the pixel file that belongs here has the same."""
        return contents_digest(self.content)

    @cached_property
    def digest(self) -> str:
        """Identity of the data set (hex): pixels, labels, splits, names, groups and classes."""
        side = {"labels": self.labels, "split": self.split, "names": self.names}
        if GROUP in self.columns:
            side[GROUP] = self.columns[GROUP]
        return dataset_digest(self.pixels or self.contents, side, self.class_ids, self.class_names)

    def column(self, name: str, default: Any) -> Any:
        """Return a further column, or an array full of `default` where the manifest has none of the name."""
        if name in self.columns:
            return self.columns[name]
        return np.full((len(self.names), *np.shape(default)), default)

    @classmethod
    def open(cls, path: Path) -> "Manifest":
        """Open a manifest and check that it is what was written.

        Raises:
            MissingFileError: There is none.
            CorruptFileError: It is damaged, or its labels, names or classes were changed.
            UnreadableFileError: The system refuses to read it.
        """
        name = path.parent.name
        rows = RowFile.open(path)
        try:
            rows.verify()  # all of it: it is small, and whatever is chosen by it must be right
        except CorruptFileError as error:
            raise CorruptFileError(f"{error}: delete it and prepare {name} again") from error
        try:
            side, attributes = dict(rows.side), rows.attributes
            labels, split, names = (side.pop(key) for key in ("labels", "split", "names"))
            manifest = cls(
                path=path,
                content=np.asarray(rows.columns["content"]),
                labels=labels,
                split=split,
                names=names,
                class_ids=attributes["class_ids"],
                class_names=attributes["class_names"],
                record=from_json(DatasetRecord, attributes["record"]),
                columns=side,
                history=[from_json(Change, change) for change in attributes["history"]],
                pixels=attributes["pixels"],
            )
            digest, written = manifest.digest, attributes["digest"]
        except CorruptFileError as error:
            raise CorruptFileError(
                f"{path}: {error}; delete the file and prepare {name} again"
            ) from error
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"{path}: expected the manifest of a data set, but {error} is missing"
            ) from error
        if digest != written:
            raise CorruptFileError(
                f"{path}: its labels, splits, names or classes differ from what was prepared "
                f"({written[:8]}, now {digest[:8]}); delete the file and prepare {name} again"
            )
        return manifest

    def write(self) -> "Manifest":
        """Write the file, atomically, and return what lies there now; whoever calls holds its lock."""
        side = {"labels": self.labels, "split": self.split, "names": self.names, **self.columns}
        attributes = {
            "class_ids": self.class_ids,
            "class_names": self.class_names,
            "record": self.record,
            "history": self.history,
            "pixels": self.pixels or self.contents,
            "digest": self.digest,
        }
        inputs = {"kind": "manifest", "contents": self.contents}
        write_rows(self.path, {"content": self.content}, side, inputs, attributes)
        return Manifest.open(self.path)


def true_labels(manifest: Manifest) -> np.ndarray:
    """Return the labels, (N,) int32, with those of the test images that are kept apart."""
    held = manifest.column(HELD_LABELS, np.int32(-1))
    return np.where(manifest.labels >= 0, manifest.labels, held)


def manifest_path(store: AnyStore, name: str) -> Path:
    """Return where the manifest of a data set lies."""
    return root(store) / name / MANIFEST


def dataset_digest(
    pixels: str, side: Mapping[str, Any], class_ids: list[str], class_names: list[str]
) -> str:
    """Return the identity of a data set: pixels, labels, splits, names, groups, class ids and class names.

    Args:
        pixels: Identity of the pixel rows (hex).
        side: Holds `labels` (N,) int32, `split` (N,) int8, `names`, and `group` where there are groups.
        class_ids: K identities.
        class_names: K names for people.
    """
    parts = [pixels, digest_array(side["labels"]), digest_array(side["split"])]
    parts += [digest_json(list(texts)) for texts in (side["names"], class_ids, class_names)]
    if GROUP in side:
        parts.append(digest_json(list(side[GROUP])))
    return digest_bytes(*(part.encode() for part in parts))
