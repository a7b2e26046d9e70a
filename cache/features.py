"""Feature files: what a vector depends on, which files there are, how to open and join them."""

import glob
import logging
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
    OnepassError,
    Remedy,
    StaleError,
    unknown_name,
)
from onepass.cache.files import TEMPORARY
from onepass.cache.names import check_name
from onepass.cache.provenance import digest_bytes
from onepass.cache.rows import RowFile, read_plan, recipe_of
from onepass.cache.stores import AnyStore, find_file, root, roots

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")  # a row's split is the index of its name
OPENVINO = "openvino_"  # begins the precision of what OpenVINO computes; all others are Keras's dtype policies
LOGITS = "logits"  # the pooling of a file that holds the backbone's own ImageNet logits
WHOLE_MAP = "map"  # the pooling of a file that holds a layer's whole map, which frozen layers hand to trained ones
LOGITS_FILE = re.compile(rf"~{LOGITS}(?=$|[=!])")
KEY_TEXT = re.compile(
    r"(?P<backbone>[^@#:+~=!/]+)@(?P<size>\d+)(#(?P<variant>\w+))?(:(?P<layer>[^+~=!]+))?"
    r"(\+(?P<view>[^~=!]+))?(~(?P<pooling>[a-z+]+))?(=(?P<precision>\w+))?(!(?P<dtype>\w+))?"
)


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """All that a feature vector depends on besides its image, and nothing else.

    No label, split, name or data set is among it: these may change, and no vector is computed again.

    Written `backbone@size`, then, where it differs from the default, `#weights`, `:layer`, `+view`,
    `~pooling`, `=precision` and `!dtype`: `xception@150:block13_sepconv2_act+flip`.

    Attributes:
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
        check_name("feature key", self.file_name, InvalidInputError)

    def __str__(self) -> str:
        text = f"{self.backbone}@{self.size}"
        for mark, name in (("#", "variant"), (":", "layer"), ("+", "view"), ("~", "pooling"), ("=", "precision"), ("!", "dtype")):  # fmt: skip
            value = getattr(self, name)
            if value != _DEFAULTS[name]:
                text += mark + value
        return text

    def file(self, store: AnyStore, dataset: str) -> Path:
        """Return where the rows of a data set's images are written."""
        return features_folder(store, dataset) / (self.file_name + ".h5")

    def find(self, store: AnyStore, dataset: str) -> Path | None:
        """Return where they lie finished, None where they do not."""
        return find_file(store, dataset, "features", self.file_name + ".h5")

    @property
    def file_name(self) -> str:
        """The key as the name of a file, without its suffix."""
        return str(self).replace("/", "_")

    def recipe(self) -> dict[str, Any]:
        """Return what the rows depend on besides their images, for the row store."""
        return {"kind": "features", **asdict(self)}

    @classmethod
    def of(cls, rows: RowFile) -> "FeatureKey":
        """Return the key of a finished file.

        Raises:
            CorruptFileError: It is not a feature file, or something is missing or unknown.
        """
        recipe = recipe_of(rows)
        is_one = recipe.pop("kind", "") == "features" and "contents" in rows.inputs
        if not is_one or {"features", "content"} != set(rows.columns):
            raise CorruptFileError(
                f"{rows.path}: expected a feature file, found {rows.inputs.get('kind', 'another kind')}"
            )
        try:
            return cls(**recipe)
        except TypeError as error:
            raise CorruptFileError(
                f"{rows.path}: expected a feature file of this version, but something is missing or unknown "
                f"({error}); delete it and extract it again"
            ) from error


@record
class ExtractionRecord:
    """How the rows of a feature file were computed by the run that finished it.

    Attributes:
        rows_per_second: Of that run; 0 where every row was carried over.
        computed_rows: Rows that it computed; earlier runs computed the others, or they were copied.
        devices: What it ran on, such as "gpu:0".
        bound: What held it up: "read", "device" or "write".
        gpu_use: Mean use of the GPUs, 0 … 1; None where it is not known.
        carried_rows: Rows that were copied from other files.
    """

    rows_per_second: float
    computed_rows: int
    devices: list[str]
    bound: str
    gpu_use: float | None = None
    carried_rows: int = 0

    @classmethod
    def of(cls, rows: RowFile) -> "ExtractionRecord | None":
        """Return the record of a feature file; None where it has none.

        Raises:
            CorruptFileError: It has another form.
        """
        value = rows.attributes.get("extraction")
        return None if value is None else from_json(cls, value)


