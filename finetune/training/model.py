"""Backbone + head as one Keras model, warm-started from the chosen probe."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.extract.backend import as_list, on_accelerator
from onepass.extract.engines.keras_engine import compile_step
from onepass.extract.network.model import Resize
from onepass.finetune.augmentation import Augment, draw
from onepass.finetune.recipes import Recipe
from onepass.finetune.training.batchnorm_fusion import FusedConvolution, fuse_batchnorms
from onepass.finetune.training.layers import frozen_end, unfreeze

# How far the logits before training may be from the probe's, as a share of the largest: an accelerator multiplies
# with 10 bits of mantissa (TF32)
SAME, SAME_ON_ACCELERATOR = 1e-3, 1e-2


class Trainer(keras.Model):
    """[uint8 (B, H, W, C), draws] → logits (B, K), as training sees them.

    Unless asked otherwise the network runs in inference mode: BatchNorm keeps the statistics it was
    trained with while its scale and shift are trained. A functional model would hand `training=True`
    down to it.

    Args:
        augment: Stored pixels to images of the backbone's size.
        frozen: Those to what the trained layers begin with, named after the layer that gives it; None where
            that is the images.
        network: That to vectors.
        top: Vectors to logits.
        statistics: Whether BatchNorm takes its statistics from the batch and updates its own.
    """

    def __init__(
        self, augment: keras.layers.Layer, frozen: keras.Model | None, network: keras.Model,
        top: "Top", statistics: bool,
    ) -> None:  # fmt: skip
        super().__init__(name="trainer")
        self.augment, self.frozen, self.network = augment, frozen, network
        self.top, self.statistics = top, statistics

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.logits(self.augment(inputs), training)

    def logits(self, images: Any, training: bool = False) -> Any:
        """Return the logits (B, K) of images (B, size, size, 3), 0 … 255."""
        maps = images if self.frozen is None else self.frozen(images, training=False)
        return self.logits_of_maps(maps, training)

    def logits_of_maps(self, maps: Any, training: bool = False) -> Any:
        """Return the logits (B, K) of what the frozen layers made of images."""
        vectors = as_list(self.network(maps, training=training and self.statistics))[0]
        return self.top(vectors, training=training)


class Top(keras.layers.Layer):
    """Vectors (B, D) → logits (B, K): dropout, perhaps dense layers, and the head.

    Args:
        classes: K.
        recipe: Dropout and dense layers.
        seed: Of the dropout.
    """

    def __init__(self, classes: int, recipe: Recipe, seed: int) -> None:
        super().__init__(name="top", dtype="float32")
        shares = [recipe.hidden_dropout] * len(recipe.hidden) + [recipe.dropout]
        self.dropouts = [
            keras.layers.Dropout(share, seed=seed + i, dtype="float32")
            for i, share in enumerate(shares)
        ]
        self.hidden = [
            keras.layers.Dense(
                width, "relu", dtype="float32", name=f"hidden_{i}",
                kernel_initializer=keras.initializers.HeNormal(seed + i),
            )
            for i, width in enumerate(recipe.hidden)
        ]  # fmt: skip
        self.head = keras.layers.Dense(
            classes, dtype="float32", name="head",
            kernel_initializer=keras.initializers.GlorotUniform(seed),
        )  # fmt: skip

    def call(self, x: Any, training: bool = False) -> Any:
        for dropout, dense in zip(self.dropouts, [*self.hidden, self.head], strict=True):
            x = dense(dropout(x, training=training))
        return x

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.head.units)


@dataclass(frozen=True, slots=True)
class Classifier:
    """The same weights, once for training and once for prediction.

    Attributes:
        trainer: [uint8 (B, H, W, C), draws of `onepass.finetune.augmentation.draw`] → logits (B, K).
        predictor: uint8 (B, H, W, C) → logits (B, K).
        extractor: The frozen stage's own model; its layer "backbone" is what is trained.
        head: The last dense layer.
    """

    trainer: Trainer
    predictor: keras.Model
    extractor: keras.Model
    head: keras.layers.Dense

    @property
    def backbone(self) -> keras.Model:
        """The network between preprocessing and pooling."""
        return self.extractor.get_layer("backbone")

    def trainer_at(self, size: int) -> Trainer:
        """Return the trainer of images of another side (px); its variables are the same.

        Raises:
            InvalidInputError: The backbone is made for images of one size.
        """
        ours = self.trainer
        if size == ours.augment.size:
            return ours
        images = (size, size, 3)
        try:
            frozen = ours.frozen and resized(ours.frozen, images)
            maps = frozen.output.shape[1:] if frozen else images
            trainer = Trainer(
                Augment(ours.augment.augmentation, size, name="augment"),
                frozen, resized(ours.network, maps), ours.top, ours.statistics,
            )  # fmt: skip
            _build(trainer, tuple(self.predictor.input.shape[1:]))
        except ValueError as error:
            raise InvalidInputError(
                f"first_size: this backbone is made for images of {ours.augment.size} px and does not take {size} px; "
                "leave it out"
            ) from error
        return trainer

    def predictor_at(self, size: int) -> keras.Model:
        """Return the predictor of images of another side (px): uint8 (B, H, W, C) → logits (B, K).

        Raises:
            InvalidInputError: The backbone is made for images of one size.
        """
        trainer = self.trainer_at(size)
        pixels = keras.Input(tuple(self.predictor.input.shape[1:]), dtype="uint8", name="pixels")
        return keras.Model(
            pixels, trainer.logits(Resize(size)(pixels)), name=f"predictor_at_{size}"
        )


def assemble(
    extractor: keras.Model, classes: int, recipe: Recipe, seed: int = 0, which: str = "all"
) -> Classifier:
    """Put a head on the model of the extraction stage and make it trainable.

    Args:
        extractor: As `onepass.extract.network.model.build_extractor` makes it for one vector: layers
            "resize", "preprocess", "backbone", "pool_0".
        classes: K.
        recipe: Dropout, dense layers and augmentation.
        seed: For dropout and random weights.
        which: The layers to be trained; see `onepass.finetune.training.layers.unfreeze`.
    """
    extractor.trainable = True
    unfreeze(extractor.get_layer("backbone"), which)
    top = Top(classes, recipe, seed)
    pixel_shape = tuple(extractor.input.shape[1:])
    pixels = keras.Input(pixel_shape, dtype="uint8", name="pixels")
    predictor = keras.Model(pixels, top(as_list(extractor(pixels))[0]), name="predictor")
    statistics = recipe.batchnorm == "train"
    augment = Augment(recipe.augmentation, extractor.get_layer("resize").size, name="augment")
    trainer = Trainer(augment, *_networks(extractor, statistics), top, statistics)
    _build(trainer, pixel_shape)
    return Classifier(trainer, predictor, extractor, top.head)


def _build(trainer: Trainer, pixel_shape: tuple[int, ...]) -> None:
    draws = draw(trainer.augment.augmentation, pixel_shape, 0, 0, 0, 2)
    inputs = [np.zeros((2, *pixel_shape), np.uint8), draws]
    # by shapes alone: JAX would compile each operation on its way through
    trainer(keras.tree.map_structure(lambda a: keras.KerasTensor(a.shape, a.dtype.name), inputs))


def resized(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Return a functional model of one input with the same layers for inputs of another shape (h, w, C)."""

    def called(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        if isinstance(layer, keras.Model):
            layer = resized(layer, as_list(inputs[0])[0].shape[1:])
        return layer(*inputs, **options)

    images = keras.Input(shape, dtype=model.inputs[0].dtype)
    return keras.models.clone_model(
        model, [images] if isinstance(model.input, list) else images,
        clone_function=lambda layer: layer, call_function=called,
    )  # fmt: skip


def _networks(extractor: keras.Model, statistics: bool) -> tuple[keras.Model | None, keras.Model]:
    """Return the extractor's layers behind its resize, cut where the trained ones begin.

    The trainer resizes in its own way. With statistics of each batch nothing is frozen.
    """
    images = keras.Input(extractor.get_layer("resize").output.shape[1:], name="images")
    x = extractor.get_layer("preprocess")(images)
    backbone, pool = extractor.get_layer("backbone"), extractor.get_layer("pool_0")
    fused = backbone if statistics else fuse_batchnorms(backbone)
    end = None if statistics else frozen_end(fused)
    if end is None:
        return None, keras.Model(images, pool(as_list(fused(x))[0]), name="network")
    last = end._keras_history.operation
    name = last.norm.name if isinstance(last, FusedConvolution) else last.name
    maps = keras.Input(end.shape[1:], dtype=end.dtype, name="maps")
    top = fused.outputs[0]
    trained = maps if end is top else as_list(keras.Model(end, top)(maps))[0]
    return (
        keras.Model(images, keras.Model(fused.inputs, end)(x), name=name),
        keras.Model(maps, pool(trained), name="network"),
    )


def warm_start(
    classifier: Classifier, weights: np.ndarray, bias: np.ndarray, pixels: np.ndarray
) -> float:
    """Give the head the probe's weights and prove that the logits are the probe's.

    Args:
        classifier: As built.
        weights: (D, K) for raw features; the probe's scaler is folded in.
        bias: (K,).
        pixels: A few images, uint8 (n, H, W, C).

    Returns:
        The largest difference between the model's logits and the probe's.

    Raises:
        InvalidInputError: The probe does not fit the backbone, or the difference is above `SAME`.
    """
    expected = tuple(classifier.head.kernel.shape)
    if weights.shape != expected:
        raise InvalidInputError(
            f"the probe's weights: expected {expected} for this backbone, received {weights.shape}"
        )
    classifier.head.set_weights([weights, bias])
    inputs = classifier.predictor.input
    both = keras.Model(
        inputs, [as_list(classifier.extractor(inputs))[0], classifier.predictor.output]
    )
    # compiled: JAX would compile each operation by itself
    vectors, logits = (
        np.asarray(found, np.float32) for found in compile_step(both, len(pixels))(pixels)
    )
    return compare_logits(logits, vectors @ weights + bias, "the probe's")


def compare_logits(logits: np.ndarray, expected: np.ndarray, whose: str) -> float:
    """Return the largest difference between a warm-started network's logits (n, K) and those expected.

    Args:
        logits: Its own.
        expected: Of what it was started from.
        whose: These are, for the message.

    Raises:
        InvalidInputError: The difference is above `SAME`.
    """
    apart = float(np.abs(logits - expected).max())
    allowed = (SAME_ON_ACCELERATOR if on_accelerator() else SAME) * max(1.0, np.abs(logits).max())
    if not apart <= allowed:
        raise InvalidInputError(
            f"warm start: logits differ from {whose} by {apart:.2g} (allowed {allowed:.2g})"
        )
    return apart
