"""Backbone + head as one Keras model, warm-started from the chosen probe."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from cache.errors import InvalidInputError
from extract.backbones.registry import Weights
from extract.backend import as_list
from extract.model import build_extractor
from extract.spec import BackboneSpec
from finetune.augment import Augment
from finetune.augmentation import draw
from finetune.recipes import Recipe

SAME = 1e-3  # how far the logits before training may be from the probe's


class Trainer(keras.Model):
    """[uint8 (B, H, W, C), draws] → logits (B, K), as training sees them.

    The network always runs in inference mode: BatchNorm keeps the statistics it was trained with
    while its scale and shift are trained. A functional model would hand `training=True` down to it.

    Args:
        augment: Stored pixels to images of the backbone's size.
        network: Those to vectors.
        dropout: On the vectors.
        head: Vectors to logits.
    """

    def __init__(
        self,
        augment: keras.layers.Layer,
        network: keras.Model,
        dropout: keras.layers.Layer,
        head: keras.layers.Layer,
    ) -> None:
        super().__init__(name="trainer")
        self.augment, self.network, self.dropout, self.head = augment, network, dropout, head

    def call(self, inputs: Any, training: bool = False) -> Any:
        vectors = as_list(self.network(self.augment(inputs), training=False))[0]
        return self.head(self.dropout(vectors, training=training))


@dataclass(frozen=True, slots=True)
class Classifier:
    """The same weights, once for training and once for prediction.

    Attributes:
        trainer: [uint8 (B, H, W, C), draws of `finetune.augmentation.draw`] → logits (B, K).
        predictor: uint8 (B, H, W, C) → logits (B, K).
        extractor: The frozen stage's own model; its layer "backbone" is what is trained.
        head: The dense layer.
    """

    trainer: keras.Model
    predictor: keras.Model
    extractor: keras.Model
    head: keras.layers.Dense


def build_classifier(
    spec: BackboneSpec,
    size: int,
    pixel_shape: tuple[int, int, int],
    classes: int,
    recipe: Recipe,
    *,
    output: tuple[str, str] = ("", "avg"),
    weights: Weights = "imagenet",
    seed: int = 0,
) -> Classifier:
    """Put a head on the model of the extraction stage and unfreeze it all.

    Args:
        spec: The backbone.
        size: Height and width that it sees (px).
        pixel_shape: (H, W, C) of a stored image.
        classes: K.
        recipe: Dropout and augmentation.
        output: Layer and pooling of the vectors that the head was fitted on.
        weights: Of the backbone.
        seed: For dropout.
    """
    extractor = build_extractor(spec, size, pixel_shape, [output], weights=weights)
    extractor.trainable = True
    head = keras.layers.Dense(classes, dtype="float32", name="head")
    dropout = keras.layers.Dropout(recipe.dropout, seed=seed, dtype="float32", name="dropout")
    pixels = keras.Input(pixel_shape, dtype="uint8", name="pixels")
    vectors = as_list(extractor(pixels))[0]
    predictor = keras.Model(pixels, head(vectors), name="predictor")
    # The trainer resizes in its own way, so it takes the extractor's layers behind the resize.
    network = keras.Model(extractor.get_layer("resize").output, extractor.output, name="network")
    augment = Augment(recipe.augmentation, size, name="augment")
    trainer = Trainer(augment, network, dropout, head)
    draws = draw(recipe.augmentation, pixel_shape, seed, 0, 0, 1)
    trainer([np.zeros((1, *pixel_shape), np.uint8), draws])
    return Classifier(trainer, predictor, extractor, head)


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
    vectors = np.asarray(as_list(classifier.extractor(pixels, training=False))[0])
    logits = np.asarray(classifier.predictor(pixels, training=False))
    apart = float(np.abs(logits - (vectors @ weights + bias)).max())
    if not apart <= SAME:
        raise InvalidInputError(
            f"warm start: logits differ from the probe's by {apart:.2g} (allowed {SAME:g})"
        )
    return apart
