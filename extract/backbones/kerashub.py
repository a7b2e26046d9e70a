"""Image backbones of KerasHub by preset name or handle, from the network or from a local preset folder.

kerashub.csv lists them (written by kerashub_presets.py), so that listing imports nothing.
A preset brings its own preprocessing: the scale and offset of its ImageConverter. Its
resizing is not used; Onepass resizes every backbone's images alike.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.files import read_json
from onepass.cache.provenance import digest_file, digest_json
from onepass.extract.backbones import huggingface
from onepass.extract.backbones.kerashub_presets import CLASSES
from onepass.extract.backbones.spec import BackboneSpec, Preprocessing, Triple
from onepass.extract.backbones.table import models_folder, read_table, spec_of_row
from onepass.extract.backbones.weights_files import (
    another_architecture,
    check_digest,
    count_numbers,
    model_numbers,
)

TABLE = "kerashub.csv"
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
IMAGE_AND_TEXT = ("CLIPBackbone", "SigLIPBackbone")  # of which the image half is taken
CONVERTERS = ("image_converter.json", "preprocessor.json")
CLASS_TOKEN, PATCH_MEAN = "class_token", "patch_mean"
OWN_MODULES = ("keras", "keras_hub")


def specs() -> list[BackboneSpec]:
    """Return one spec per preset; `offline` tells whether kagglehub has it in its cache."""
    folder = models_folder("KAGGLEHUB_CACHE", ".cache/kagglehub")
    return [
        spec_of_row(
            row,
            family="kerashub",
            factory=row["name"],
            preprocessing=None,
            offline=(folder / row["handle"] / WEIGHTS).is_file(),
            weights=f"kerashub:{row['handle']}",
        )
        for row in read_table(TABLE)
    ]


@cache
def spec_of(handle: str) -> BackboneSpec:
    """Return the spec of a preset on Hugging Face's hub; its configuration is fetched, not its weights.

    Args:
        handle: `hf://USER/PRESET`, or as keys have it.

    Raises:
        MissingFileError: It cannot be fetched.
        InvalidInputError: It is no preset of an image backbone of KerasHub.
    """
    repository = huggingface.repository(handle)
    folder = huggingface.fetch(repository, [CONFIG], CONVERTERS)
    class_name = _class_in(folder)
    if class_name not in CLASSES:
        raise InvalidInputError(
            f"hf://{repository}: expected a KerasHub preset of {', '.join(CLASSES)}; received {class_name or 'another format'}"
        )
    sides = [side for name in (CONFIG, *CONVERTERS) for side in _sides(folder / name)]
    native = next(iter(sides), 224)
    weights = folder / WEIGHTS
    return BackboneSpec(
        name=huggingface.safe_name(repository),
        family="kerashub",
        factory=repository,
        preprocessing=None,
        native_size=native,
        min_size=min(CLASSES[class_name][0] or native, native),
        feature_dim=0,
        weights_mb=weights.stat().st_size / 1e6 if weights.is_file() else 0.0,
        licence="",
        top1=None,
        offline=weights.is_file(),
        weights=f"huggingface:{repository}@{folder.name}",
    )


def _class_in(folder: Path) -> str:
    """Return the class of a preset in KerasHub; "" where that is no preset of its own format."""
    config = read_json(folder / CONFIG)
    name = config.get("registered_name") if isinstance(config, dict) else None
    return str(name or "").removeprefix("keras_hub>")


def _sides(path: Path) -> Iterator[int]:
    """Yield what the file of a preset, if it is there, says of the side of its images (px)."""
    waiting = [read_json(path)] if path.is_file() else []
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, dict):
            for name in ("image_shape", "image_size"):
                side = value.get(name)
                side = side[0] if isinstance(side, list) and side else side
                if isinstance(side, int):
                    yield side
            waiting += value.values()


def _class_and_multiple(spec: BackboneSpec) -> tuple[str, int]:
    """Return the class of a preset in KerasHub, and what the size must be a multiple of (0: the native one only)."""
    if not huggingface.is_handle(spec.name):
        row = next(row for row in read_table(TABLE) if row["name"] == spec.name)
        return row["class"], int(row["multiple"])
    class_name = _class_in(huggingface.fetch(spec.factory, [CONFIG], CONVERTERS))
    return class_name, CLASSES[class_name][1]


def check_size(spec: BackboneSpec, size: int) -> None:
    """InvalidInputError if the preset's patches or position embeddings do not fit `size` px."""
    _, multiple = _class_and_multiple(spec)
    if multiple == 0 and size != spec.native_size:
        raise InvalidInputError(
            f"{spec.name}: size: expected exactly {spec.native_size} px (its position embeddings "
            f"allow no other), received {size}"
        )
    if multiple and size % multiple:
        raise InvalidInputError(
            f"{spec.name}: size: expected a multiple of {multiple} px, received {size}"
        )


