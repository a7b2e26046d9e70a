"""Feature files: what a vector depends on, which files there are, how to open and join them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.artifacts import from_json, record
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    Remedy,
    StaleError,
    unknown_name,
)
from onepass.cache.files import TEMPORARY
from onepass.cache.names import check_name
from onepass.cache.provenance import digest_bytes
from onepass.cache.rows import RowFile

SPLITS = ("train", "val", "test")  # a row's split is the index of its name
LOGITS = "logits"  # the pooling of a file that holds the backbone's own ImageNet logits
LOGITS_FILE = re.compile(rf"~{LOGITS}(?=$|[=!])")
KEY_TEXT = re.compile(
    r"(?P<backbone>[^@#:+~=!/]+)@(?P<size>\d+)(#(?P<variant>\w+))?(:(?P<layer>[^+~=!]+))?"
    r"(\+(?P<view>[^~=!]+))?(~(?P<pooling>[a-z+]+))?(=(?P<precision>\w+))?(!(?P<dtype>\w+))?"
)


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """All that a feature vector depends on, and nothing else.

    Written `backbone@size`, then, where it differs from the default, `#weights`, `:layer`, `+view`,
    `~pooling`, `=precision` and `!dtype`: `xception@150:block13_sepconv2_act+flip`.

    Attributes:
        dataset: Name of the data set.
        dataset_digest: Digest of its pixels, labels, splits and names (hex).
        backbone: Name of the backbone.
        weights: Identity of its weights, such as "sha256:…".
        size: Height and width that the backbone sees (px).
        variant: Short name of the weights where they are not the backbone's own; else "".
        layer: Layer that is read; "" is the last one.
        view: How the image is looked at; "" is as it is.
        pooling: How a feature map becomes a vector.
        precision: Arithmetic of the backbone.
        dtype: Type of the stored numbers.
    """

    dataset: str
    dataset_digest: str
    backbone: str
    weights: str
    size: int
    variant: str = ""
    layer: str = ""
    view: str = ""
    pooling: str = "avg"
    precision: str = "float32"
    dtype: str = "float16"

    def __post_init__(self) -> None:
        parts = parse_key_text(str(self))
        for name in _DEFAULTS:
            value, default = getattr(self, name), _DEFAULTS[name]
            if name in KEY_TEXT.groupindex and parts.get(name, default) not in (value, str(value)):
                raise InvalidInputError(
                    f"feature key {self}: {name} {value!r} holds a mark that parts a key (@ # : + ~ = !)"
                )
        check_name("data set", self.dataset, InvalidInputError)
        check_name("feature key", self._file_name, InvalidInputError)

    def __str__(self) -> str:
        text = f"{self.backbone}@{self.size}"
        for mark, name in (("#", "variant"), (":", "layer"), ("+", "view"), ("~", "pooling"), ("=", "precision"), ("!", "dtype")):  # fmt: skip
            value = getattr(self, name)
            if value != _DEFAULTS[name]:
                text += mark + value
        return text

    def file(self, store: Path) -> Path:
        """Return where its rows lie once they are finished."""
        return features_folder(store, self.dataset) / (self._file_name + ".h5")

    @property
    def _file_name(self) -> str:
        return str(self).replace("/", "_")

    def inputs(self) -> dict[str, Any]:
        """Return what the rows depend on, for the row store."""
        return {"kind": "features", **asdict(self)}


@record
class ExtractionRecord:
    """How the rows of a feature file were computed by the run that finished it.

    Attributes:
        rows_per_second: Of that run.
        computed_rows: Rows that it computed; earlier runs computed the others.
        devices: What it ran on, such as "gpu:0".
        bound: What held it up: "read", "device" or "write".
        gpu_use: Mean use of the GPUs, 0 … 1; None where it is not known.
    """

    rows_per_second: float
    computed_rows: int
    devices: list[str]
    bound: str
    gpu_use: float | None = None

    @classmethod
    def of(cls, rows: RowFile) -> "ExtractionRecord | None":
        """Return the record of a feature file; None where it has none.

        Raises:
            CorruptFileError: It has another form.
        """
        value = rows.attributes.get("extraction")
        return None if value is None else from_json(cls, value)


_DEFAULTS = {field.name: field.default for field in fields(FeatureKey)}


def parse_key_text(text: str) -> dict[str, str]:
    """Return the parts of a key's text by field name, such as {"backbone": "vgg16", "size": "64"}.

    Raises:
        InvalidInputError: It is not written like a key.
    """
    match = KEY_TEXT.fullmatch(text)
    if not match:
        raise InvalidInputError(
            f"feature key {text!r}: expected BACKBONE@SIZE such as efficientnet_lite0@128"
        )
    return {name: value for name, value in match.groupdict().items() if value is not None}


@dataclass(frozen=True, slots=True, repr=False)
class FeatureSet:
    """Feature vectors of every image of a data set, in its row order.

    Attributes:
        X: (N, D), float16 or float32, read-only; a memory map unless it was joined.
        labels: (N,) int32; -1 where unknown.
        split: (N,) int8, index into SPLITS.
        names: N file names.
        class_ids: Class k's identity, such as a wnid.
        class_names: Class k's name for people.
        keys: What the vectors depend on; several where sets were joined.
        digest: Identity of vectors, labels and splits (hex).
        logits: (N, 1000) ImageNet logits, or None.
        record: Licence, citation and so on of the data set.
    """

    X: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    names: list[str]
    class_ids: list[str]
    class_names: list[str]
    keys: tuple[FeatureKey, ...]
    digest: str
    logits: np.ndarray | None
    record: dict[str, Any]

    def __repr__(self) -> str:
        rows, dim = self.X.shape
        return f"<FeatureSet {self.text} of {self.keys[0].dataset}: {rows:,} × {dim:,} {self.X.dtype}, digest {self.digest[:8]}>"

    @property
    def text(self) -> str:
        """The keys as they are written on a command line, joined by " & "."""
        return " & ".join(map(str, self.keys))

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of a split, ascending, int64.

        Raises:
            UnknownNameError: There is no split of that name.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        return np.flatnonzero(self.split == SPLITS.index(split))

    @classmethod
    def join(cls, sets: Sequence["FeatureSet"]) -> "FeatureSet":
        """Put the vectors of several sets side by side: (N, D1 + D2 + …), of the widest dtype.

        Raises:
            InvalidInputError: They are not of the same images.
        """
        first = sets[0]
        if len(sets) == 1:
            return first
        if len({(key.dataset, key.dataset_digest) for s in sets for key in s.keys}) > 1:
            made_of = [f"{key} of {key.dataset} {key.dataset_digest[:8]}" for s in sets for key in s.keys]  # fmt: skip
            raise InvalidInputError(
                f"expected feature files of one data set, received {', '.join(made_of)}"
            )
        return cls(
            X=np.concatenate([s.X for s in sets], axis=1),
            labels=first.labels,
            split=first.split,
            names=first.names,
            class_ids=first.class_ids,
            class_names=first.class_names,
            keys=tuple(key for s in sets for key in s.keys),
            digest=cls.join_digest(sets),
            logits=None,
            record=first.record,
        )

    @staticmethod
    def join_digest(sets: Sequence["FeatureSet"]) -> str:
        """Return the digest that the joined sets have, without joining them."""
        if len(sets) == 1:
            return sets[0].digest
        return digest_bytes(*(s.digest.encode() for s in sets))


def features_folder(store: Path, dataset: str) -> Path:
    """Return the folder of a data set's feature files."""
    return store / dataset / "features"


