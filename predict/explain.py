"""Where in a picture the evidence for its class lies: class activation maps.

Behind average pooling a linear head commutes with the mean: the head applied to each place of the feature map
gives a map whose mean is the logit, exactly (Zhou, Khosla, Lapedriza, Oliva and Torralba, "Learning Deep
Features for Discriminative Localization", CVPR 2016).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from onepass.cache.errors import UsageError
from onepass.classify.heads.base import LinearHead
from onepass.data.shown import as_image, encoded
from onepass.predict.pixel_classifier import PixelClassifier
from onepass.predict.pixel_models import (
    PIXELS,
    EnsembleModel,
    MeanModel,
    PixelModel,
    ProbeModel,
    RunModel,
    filled,
)

if TYPE_CHECKING:
    import keras

    from onepass.predict.pictures.answers import Answer
    from onepass.predict.pictures.sources import Picture

BATCH = 8  # images at a time: feature maps are large
SHOWN = 256  # side of an overlay, at least (px)
STRONGEST = 0.65  # how much of a pixel is the colour where the evidence is greatest
COLOUR = (230, 60, 0)


@dataclass(frozen=True, slots=True)
class ActivationMaps:
    """A network up to its feature map, and the linear head behind the mean of it.

    Attributes:
        step: uint8 (BATCH, H, W, C) → feature maps (BATCH, h, w, D) float32.
        weights: (D, K) float32.
        bias: (K,) float32.
    """

    step: Callable[[np.ndarray], list[Any]]
    weights: np.ndarray
    bias: np.ndarray

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """Return the map (n, h, w, K) of each class, whose mean over the image is its logit.

        Args:
            pixels: uint8 (n, H, W, C), n >= 1.
        """
        parts = []
        for start in range(0, len(pixels), BATCH):
            some = pixels[start : start + BATCH]
            features = np.asarray(self.step(filled(some, BATCH))[0], np.float32)[: len(some)]
            parts.append(features @ self.weights + self.bias)
        return np.concatenate(parts)


def activation_maps(pictures: PixelClassifier) -> ActivationMaps:
    """Return what gives the maps of a model; of several members, that of the one that counts most.

    Raises:
        UsageError: It has no member with a linear head behind average pooling.
    """
    model = _explainable(pictures.model)
    if model is None:
        raise UsageError(
            "class activation maps: expected a linear head on one backbone with average pooling, such as a "
            "logistic probe or a fine-tuned run without dense layers; this model has none"
        )
    from onepass.extract.engines.keras_engine import compile_step

    if isinstance(model, RunModel):
        predictor = model.network()
        top = predictor.get_layer("top")
        if top.hidden:
            raise UsageError(
                f"class activation maps: expected a run without dense layers before its head, received {model.run}"
            )
        weights, bias = top.head.get_weights()
        extractor = predictor.get_layer("extractor")
    else:
        assert isinstance(model.head, LinearHead)
        weights, bias = model.head.linear()
        extractor = pictures.build_extractor(model.views[0], pictures.geometry.shape)
    step = compile_step(_up_to_the_map(extractor), BATCH)
    return ActivationMaps(step, np.asarray(weights), np.asarray(bias))


def _explainable(model: PixelModel) -> ProbeModel | RunModel | None:
    """Return the part of a model that has maps, of several the one that counts most; None where none has."""
    if isinstance(model, EnsembleModel | MeanModel):
        order = np.argsort(-np.asarray(model.weights), kind="stable")
        found = (_explainable(model.members[i]) for i in order)
        return next((one for one in found if one is not None), None)
    if isinstance(model, RunModel):
        return model
    assert isinstance(model, ProbeModel)
    (first, *others) = model.views[0]
    good = not others and first.pooling == "avg" and first.backbone != PIXELS and not first.view
    return model if good and isinstance(model.head, LinearHead) else None


def _up_to_the_map(extractor: "keras.Model") -> "keras.Model":
    """Return the network without its pooling."""
    import keras

    pool = extractor.get_layer("pool_0")
    if pool.pooling != "avg" or len(pool.input.shape) != 4:
        raise UsageError(
            "class activation maps: expected average pooling of a feature map, received another"
        )
    return keras.Model(extractor.input, pool.input)


class Explainer:
    """Writes an overlay of each picture into a folder: what speaks for its most probable class.

    Args:
        folder: Where they go; nothing there is overwritten.
        pictures: The model.
    """

    def __init__(self, folder: Path, pictures: PixelClassifier) -> None:
        self.folder, self._maps = folder, activation_maps(pictures)

    def write(
        self,
        pixels: np.ndarray,
        some: Sequence[tuple["Picture", "Answer"]],
        column: Callable[[str], int],
    ) -> None:
        """Write the overlays of some pictures.

        Args:
            pixels: uint8 (n, H, W, C), as the network saw them.
            some: The n pictures and their answers.
            column: Gives the column of a class id.
        """
        from onepass.predict.pictures.sorting import write_new

        columns = [column(answer.top[0].class_id) for _, answer in some]
        maps = evidence_for(self._maps.maps(pixels), columns)
        for (picture, answer), seen, evidence in zip(some, pixels, maps, strict=True):
            best = answer.top[0]
            name = f"{Path(picture.name).stem} {best.class_name} {best.probability:.2f}.png"
            write_new(self.folder, name, encoded(overlay(seen, evidence)))


def evidence_for(maps: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Return what speaks for one class of each image, (n, h, w), from its maps (n, h, w, K).

    What all classes share says nothing, and is taken out, as softmax does.
    """
    chosen = np.stack([one[:, :, k] for one, k in zip(maps, columns, strict=True)])
    return chosen - maps.mean(axis=3)


def overlay(pixels: np.ndarray, evidence: np.ndarray) -> Image.Image:
    """Return a picture with what speaks for a class laid over it in colour; what speaks against it is left.

    Args:
        pixels: uint8 (H, W, 1 or 3).
        evidence: (h, w).
    """
    image = as_image(pixels).convert("RGB")
    side = max(SHOWN, *image.size)
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    strength = np.maximum(evidence, 0) / max(float(evidence.max()), 1e-6)
    small = Image.fromarray((255 * STRONGEST * strength).astype(np.uint8))
    mask = small.resize(image.size, Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", image.size, COLOUR), image, mask)