def build(spec: BackboneSpec, size: int, weights: Path | str, sha256: str | None = None) -> Any:
    """Return the preset as a Keras model with one output that pooling understands.

    Convolutional and window backbones give their last feature map (B, h, w, D); of several stages the
    last. SigLIP gives the vector (B, D) of its own attention pooling. Token sequences of ViT,
    DeiT, DINO and CLIP give (B, 2 D): the class token beside the mean of the patch tokens, as
    DINOv2's linear evaluation does (arXiv 2304.07193); register and distillation tokens are left
    out. Either alone is the output of the layer `CLASS_TOKEN` or `PATCH_MEAN`.

    Args:
        spec: Of this family.
        size: Side of the images, px.
        weights: "imagenet" (the preset's weights, downloaded), "none" (random, but the
            preset's configuration is downloaded) or a folder made by `save_to_preset`.
        sha256: What the folder's digest must be (see `folder_digest`).
    """
    import keras
    import keras_hub

    class_name, _ = _class_and_multiple(spec)
    handle = _handle(spec, weights, sha256)
    options = {"dtype": keras.config.dtype_policy()}
    if class_name not in IMAGE_AND_TEXT:
        shape = "input_shape" if class_name == "EfficientNetBackbone" else "image_shape"
        options[shape] = (size, size, 3)
    backbone = _fetch(
        spec,
        weights,
        lambda: getattr(keras_hub.models, class_name).from_preset(
            handle, load_weights=weights != "none", **options
        ),
    )
    if isinstance(weights, Path):
        expected, received = model_numbers(backbone), count_numbers(weights / WEIGHTS)
        if expected != received:
            raise another_architecture(weights, spec.name, f"{expected:,} weights", f"{received:,}")
    if class_name in IMAGE_AND_TEXT:
        backbone = _image_half(backbone, spec, size)
    return keras.Model(backbone.inputs[0], _one_output(backbone), name=spec.name)


def preprocessing(spec: BackboneSpec, weights: Path | str) -> Preprocessing:
    """Return the scale and offset of the preset's ImageConverter.

    Raises:
        MissingFileError: The preset cannot be fetched, or brings no ImageConverter.
    """
    import keras_hub

    handle = _handle(spec, weights, None)
    converter = _fetch(spec, weights, lambda: keras_hub.layers.ImageConverter.from_preset(handle))
    return Preprocessing(
        False, _per_channel(converter.scale, 1.0), _per_channel(converter.offset, 0.0)
    )


def folder_digest(folder: Path) -> str:
    """Return the SHA-256, in hex, over the names and digests of the files that are read."""
    names = [CONFIG, WEIGHTS, *(name for name in CONVERTERS if (folder / name).is_file())]
    return digest_json({name: digest_file(folder / name) for name in names})


