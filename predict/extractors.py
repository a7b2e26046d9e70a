"""The frozen networks behind a probe, as new pictures need them."""

from collections.abc import Sequence
from pathlib import Path

import keras

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.extract.backbones.registry import WeightsChoice, find_backbone, weights_identity
from onepass.extract.network import model as network
from onepass.predict.pixel_models import VectorSpec


def build_extractor(
    specs: Sequence[VectorSpec], shape: tuple[int, int, int], file: Path | None = None
) -> keras.Model:
    """Return the network that gives some vectors of one backbone, size, view and precision.

    Args:
        specs: They differ in layer and pooling only.
        shape: (H, W, C) of the pixels.
        file: Weights of the backbone, where they are neither the published ones nor random.

    Raises:
        UsageError: They are of a file, and none is given.
        InvalidInputError: The file's weights are others.
    """
    first = specs[0]
    return _extractor(specs, shape, _weights(first, file))


def random_extractor(specs: Sequence[VectorSpec], shape: tuple[int, int, int]) -> keras.Model:
    """Return the same network with random weights, for others to be put in."""
    return _extractor(specs, shape, WeightsChoice("none"))


def _extractor(
    specs: Sequence[VectorSpec], shape: tuple[int, int, int], weights: WeightsChoice
) -> keras.Model:
    first = specs[0]
    return network.build_extractor(
        find_backbone(first.backbone),
        first.size,
        shape,
        [(spec.layer, spec.pooling) for spec in specs],
        view=first.view,
        weights=weights,
        precision=first.precision,
        inference=True,
    )


def _weights(spec: VectorSpec, file: Path | None) -> WeightsChoice:
    backbone = find_backbone(spec.backbone)
    if spec.weights == backbone.weights:
        return WeightsChoice()
    kind, _, seed = spec.weights.partition(":")
    if kind == "none":
        return WeightsChoice("none", seed=int(seed))
    if file is None:
        raise UsageError(
            f"{spec.backbone}: its features were made with weights of a file ({spec.weights[:20]}…); name it "
            "with --backbone-weights FILE"
        )
    found = weights_identity(backbone, file)
    if found != spec.weights:
        raise InvalidInputError(
            f"{file}: expected the weights {spec.weights[:20]}…, received {found[:20]}…"
        )
    return WeightsChoice(file)
