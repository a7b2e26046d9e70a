"""Image backbones of KerasHub by preset name or handle, from the network or from a local preset folder.

kerashub.csv lists them (written by kerashub_presets.py), so that listing imports nothing.
A preset brings its own preprocessing: the scale and offset of its ImageConverter. Its
resizing is not used; Onepass resizes every backbone's images alike. Folders and repositories of
Transformers and timm are presets too, where KerasHub converts them (preset_formats.py).
"""

import contextlib
import io
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
from onepass.extract.backbones.preset_formats import (
    ARCHITECTURES,
    BESIDE,
    CONFIG,
    KERASHUB,
    MODEL_TYPES,
    PICKLED,
    TRANSFORMERS,
    check_convertible,
    format_in,
    image_processing,
    per_channel,
)
from onepass.extract.backbones.spec import BackboneSpec, Preprocessing
from onepass.extract.backbones.table import models_folder, read_table, spec_of_row
from onepass.extract.backbones.weights_files import (
    another_architecture,
    check_digest,
    check_safetensors,
    count_numbers,
    model_numbers,
)

TABLE = "kerashub.csv"
IMAGE_AND_TEXT = ("CLIPBackbone", "SigLIPBackbone")  # of which the image half is taken
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
            offline=(folder / row["handle"] / KERASHUB.weights).is_file(),
            weights=f"kerashub:{row['handle']}",
        )
        for row in read_table(TABLE)
    ]


@cache
def spec_of(handle: str) -> BackboneSpec:
    """Return the spec of a backbone on Hugging Face's hub; its configuration is fetched, not its weights.

    Args:
        handle: `hf://USER/PRESET`, or as keys have it.

    Raises:
        MissingFileError: It cannot be fetched.
        InvalidInputError: It is no image backbone that KerasHub loads.
    """
    repository = huggingface.repository(handle)
    folder = huggingface.fetch(repository, [CONFIG], BESIDE)
    preset_format, class_name = format_in(folder)
    if preset_format is None or class_name not in CLASSES:
        raise InvalidInputError(
            f"hf://{repository}: expected a KerasHub preset of {', '.join(CLASSES)}, or of Transformers "
            f"{', '.join(MODEL_TYPES)}, or of timm {', '.join(f'{start}*' for start in ARCHITECTURES)}; received {class_name}"
        )
    sides = [side for name in (CONFIG, *BESIDE) for side in _sides(folder / name)]
    native = next(iter(sides), 224)
    weights = folder / preset_format.weights
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


def _sides(path: Path) -> Iterator[int]:
    """Yield what the file of a preset, if it is there, says of the side of its images (px)."""
    waiting = [read_json(path)] if path.is_file() else []
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, dict):
            for name in ("image_shape", "image_size", "input_size"):
                side = value.get(name)  # one number, or h × w, h × w × 3, timm's 3 × h × w
                side = side[1] if isinstance(side, list) and len(side) > 1 else side
                if isinstance(side, int):
                    yield side
            waiting += value.values()


