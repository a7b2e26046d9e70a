"""Resize + preprocessing + backbone + pooling as ONE Keras model: uint8 pixels in, vectors out."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from onepass.cache.errors import InvalidInputError, unknown_name
from onepass.extract.backbones import registry
from onepass.extract.backbones.kerashub import CLASS_TOKEN, PATCH_MEAN
from onepass.extract.backbones.spec import BackboneSpec, Preprocessing
from onepass.extract.backend import as_list
from onepass.extract.engines.engine import Engine
from onepass.extract.network.batchnorm_folding import fold_batch_norms
from onepass.extract.network.resize import is_transposed, keys_cubic, random_seed, view_matrices

PUBLISHED = registry.WeightsChoice()
TOKENS = {"token": CLASS_TOKEN, "patches": PATCH_MEAN}  # layers that are poolings of the last one
GEM_POWER = 3.0  # the exponent of Radenović et al., arXiv 1711.02512, where it is not learnt


class Resize(keras.layers.Layer):
    """uint8 (B, H, W, 1 or 3) → float32 (B, size, size, 3) in 0 … 255, whole grey levels.

    Two matrix products, rounded and clipped after each as Pillow does, so that a vector does not
    depend on which of the two resized the image. A grey image is repeated last, when all is done.
    """

    def __init__(self, size: int, view: str = "", **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.size, self.view = size, view

    def build(self, input_shape: tuple) -> None:
        self.height, self.width, self.channels = input_shape[1:]
        self.vertical, self.horizontal = view_matrices(
            self.height, self.width, self.size, self.view
        )
        self.transposed = is_transposed(self.view)

    def call(self, pixels: Any) -> Any:
        rows, columns = (2, 1) if self.transposed else (1, 2)
        x = ops.cast(ops.transpose(pixels, (0, 3, rows, columns)), "float32")
        if (self.height, self.width) != (self.size, self.size) or self.view:
            x = self._resized(x)
        x = ops.transpose(x, (0, 2, 3, 1))
        return x if self.channels == 3 else ops.repeat(x, 3, axis=-1)

    def _resized(self, x: Any) -> Any:
        """The longer side first, as Pillow does: less to compute."""
        if (self.height > self.width) != self.transposed:
            x = _grey_levels(ops.matmul(self.vertical, x))
            return _grey_levels(ops.matmul(x, self.horizontal.T))
        x = _grey_levels(ops.matmul(x, self.horizontal.T))
        return _grey_levels(ops.matmul(self.vertical, x))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], self.size, self.size, 3)

    def get_config(self) -> dict:
        return {**super().get_config(), "size": self.size, "view": self.view}


class RandomResize(keras.layers.Layer):
    """[uint8 (B, H, W, C), boxes (B, 5)] → float32 (B, size, size, 3): a part of each image, resized.

    The boxes are those of `onepass.extract.network.resize.draw_boxes`. The weights are Keys' as in `Resize`, computed
    on the device, one pair of matrices an image.
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.size = size

    def call(self, inputs: Any) -> Any:
        pixels, boxes = inputs
        top, left, height, width, mirror = (boxes[:, i : i + 1] for i in range(5))
        x = ops.cast(ops.transpose(pixels, (0, 3, 1, 2)), "float32")
        places = (ops.arange(self.size, dtype="float32") + 0.5) / self.size
        across = ops.where(mirror > 0.5, places[::-1][None], places[None])
        vertical = cubic_matrices(top + places[None] * height, height, x.shape[2])
        horizontal = cubic_matrices(left + across * width, width, x.shape[3])
        x = ops.matmul(x, ops.transpose(horizontal, (0, 2, 1))[:, None])
        x = ops.clip(ops.matmul(vertical[:, None], x), 0.0, 255.0)
        x = ops.transpose(x, (0, 2, 3, 1))
        return x if x.shape[-1] == 3 else ops.repeat(x, 3, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        return (input_shape[0][0], self.size, self.size, 3)

    def get_config(self) -> dict:
        return {**super().get_config(), "size": self.size}


def cubic_matrices(places: Any, share: Any, pixels: int) -> Any:
    """Return the weights of `onepass.extract.network.resize.bicubic_matrix`, computed on the device for each image.

    Args:
        places: (B, target) where on the axis each wanted pixel has its centre, 0 … 1 within the image.
        share: (B, 1) length of the part that is looked at.
        pixels: Of the axis.

    Returns:
        (B, target, pixels) float32; each row sums to 1.
    """
    widening = ops.maximum(share * pixels / places.shape[1], 1.0)[..., None]
    t = ops.abs(ops.arange(pixels, dtype="float32") + 0.5 - (places * pixels)[..., None]) / widening
    weights = keys_cubic(t, ops.where)
    return weights / ops.sum(weights, axis=-1, keepdims=True)


class Preprocess(keras.layers.Layer):
    """Pixels 0 … 255 → what the backbone was trained on, as its spec says."""

    def __init__(
        self, bgr: bool, scale: Sequence[float], offset: Sequence[float], **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.preprocessing = Preprocessing(bgr, tuple(scale), tuple(offset))  # type: ignore[arg-type]

    def call(self, pixels: Any) -> Any:
        return self.preprocessing.apply(pixels, ops)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict:
        p = self.preprocessing
        return {**super().get_config(), "bgr": p.bgr, "scale": p.scale, "offset": p.offset}


class Pool(keras.layers.Layer):
    """A feature map (B, h, w, D) or a vector (B, D) → float32 (B, D), or (B, 2 D) for avg+max."""

    def __init__(self, pooling: str = "avg", **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.pooling = pooling

    def call(self, features: Any) -> Any:
        x = ops.cast(features, "float32")
        axes = tuple(range(1, len(x.shape) - 1))
        if not axes:
            return x
        if self.pooling == "gem":
            return ops.mean(ops.maximum(x, 1e-6) ** GEM_POWER, axis=axes) ** (1 / GEM_POWER)
        pooled = {"avg": ops.mean, "max": ops.max}
        return ops.concatenate([pooled[name](x, axis=axes) for name in self.pooling.split("+")], -1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        wide = 2 if self.pooling == "avg+max" and len(input_shape) > 2 else 1
        return (input_shape[0], wide * input_shape[-1])

    def get_config(self) -> dict:
        return {**super().get_config(), "pooling": self.pooling}


def _grey_levels(x: Any) -> Any:
    return ops.clip(ops.floor(x + 0.5), 0.0, 255.0)


def build_extractor(
    spec: BackboneSpec,
    size: int,
    pixel_shape: tuple[int, int, int],
    outputs: Sequence[tuple[str, str]] = (("", "avg"),),
    *,
    view: str = "",
    weights: registry.WeightsChoice = PUBLISHED,
    precision: str = "float32",
    inference: bool = False,
) -> keras.Model:
    """Build the model that turns stored pixels into vectors.

    Args:
        spec: The backbone.
        size: Height and width that it sees (px).
        pixel_shape: (H, W, 1 or 3) of a stored image.
        outputs: (layer, pooling) of each vector wanted; layer "" is the last one, and pooling
            "logits" is the backbone's own ImageNet head.
        view: How the image is looked at; see `onepass.extract.network.resize.view_matrices`.
        weights: Of the backbone.
        precision: Of the feature key: its engine's dtype policy is the backbone's; resize and pooling are
            always float32.
        inference: Whether BatchNorms are folded into convolutions: faster, and not to be trained.

    Returns:
        uint8 (B, H, W, C) → list of float32 (B, D), one per output, or the only one without a list;
        logits are (B, 1000). The backbone is its layer named "backbone".

    Raises:
        InvalidInputError: The size is below the minimum, or the weights do not fit.
        UnknownNameError: There is no such layer.
    """
    registry.check_size(spec, size)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(Engine.of(precision).policy)
    try:
        backbone = registry.build_backbone(spec, size, weights.source, weights.sha256, weights.seed)
    finally:
        keras.config.set_dtype_policy(before)
    preprocessing = registry.preprocessing_of(spec, weights.source)
    tapped = tap_layers(backbone, [_tap(backbone, *output) for output in outputs])
    tapped = fold_batch_norms(tapped) if inference else tapped
    pixels = keras.Input(pixel_shape, dtype="uint8", name="pixels")
    inputs = [pixels]
    if random_seed(view) is None:
        x = Resize(size, view, name="resize")(pixels)
    else:
        inputs.append(keras.Input((5,), dtype="float32", name="boxes"))
        x = RandomResize(size, name="resize")(inputs)
    x = Preprocess(preprocessing.bgr, preprocessing.scale, preprocessing.offset, name="preprocess")(
        x
    )
    vectors = []
    for i, (feature_map, (_, pooling)) in enumerate(zip(as_list(tapped(x)), outputs, strict=True)):
        kind = "avg" if pooling == "logits" or pooling in TOKENS else pooling
        vector = Pool(kind, name=f"pool_{i}")(feature_map)
        vectors.append(_own_head(spec, weights.source, vector) if pooling == "logits" else vector)
    return keras.Model(inputs if len(inputs) > 1 else pixels, vectors, name="extractor")


def _tap(backbone: keras.Model, layer: str, pooling: str) -> str:
    """Return the layer that an output is taken from; the poolings of tokens are layers of their own."""
    if pooling not in TOKENS:
        return layer
    if layer or TOKENS[pooling] not in {one.name for one in backbone.layers}:
        raise InvalidInputError(
            f"--pooling {pooling}: expected the last layer of a vision transformer with a class token, received "
            f"{layer or backbone.name}; leave it out"
        )
    return TOKENS[pooling]


def tap_layers(backbone: keras.Model, layers: Sequence[str]) -> keras.Model:
    """Return the backbone with the outputs of these layers, in this order; "" is its own output."""
    known = {layer.name: layer for layer in backbone.layers}
    for name in layers:
        if name and name not in known:
            raise unknown_name(f"layer of {backbone.name}", name, known)
    taps = [known[name].output if name else backbone.output for name in layers]
    return keras.Model(backbone.input, taps, name="backbone")


def _own_head(spec: BackboneSpec, weights: registry.Weights, vectors: Any) -> Any:
    kernel, bias = registry.build_top(spec, weights)
    head = keras.layers.Dense(len(bias), dtype="float32", trainable=False, name="imagenet_logits")
    logits = head(vectors)
    head.set_weights([kernel, bias])
    return logits
