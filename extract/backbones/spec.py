"""What is known of a backbone before it is built, and the arithmetic its pixels need."""

import math
from dataclasses import dataclass
from typing import Any

from onepass.cache.errors import InvalidInputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """One affine map per channel: `y_c = x_c * scale_c + offset_c`.

    Attributes:
        bgr: Whether RGB becomes BGR first; `scale` and `offset` are then in BGR order.
        scale: Factor of each channel, finite and not 0.
        offset: Summand of each channel, finite.
    """

    bgr: bool
    scale: Triple
    offset: Triple

    def __post_init__(self) -> None:
        for field, values in (("scale", self.scale), ("offset", self.offset)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise InvalidInputError(
                    f"preprocessing {field}: expected 3 finite numbers, received {values!r}"
                )
        if 0 in self.scale:
            raise InvalidInputError(
                f"preprocessing scale: expected no 0 (it would erase a channel), received {self.scale!r}"
            )

    def apply(self, x: Any, ops: Any) -> Any:
        """Return the pixels as the backbone wants them.

        Args:
            x: float32, (..., 3), RGB, in 0 … 255.
            ops: `keras.ops` or `numpy`: whichever module made `x`.

        Returns:
            float32 of the same shape.
        """
        if self.bgr:
            x = ops.flip(x, axis=-1)
        if self.scale != (1.0, 1.0, 1.0):
            x = x * ops.array(self.scale, dtype="float32")
        if self.offset != (0.0, 0.0, 0.0):
            x = x + ops.array(self.offset, dtype="float32")
        return x


def _torch_style() -> Preprocessing:
    scale = [1.0 / (255.0 * std) for std in IMAGENET_STD]
    offset = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    return Preprocessing(False, (scale[0], scale[1], scale[2]), (offset[0], offset[1], offset[2]))


# The styles of keras.applications (keras.src.applications.imagenet_utils.preprocess_input);
# "none" is for models that rescale inside. "lite" is EfficientNet-Lite's (x - 127) / 128.
PREPROCESSING: dict[str, Preprocessing] = {
    "none": Preprocessing(False, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    "caffe": Preprocessing(True, (1.0, 1.0, 1.0), (-103.939, -116.779, -123.68)),
    "tf": Preprocessing(False, (1 / 127.5,) * 3, (-1.0, -1.0, -1.0)),
    "torch": _torch_style(),
    "lite": Preprocessing(False, (1 / 128,) * 3, (-127 / 128,) * 3),
}


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """A frozen image backbone: everything the program knows before it is built.

    Attributes:
        name: Lower-case, as on the command line: `efficientnet_lite0`, `resnet50`; or `hf--USER--PRESET`.
        family: Its name in `FAMILIES` of the registry: which module builds it.
        factory: What that module calls it: a function name or a preset handle.
        preprocessing: What the pixels need; None where only the loaded preset tells.
        native_size: Side of the training images, px.
        min_size: Smallest side that it can be built for, px.
        feature_dim: Width of the pooled vector; 0 where only the loaded preset tells.
        weights_mb: Size of the weights file, 10^6 bytes.
        licence: Licence of the weights, as an SPDX name where there is one, else "" (unknown).
        top1: Published ImageNet-1k top-1 accuracy, %; None where none is published.
        offline: Whether the weights are at hand without a network.
        weights: Identity of the default weights: `sha256:<hex>`, `keras:imagenet`,
            `kerashub:<handle>` or `huggingface:<repository>@<commit>`.
    """

    name: str
    family: str
    factory: str
    preprocessing: Preprocessing | None
    native_size: int
    min_size: int
    feature_dim: int
    weights_mb: float
    licence: str
    top1: float | None
    offline: bool
    weights: str

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise InvalidInputError(f"backbone {self.name!r}: {problem}")

    def _problem(self) -> str:
        """Return what is wrong with the fields, or ""."""
        handle = self.name.startswith("hf--")  # whose case counts
        if not self.name or (self.name != self.name.lower() and not handle):
            return "expected a lower-case name"
        if not 1 <= self.min_size <= self.native_size:
            return f"expected 1 <= min_size <= native_size, received {self.min_size}, {self.native_size}"
        if self.feature_dim < 0 or self.weights_mb < 0:
            return f"expected sizes >= 0, received {self.feature_dim} and {self.weights_mb} MB"
        if self.top1 is not None and not 0 <= self.top1 <= 100:
            return f"expected top1 in 0 … 100 %, received {self.top1}"
        if ":" not in self.weights:
            return f"expected a weights identity such as keras:imagenet, received {self.weights!r}"
        return ""