def check_folder(spec: BackboneSpec, folder: Path) -> None:
    """Refuse a folder that is no preset of the backbone's class, or that names foreign code.

    Raises:
        MissingFileError: A file is missing.
        InvalidInputError: Another class, or a configuration that would import modules
            other than Keras's and KerasHub's.
        CorruptFileError: A file is truncated.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise MissingFileError(
                f"{folder}: expected a KerasHub preset folder, but {name} is not there; "
                "make one with save_to_preset"
            )
    for name in (CONFIG, *CONVERTERS):
        if (folder / name).is_file():
            _check_modules(read_json(folder / name), folder / name)
    config = read_json(folder / CONFIG)
    expected = f"keras_hub>{_class_and_multiple(spec)[0]}"
    received = config.get("registered_name") if isinstance(config, dict) else None
    if received != expected:
        raise another_architecture(folder / CONFIG, spec.name, expected, str(received))
    count_numbers(folder / WEIGHTS)


def _check_modules(value: Any, where: Path) -> None:
    """Walk a configuration; every "module" in it must be Keras's or KerasHub's own."""
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    module = value.get("module") if isinstance(value, dict) else None
    if module is not None and str(module).partition(".")[0] not in OWN_MODULES:
        raise InvalidInputError(f"{where}: refused, it asks for the module {module!r}")
    for child in children:
        _check_modules(child, where)


def _handle(spec: BackboneSpec, weights: Path | str, sha256: str | None) -> str:
    """Return what from_preset takes: the preset's name, or a folder that was checked."""
    if not isinstance(weights, Path):
        if not huggingface.is_handle(spec.name):
            return spec.factory
        if weights == "none":
            return str(huggingface.fetch(spec.factory, [CONFIG], CONVERTERS))
        folder = huggingface.fetch(spec.factory, [CONFIG, WEIGHTS], CONVERTERS)
        check_folder(spec, folder)
        return str(folder)
    check_folder(spec, weights)
    check_digest(str(weights), folder_digest(weights) if sha256 else "", sha256)
    return str(weights.resolve())


def _fetch(spec: BackboneSpec, weights: Path | str, load: Callable[[], Any]) -> Any:
    """Call KerasHub; whatever it raises becomes one line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            return load()
    except Exception as error:  # requests', kagglehub's and Keras's own, bare ones too
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
        if isinstance(weights, Path):
            raise CorruptFileError(
                f"{weights}: expected a preset folder of {spec.name}, but it cannot be loaded "
                f"({reason}); make it again with save_to_preset"
            ) from error
        raise MissingFileError(
            f"{spec.name}: KerasHub could not fetch the preset ({reason}); fetch it on another "
            "machine, save it with save_to_preset and give the folder with --weights DIR"
        ) from error


def _per_channel(value: Any, default: float) -> Triple:
    """Return an ImageConverter's scale or offset (None, one number or three) as three numbers."""
    numbers = [default] if value is None else list(value) if hasattr(value, "__len__") else [value]
    if len(numbers) not in (1, 3):
        raise InvalidInputError(f"image converter: expected 1 or 3 numbers, received {value!r}")
    first, second, third = (float(number) for number in (numbers * 3)[:3])
    return first, second, third


def _image_half(backbone: Any, spec: BackboneSpec, size: int) -> Any:
    """Return the network of the images, in today's arithmetic: a preset's halves keep that of their configuration."""
    import keras

    half = backbone.vision_encoder
    side = half.inputs[0].shape[1]
    if side != size:
        raise InvalidInputError(f"{spec.name}: size: expected exactly {side} px, received {size}")
    config = {**half.get_config(), "dtype": keras.config.dtype_policy()}
    made = type(half).from_config(config)
    made.set_weights(half.get_weights())
    return made


def _one_output(backbone: Any) -> Any:
    """Return one Keras tensor: (B, h, w, D), or (B, 2 D) for token sequences."""
    from keras import layers

    output = backbone.output
    if isinstance(output, dict):
        output = output[list(output)[-1]]
    if len(output.shape) != 3:
        return output
    prefix = _prefix_tokens(backbone)
    if prefix == 0:
        side = math.isqrt(output.shape[1])
        return layers.Reshape((side, side, output.shape[2]), name="token_map")(output)
    patches = layers.Cropping1D((prefix, 0), name="patch_tokens")(output)
    mean = layers.GlobalAveragePooling1D(name=PATCH_MEAN)(patches)
    token = layers.Cropping1D((0, output.shape[1] - 1), name=CLASS_TOKEN)(output)
    return layers.Concatenate(name="class_and_patches")([layers.Flatten()(token), mean])


def _prefix_tokens(backbone: Any) -> int:
    """Return how many tokens stand before the patch tokens, the class token first."""
    kind = type(backbone).__name__
    if kind == "CLIPVisionEncoder":
        return 1
    if kind == "DeiTBackbone":
        return 2  # class, distillation
    if kind.startswith("DINO"):
        return 1 + backbone.num_register_tokens
    return int(getattr(backbone, "use_class_token", False))
