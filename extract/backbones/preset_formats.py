"""In which format a folder holds a backbone: KerasHub's own, or one that KerasHub converts as it loads it.

Repositories of Transformers and timm are told from their config.json, as KerasHub itself tells them, but without
importing it. Which of them it converts stands in two tables here; a test compares them with KerasHub's loaders.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepass.cache.errors import InvalidInputError, MissingFileError
from onepass.cache.files import read_json
from onepass.extract.backbones.spec import Preprocessing, Triple

CONFIG = "config.json"
IMAGE_PROCESSOR = "preprocessor_config.json"
PICKLED = "pytorch_model.bin"
SHARDS = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class PresetFormat:
    """How a library writes a backbone into a folder.

    Attributes:
        library: Whose format it is.
        weights: The file of the weights.
        beside: Files that are read besides, where they are there.
        saved_by: What writes such a folder.
    """

    library: str
    weights: str
    beside: tuple[str, ...]
    saved_by: str


KERASHUB = PresetFormat(
    "KerasHub",
    "model.weights.h5",
    ("image_converter.json", "preprocessor.json"),
    "save_to_preset",
)
TRANSFORMERS = PresetFormat(
    "Transformers", "model.safetensors", (IMAGE_PROCESSOR,), "save_pretrained"
)
TIMM = PresetFormat("timm", "model.safetensors", (), "timm.models.save_for_hf")
BESIDE = (*KERASHUB.beside, *TRANSFORMERS.beside)

# Transformers' model_type → KerasHub's class.
MODEL_TYPES = {
    "deit": "DeiTBackbone",
    "dinov2": "DINOV2Backbone",
    "dinov2_with_registers": "DINOV2Backbone",
    "dinov3_vit": "DINOV3Backbone",
    "swin": "SwinTransformerBackbone",
    "vit": "ViTBackbone",
}
# What timm's architecture begins with → KerasHub's class. Left out is what keras-hub 0.32 converts into another
# network: DenseNet (its stem is padded otherwise), HGNetV2 (without its learnable affine blocks), EfficientNet-EdgeTPU;
# and MobileNetV5 and EfficientNetV2, of which no comparison shows that they are right.
ARCHITECTURES = {
    "csp": "CSPNetBackbone",
    "dark": "CSPNetBackbone",
    "efficientnet_b": "EfficientNetBackbone",
    "efficientnet_lite": "EfficientNetBackbone",
    "mobilenetv3": "MobileNetBackbone",
    "resnet": "ResNetBackbone",
    "vgg": "VGGBackbone",
}
# Settings that KerasHub's converters pass over, and the only value with which the network is still the original.
ONLY = {"use_absolute_embeddings": False, "hidden_act": "gelu", "model_args": {}}
READ = {"dinov3_vit": ("hidden_act",)}  # by the converter of one model_type
# In model_args; channels are always 3, or no weight fits.
OF_THE_HEAD = ("num_classes", "global_pool", "in_chans")


def format_in(folder: Path) -> tuple[PresetFormat | None, str]:
    """Return the format of a folder's config.json, and the class in KerasHub of the backbone.

    Returns:
        The format (None: none that KerasHub loads), and the name of the class; where KerasHub has none for it,
        what was found instead, in words.

    Raises:
        MissingFileError: There is no config.json.
        CorruptFileError: It is no JSON, or too large.
    """
    config = read_json(folder / CONFIG)
    if isinstance(config, dict):
        if "registered_name" in config:
            return KERASHUB, str(config["registered_name"]).removeprefix("keras_hub>")
        if "model_type" in config:
            kind = str(config["model_type"])
            return TRANSFORMERS, MODEL_TYPES.get(kind, f"Transformers' {kind}")
        if "architecture" in config:
            kind = str(config["architecture"])
            fit = (name for start, name in ARCHITECTURES.items() if kind.startswith(start))
            return TIMM, next(fit, f"timm's {kind}")
    return None, "another format"


def check_convertible(folder: Path) -> None:
    """InvalidInputError if a folder of Transformers or timm asks for what KerasHub's converter would pass over, or is in parts."""
    if (folder / SHARDS).exists():  # it names other files, anywhere
        raise InvalidInputError(
            f"{folder / SHARDS}: expected the weights in one file, model.safetensors; save them again with "
            "a max_shard_size that holds them"
        )
    config = read_json(folder / CONFIG)
    read = READ.get(str(config.get("model_type")), ())
    arguments = config.get("model_args", {})
    if isinstance(arguments, dict):
        arguments = {name: one for name, one in arguments.items() if name not in OF_THE_HEAD}
    received = {**config, "model_args": arguments}
    for name, only in ONLY.items():
        if name not in read and received.get(name, only) != only:
            raise InvalidInputError(
                f"{folder / CONFIG}: {name}: expected {only!r}, which is all that KerasHub converts, "
                f"received {received[name]!r}; choose another repository"
            )


def image_processing(folder: Path) -> Preprocessing:
    """Return how Transformers' image processor rescales and normalises pixels; KerasHub reads Swin's only.

    Raises:
        MissingFileError: The folder has none.
        CorruptFileError: Its file is no JSON, or too large.
        InvalidInputError: It has no numbers for three channels.
    """
    path = folder / IMAGE_PROCESSOR
    if not path.is_file():
        raise MissingFileError(
            f"{path}: not there, but it tells what the pixels need; save the image processor beside the model"
        )
    config = read_json(path)
    try:
        factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        normal = config.get("do_normalize", True)
        mean = per_channel(config["image_mean"] if normal else 0.0)
        std = per_channel(config["image_std"] if normal else 1.0)
        return Preprocessing(
            False,
            per_channel([factor / one for one in std]),
            per_channel([-one / deviation for one, deviation in zip(mean, std, strict=True)]),
        )
    except (AttributeError, LookupError, ArithmeticError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"[:160]
        raise InvalidInputError(
            f"{path}: expected the image_mean and image_std of 3 channels ({reason}); save the image processor again"
        ) from error


def per_channel(value: Any) -> Triple:
    """Return one number or three as three numbers.

    Raises:
        InvalidInputError: It is neither.
    """
    numbers = list(value) if hasattr(value, "__len__") else [value]
    if len(numbers) not in (1, 3):
        raise InvalidInputError(f"image converter: expected 1 or 3 numbers, received {value!r}")
    first, second, third = (float(number) for number in (numbers * 3)[:3])
    return first, second, third
