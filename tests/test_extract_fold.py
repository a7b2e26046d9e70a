"""Folding BatchNorm changes the work and not the result."""

import keras
import numpy as np
import pytest

from conftest import randomise
from onepass.extract.backbones.registry import build_backbone, find_backbone
from onepass.extract.network.batchnorm_folding import fold_batch_norms


def norms_of(model: keras.Model) -> int:
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("efficientnet_lite0", 0),
        ("resnet50", 0),
        ("xception", 0),
        ("mobilenetv2", 0),
        ("densenet121", 62),
        ("vgg16", 0),
    ],
)
def test_the_outputs_are_the_same_with_any_statistics(name: str, left: int) -> None:
    model = build_backbone(find_backbone(name), 75, "none")
    randomise(model)
    folded = fold_batch_norms(model)
    assert norms_of(folded) == left
    x = np.random.default_rng(0).normal(size=(2, 75, 75, 3)).astype(np.float32)
    expected, received = (np.asarray(m(x, training=False)) for m in (model, folded))
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(received, expected, atol=2e-4 * np.abs(expected).max())


def small(read_twice: bool = False, tapped: bool = False, activated: bool = False) -> keras.Model:
    x = pixels = keras.Input((6, 6, 3))
    x = conv = keras.layers.Conv2D(4, 3, activation="relu" if activated else None)(x)
    x = keras.layers.BatchNormalization(center=False)(x)
    if read_twice:
        x = keras.layers.Add()([x, conv])
    return keras.Model(pixels, [x, conv] if tapped else x)


def test_a_bias_is_kept_and_a_missing_offset_is_none() -> None:
    model = small()
    randomise(model)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    folded = fold_batch_norms(model)
    assert norms_of(folded) == 0
    np.testing.assert_allclose(
        np.asarray(folded(x)), np.asarray(model(x, training=False)), atol=1e-5
    )


@pytest.mark.parametrize("why", ["read_twice", "tapped", "activated"])
def test_what_others_read_is_left_alone(why: str) -> None:
    model = small(**{why: True})
    assert fold_batch_norms(model) is model
