"""extract/backbones/spec.py: what a spec refuses, and one arithmetic for NumPy and Keras."""

import dataclasses
import math

import numpy as np
import pytest

from onepass.cache.errors import InvalidInputError
from onepass.extract.backbones.spec import PREPROCESSING, BackboneSpec, Preprocessing

GOOD = BackboneSpec(
    name="net",
    family="lite",
    factory="Net",
    preprocessing=PREPROCESSING["none"],
    native_size=224,
    min_size=32,
    feature_dim=8,
    weights_mb=1.5,
    licence="MIT",
    top1=70.0,
    offline=True,
    weights="keras:imagenet",
)


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("name", "Net", "lower-case"),
        ("name", "", "lower-case"),
        ("min_size", 0, "min_size"),
        ("min_size", 225, "native_size"),
        ("feature_dim", -1, "sizes >= 0"),
        ("top1", 101.0, "top1"),
        ("weights", "imagenet", "identity"),
    ],
)
def test_spec_refuses_and_names_the_backbone(field, value, word):
    with pytest.raises(InvalidInputError, match=word) as caught:
        dataclasses.replace(GOOD, **{field: value})
    assert "\n" not in str(caught.value)


def test_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GOOD.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("scale", "offset"),
    [((1.0, 1.0), (0.0,) * 3), ((math.nan, 1, 1), (0.0,) * 3), ((0, 1, 1), (0.0,) * 3)],
)
def test_preprocessing_refuses(scale, offset):
    with pytest.raises(InvalidInputError, match="scale"):
        Preprocessing(False, scale, offset)


@pytest.mark.parametrize("name", sorted(PREPROCESSING))
def test_apply_is_the_same_in_numpy_and_keras(name):
    from keras import ops

    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("float32")
    style = PREPROCESSING[name]
    expected = pixels[..., ::-1] if style.bgr else pixels
    expected = expected.astype("float64") * style.scale + style.offset
    for ops_module, x in ((np, pixels), (ops, ops.convert_to_tensor(pixels))):
        got = np.asarray(style.apply(x, ops_module))
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_lite_preprocessing_is_the_published_formula():
    pixels = np.arange(256, dtype="float32").repeat(3).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(PREPROCESSING["lite"].apply(pixels, np), (pixels - 127) / 128)