def open_features(path: Path) -> FeatureSet:
    """Open one finished feature file; no vector is read.

    Raises:
        MissingFileError: There is none.
        CorruptFileError: It is not a feature file.
    """
    rows = RowFile.open(path)
    if rows.inputs.get("kind") != "features" or "features" not in rows.columns:
        raise CorruptFileError(
            f"{path}: expected a feature file, found {rows.inputs.get('kind', 'another kind')}"
        )
    try:
        key = FeatureKey(**{name: value for name, value in rows.inputs.items() if name != "kind"})
        return FeatureSet(
            X=rows.columns["features"],
            labels=rows.side["labels"],
            split=rows.side["split"],
            names=rows.side["names"],
            class_ids=rows.attributes["class_ids"],
            class_names=rows.attributes["class_names"],
            keys=(key,),
            digest=digest_bytes(rows.digest.encode(), rows.side_digest.encode()),
            logits=_sibling_logits(path, key),
            record=rows.attributes["record"],
        )
    except (KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{path}: expected a feature file of this version, but something is missing or unknown "
            f"({error}); delete it and extract it again"
        ) from error


def _sibling_logits(path: Path, key: FeatureKey) -> np.ndarray | None:
    """Return the ImageNet logits of the same images, backbone, size and view, where they are kept."""
    own = replace(key, layer="", pooling=LOGITS)
    sibling = path.with_name(own.file(path.parent).name)
    if key.pooling == LOGITS or not sibling.exists():
        return None
    rows = RowFile.open(sibling)
    return rows.columns["features"] if rows.inputs == own.inputs() else None


def list_features(store: Path, dataset: str) -> list[Path]:
    """Return a data set's finished feature files, by name."""
    found = features_folder(store, dataset).glob("*.h5")
    return sorted(path for path in found if not path.name.startswith(TEMPORARY))


def resolve_features(store: Path, dataset: str, texts: Sequence[str] = ()) -> list[FeatureSet]:
    """Open the feature files that the key texts name; all but the logits where none is given.

    Raises:
        MissingFileError: The data set has no feature file yet.
        UnknownNameError: One is not there; the nearest are named.
    """
    by_text = {path.stem: path for path in list_features(store, dataset)}
    wanted = texts or [text for text in by_text if not LOGITS_FILE.search(text)]
    if not wanted or not by_text:
        raise MissingFileError(
            f"{features_folder(store, dataset)}: no feature file yet",
            remedy=Remedy("extract", dataset),
        )
    for text in texts:
        if text.replace("/", "_") not in by_text:
            raise unknown_name("feature key", text, by_text)
    return [open_features(by_text[text.replace("/", "_")]) for text in wanted]


def check_fresh(store: Path, features: FeatureSet, dataset_digest: str) -> None:
    """Refuse vectors that were made from another state of the data set.

    Raises:
        StaleError: Names the file, both digests and the cure.
    """
    for key in features.keys:
        if key.dataset_digest != dataset_digest:
            raise StaleError(
                f"{key.file(store)}: made from data set {key.dataset_digest[:8]}, but {key.dataset} is now "
                f"{dataset_digest[:8]}; extract it again",
                remedy=Remedy("delete", f"{key.dataset}/{key}"),
            )