_DEFAULTS = {field.name: field.default for field in fields(FeatureKey)}


def key_of_format_1(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a key's fields as they were before images had an identity of their own, as they are now."""
    return {n: v for n, v in fields.items() if n not in ("dataset", "dataset_digest")}


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
    """Feature vectors of every image of a data set, in its row order; labels and splits lie with the data set.

    Attributes:
        X: (N, D), float16 or float32, read-only; a memory map unless it was joined.
        dataset: Name of the data set.
        contents: Identity of its images in their order (hex).
        keys: What the vectors depend on besides; several where sets were joined.
        digest: Identity of vectors and images (hex).
        logits: (N, 1000) ImageNet logits, or None.
        path: The file; the first one's where sets were joined.
    """

    X: np.ndarray
    dataset: str
    contents: str
    keys: tuple[FeatureKey, ...]
    digest: str
    logits: np.ndarray | None
    path: Path

    def __repr__(self) -> str:
        rows, dim = self.X.shape
        return f"<FeatureSet {self.text} of {self.dataset}: {rows:,} × {dim:,} {self.X.dtype}, digest {self.digest[:8]}>"

    @property
    def text(self) -> str:
        """The keys as they are written on a command line, joined by " & "."""
        return " & ".join(map(str, self.keys))

    @classmethod
    def join(cls, sets: Sequence["FeatureSet"]) -> "FeatureSet":
        """Put the vectors of several sets side by side: (N, D1 + D2 + …), of the widest dtype.

        Raises:
            InvalidInputError: They are not of the same images.
        """
        first = sets[0]
        if len(sets) == 1:
            return first
        if len({one.contents for one in sets}) > 1:
            made_of = [f"{one.text} of {one.dataset} {one.contents[:8]}" for one in sets]
            raise InvalidInputError(
                f"expected feature files of the same images, received {', '.join(made_of)}"
            )
        return replace(
            first,
            X=np.concatenate([one.X for one in sets], axis=1),
            keys=tuple(key for one in sets for key in one.keys),
            digest=cls.join_digest(sets),
            logits=None,
        )

    @staticmethod
    def join_digest(sets: Sequence["FeatureSet"]) -> str:
        """Return the digest that the joined sets have, without joining them."""
        if len(sets) == 1:
            return sets[0].digest
        return digest_bytes(*(s.digest.encode() for s in sets))


def features_folder(store: AnyStore, dataset: str) -> Path:
    """Return the folder into which a data set's feature files are written."""
    return root(store) / dataset / "features"


def open_features(path: Path) -> FeatureSet:
    """Open one finished feature file; no vector is read.

    Raises:
        MissingFileError: There is none.
        CorruptFileError: It is not a feature file.
    """
    rows = RowFile.open(path)
    key = FeatureKey.of(rows)
    return FeatureSet(
        X=rows.columns["features"],
        dataset=path.parent.parent.name,
        contents=rows.inputs["contents"],
        keys=(key,),
        digest=rows.attributes.get("digest") or rows.digest,  # a migrated file keeps its own
        logits=_sibling_logits(rows, key),
        path=path,
    )


def _sibling_logits(rows: RowFile, key: FeatureKey) -> np.ndarray | None:
    """Return the ImageNet logits of the same images, backbone, size and view, where they are kept."""
    own = replace(key, layer="", pooling=LOGITS)
    sibling = rows.path.with_name(own.file_name + ".h5")
    if key.pooling == LOGITS or not sibling.exists():
        return None
    logits = RowFile.open(sibling)
    same = {**own.recipe(), "contents": rows.inputs["contents"]}
    return logits.columns["features"] if logits.inputs == same else None


def list_features(store: AnyStore, dataset: str) -> list[Path]:
    """Return a data set's finished feature files, by name."""
    found: dict[str, Path] = {}
    for top in reversed(roots(store)):
        paths = features_folder(top, dataset).glob("*.h5")
        found |= {path.name: path for path in paths if not path.name.startswith(TEMPORARY)}
    return [found[name] for name in sorted(found)]


def resolve_features(store: AnyStore, dataset: str, texts: Sequence[str] = ()) -> list[FeatureSet]:
    """Open the feature files that the key texts name; all but the logits where none is given.

    A text without a precision also means the only file that differs in nothing else.

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
    found = []
    for text in wanted:
        name = text.replace("/", "_")
        alike = [name] if name in by_text else [key for key in by_text if is_named(key, name)]
        if len(alike) != 1:
            raise unknown_name("feature key", text, by_text)
        found.append(open_features(by_text[alike[0]]))
    return found


def is_named(key: str, text: str) -> bool:
    """Say whether a text means a key: it is the key's own, whole or without the precision."""
    return text in (key, re.sub(r"=\w+", "", key))


def check_fresh(features: FeatureSet, contents: str) -> None:
    """Refuse vectors of other images than those that the data set has now, or in another order.

    Args:
        features: The vectors.
        contents: Identity of the data set's images in their order.

    Raises:
        StaleError: Names the file, both digests and the cure.
    """
    if features.contents != contents:
        key = features.keys[0]
        raise StaleError(
            f"{features.path}: its {len(features.X):,} vectors are of other images than {features.dataset} has now, or in "
            f"another order (digest {features.contents[:8]}, now {contents[:8]}); "
            "extract computes those that are new and copies the others",
            remedy=Remedy("extract", features.dataset, extract_flags(key)),
        )


def extract_flags(key: FeatureKey) -> tuple[str, ...]:
    """Return the flags of the extraction that gives the vectors of a key."""
    flags = ["--backbone", key.backbone, "--size", str(key.size)]
    for name in ("layer", "view", "pooling", "dtype"):
        if getattr(key, name) != _DEFAULTS[name]:
            flags += ["--" + name, str(getattr(key, name))]
    if key.precision != _DEFAULTS["precision"]:
        engine, numbers = engine_and_numbers(key.precision)
        flags += [] if engine == "keras" else ["--engine", engine]
        flags += ["--precision", numbers]
    return tuple(flags)


def engine_and_numbers(precision: str) -> tuple[str, str]:
    """Return what computes vectors of a precision, and in which numbers, such as ("openvino", "bfloat16").

    What does not begin with the name of an engine is a dtype policy of Keras, such as "mixed_bfloat16".
    """
    engine, _, numbers = precision.partition("_")
    return (engine, numbers) if numbers and engine != "mixed" else ("keras", precision)


def stored_precisions(store: AnyStore, dataset: str, key: FeatureKey) -> set[str]:
    """Return in which arithmetics a data set has vectors of a key's backbone and size, finished or begun."""
    pattern = f"{glob.escape(key.backbone)}@{key.size}*.h5*"
    folders = [features_folder(top, dataset) for top in roots(store)]
    texts = {path.name.partition(".h5")[0] for folder in folders for path in folder.glob(pattern)}
    found = [parse_key_text(text) for text in texts if KEY_TEXT.fullmatch(text)]
    return {
        parts.get("precision", "float32")
        for parts in found
        if int(parts["size"]) == key.size
        and parts.get("variant", "") == key.variant
        and parts.get("pooling") != WHOLE_MAP
    }


def same_recipe(store: AnyStore, key: FeatureKey) -> tuple[list[RowFile], list[Path]]:
    """Find every vector of a store that was made by a recipe, of whichever data set.

    A file that is damaged, unreadable or of an earlier format gives none.

    Returns:
        Finished files, and folders of the shards of unfinished ones.
    """
    finished = []
    pattern = f"*/features/{glob.escape(key.file_name)}.h5"
    for path in (path for top in roots(store) for path in sorted(top.glob(pattern))):
        try:
            rows = RowFile.open(path)
        except OnepassError as error:
            log.info(f"{error}; nothing is copied from it")
            continue
        if recipe_of(rows) == key.recipe():
            finished.append(rows)
    begun = [path for top in roots(store) for path in sorted(top.glob(pattern + ".parts"))]
    return finished, [folder for folder in begun if _is_of_recipe(folder, key)]


def _is_of_recipe(folder: Path, key: FeatureKey) -> bool:
    try:
        plan = read_plan(folder.with_name(folder.name.removesuffix(".parts")))
    except OnepassError:
        return False
    return plan is not None and plan.kind.recipe == key.recipe()