def _class_and_multiple(spec: BackboneSpec) -> tuple[str, int]:
    """Return the class of a preset in KerasHub, and what the size must be a multiple of (0: the native one only)."""
    if not huggingface.is_handle(spec.name):
        row = next(row for row in read_table(TABLE) if row["name"] == spec.name)
        return row["class"], int(row["multiple"])
    _, class_name = format_in(huggingface.fetch(spec.factory, [CONFIG], BESIDE))
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
            preset's configuration is downloaded) or a folder made by `save_to_preset`, Transformers or timm.
        sha256: What the folder's digest must be (see `folder_digest`).
    """
    import keras
    import keras_hub

    class_name, _ = _class_and_multiple(spec)
    folder = _folder(spec, weights, sha256)
    options = {"dtype": keras.config.dtype_policy()}
    if class_name not in IMAGE_AND_TEXT:
        shape = "input_shape" if class_name == "EfficientNetBackbone" else "image_shape"
        options[shape] = (size, size, 3)
    backbone = _load(
        spec,
        folder,
        lambda handle: getattr(keras_hub.models, class_name).from_preset(
            handle, load_weights=weights != "none", **options
        ),
    )
    # Converters ask for every weight by its name, and leave heads and poolers in the file.
    if isinstance(weights, Path) and format_in(weights)[0] is KERASHUB:
        expected, received = model_numbers(backbone), count_numbers(weights / KERASHUB.weights)
        if expected != received:
            raise another_architecture(weights, spec.name, f"{expected:,} weights", f"{received:,}")
    if class_name in IMAGE_AND_TEXT:
        backbone = _image_half(backbone, spec, size)
    return keras.Model(backbone.inputs[0], _one_output(backbone), name=spec.name)


def preprocessing(spec: BackboneSpec, weights: Path | str) -> Preprocessing:
    """Return the scale and offset of the preset's ImageConverter; of Transformers, those of its image processor.

    Raises:
        MissingFileError: The preset cannot be fetched, or brings none of them.
        InvalidInputError: timm's config.json does not tell them.
    """
    import keras_hub

    folder = _folder(spec, weights, None)
    if folder is not None and format_in(folder)[0] is TRANSFORMERS:
        return image_processing(folder)
    converter = _load(spec, folder, keras_hub.layers.ImageConverter.from_preset)
    if converter is None:
        raise InvalidInputError(
            f"{folder}/{CONFIG}: expected a pretrained_cfg with input_size, mean and std, which tells what the pixels "
            "need, received none; save it with a later timm"
        )
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    return Preprocessing(False, per_channel(scale), per_channel(offset))


def folder_digest(folder: Path) -> str:
    """Return the SHA-256, in hex, over the names and digests of the files that are read; the folder was checked."""
    preset_format, _ = format_in(folder)
    assert preset_format is not None  # checked
    beside = (name for name in preset_format.beside if (folder / name).is_file())
    names = [CONFIG, preset_format.weights, *beside]
    return digest_json({name: digest_file(folder / name) for name in names})


def check_folder(spec: BackboneSpec, folder: Path) -> None:
    """Refuse a folder that is no preset of the backbone's class, or that names foreign code.

    Raises:
        MissingFileError: A file, or the package that reads it, is missing.
        InvalidInputError: Another class, a configuration that would import modules
            other than Keras's and KerasHub's, or one that KerasHub would not convert as it is.
        CorruptFileError: A file is truncated.
    """
    if not (folder / CONFIG).is_file():
        raise MissingFileError(
            f"{folder}: expected a preset folder, but {CONFIG} is not there; "
            "make one with save_to_preset"
        )
    preset_format, received = format_in(folder)
    expected, _ = _class_and_multiple(spec)
    if preset_format is None or received != expected:
        raise another_architecture(folder / CONFIG, spec.name, expected, received)
    weights = folder / preset_format.weights
    if not weights.is_file():
        pickled = f" ({PICKLED} is a pickle, which is never read)" * (folder / PICKLED).is_file()
        raise MissingFileError(
            f"{folder}: expected a {preset_format.library} folder, but {weights.name} is not there{pickled}; "
            f"make one with {preset_format.saved_by}"
        )
    for name in (CONFIG, *preset_format.beside):
        if (folder / name).is_file():
            _check_modules(read_json(folder / name), folder / name)
    if preset_format is KERASHUB:
        count_numbers(weights)
        return
    check_convertible(folder)
    check_safetensors(weights)


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


def _folder(spec: BackboneSpec, weights: Path | str, sha256: str | None) -> Path | None:
    """Return the folder of the preset, checked; None for one of the table, which KerasHub fetches itself."""
    if isinstance(weights, Path):
        check_folder(spec, weights)
        check_digest(str(weights), folder_digest(weights) if sha256 else "", sha256)
        return weights.resolve()
    if not huggingface.is_handle(spec.name):
        return None
    folder = huggingface.fetch(spec.factory, [CONFIG], BESIDE)
    preset_format, _ = format_in(folder)
    if weights == "none" or preset_format is None:
        return folder
    folder = huggingface.fetch(spec.factory, [CONFIG, preset_format.weights], BESIDE)
    check_folder(spec, folder)
    return folder


def _load(spec: BackboneSpec, folder: Path | None, load: Callable[[str], Any]) -> Any:
    """Call KerasHub with a folder, or the preset's name; whatever it raises becomes one line."""
    # stdout is for results; what KerasHub says of a download is worth seeing, of a conversion it is not.
    said = sys.stderr if folder is None else io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            return load(spec.factory if folder is None else str(folder))
    except Exception as error:  # requests', kagglehub's and Keras's own, bare ones too
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
        if folder is not None:
            raise CorruptFileError(
                f"{folder}: expected a preset folder of {spec.name}, but KerasHub cannot load it "
                f"({reason}); make it again, or choose another"
            ) from error
        raise MissingFileError(
            f"{spec.name}: KerasHub could not fetch the preset ({reason}); fetch it on another "
            "machine, save it with save_to_preset and give the folder with --weights DIR"
        ) from error


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
