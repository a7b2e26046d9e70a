"""KerasHub presets: the table, and real preset folders that the tests save and load back."""

import json
import shutil

import h5py
import numpy as np
import pytest

from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError, OnepassError
from onepass.extract.backbones import kerashub, registry
from onepass.extract.backbones.table import read_table
from onepass.extract.network.model import build_extractor

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALE, OFFSET = (1 / 255 / STD).tolist(), (-MEAN / STD).tolist()


def _resnet(models):
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )


def _vit(models):
    return models.ViTBackbone(
        image_shape=(224, 224, 3),
        patch_size=56,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )


def _deit(models):
    return models.DeiTBackbone(
        image_shape=(224, 224, 3),
        patch_size=56,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
    )


def _dino(models):
    return models.DINOV2Backbone(
        patch_size=14,
        num_layers=1,
        hidden_dim=8,
        num_heads=2,
        intermediate_dim=16,
        num_register_tokens=4,
        image_shape=(56, 56, 3),
        position_embedding_shape=(56, 56, 3),
    )


def _swin(models):
    return models.SwinTransformerBackbone(
        image_shape=(224, 224, 3),
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 2),
        window_size=7,
    )


def _hgnet(models):
    return models.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[8, 16],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[(8, 4, 8, 1, 2, 3), (8, 4, 16, 1, 2, 3)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
        image_shape=(64, 64, 3),
    )


def _clip(models):
    image = models.CLIPVisionEncoder(
        patch_size=56, hidden_dim=8, num_layers=1, num_heads=2, intermediate_dim=16,
    )  # fmt: skip
    text = models.CLIPTextEncoder(
        vocabulary_size=20, embedding_dim=8, hidden_dim=8, num_layers=1, num_heads=2,
        intermediate_dim=16, max_sequence_length=5,
    )  # fmt: skip
    return models.CLIPBackbone(image, text, projection_dim=8)


def _siglip(models):
    image = models.SigLIPVisionEncoder(
        patch_size=56, hidden_dim=8, num_layers=1, num_heads=2, intermediate_dim=16,
    )  # fmt: skip
    text = models.SigLIPTextEncoder(
        vocabulary_size=20, embedding_dim=8, hidden_dim=8, num_layers=1, num_heads=2,
        intermediate_dim=16, max_sequence_length=5,
    )  # fmt: skip
    return models.SigLIPBackbone(image, text)


# name in our table → (tiny backbone of the same class, size to build, its converter)
TINY = {
    "resnet_18_imagenet": (_resnet, 48, "ResNetImageConverter"),
    "vit_base_patch16_224_imagenet": (_vit, 224, "ViTImageConverter"),
    "deit_tiny_distilled_patch16_224_imagenet": (_deit, 224, "DeiTImageConverter"),
    "dinov2_with_registers_small": (_dino, 56, "DINOV2ImageConverter"),
    "swin_tiny_patch4_window7_224": (_swin, 224, "SwinTransformerImageConverter"),
    "clip_vit_base_patch16": (_clip, 224, "CLIPImageConverter"),
    "siglip_base_patch16_224": (_siglip, 224, "SigLIPImageConverter"),
    "hgnetv2_b4_ssld_stage2_ft_in1k": (_hgnet, 64, "HGNetV2ImageConverter"),
}


def _save(folder, name):
    """Save a tiny backbone and its converter as a preset; return the backbone."""
    import keras
    import keras_hub

    make, _, converter = TINY[name]
    keras.utils.set_random_seed(3)
    backbone = make(keras_hub.models)
    backbone.save_to_preset(str(folder))
    getattr(keras_hub.layers, converter)(scale=SCALE, offset=OFFSET).save_to_preset(str(folder))
    return backbone


@pytest.fixture
def preset(tmp_path):
    """A tiny ResNet preset folder and the spec that it serves."""
    folder = tmp_path / "preset"
    _save(folder, "resnet_18_imagenet")
    return folder, registry.find_backbone("resnet_18_imagenet")


def _pixels(size):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")


def _expected(name, backbone, x):
    """The documented conversion, in NumPy, of what KerasHub's own backbone gives."""
    key = {"images": x} if name.startswith(("dinov2", "clip", "siglip")) else x
    backbone = getattr(backbone, "vision_encoder", backbone)
    output = backbone(key, training=False)
    if isinstance(output, dict):
        return np.asarray(output["stage2"])
    output = np.asarray(output)
    if name.startswith("swin"):
        side = int(output.shape[1] ** 0.5)
        return output.reshape(len(output), side, side, -1)
    prefix = {"vit": 1, "cli": 1, "dei": 2, "din": 5}.get(name[:3])
    if prefix is None:
        return output
    return np.concatenate([output[:, 0], output[:, prefix:].mean(1)], axis=1)


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_saved_preset_gives_identical_outputs(tmp_path, name):
    backbone = _save(tmp_path, name)
    size = TINY[name][1]
    spec = registry.find_backbone(name)
    preprocessing = registry.preprocessing_of(spec, tmp_path)
    x = preprocessing.apply(_pixels(size), np)
    model = registry.build_backbone(spec, size, str(tmp_path))
    assert model.input_shape == (None, size, size, 3)
    got = np.asarray(model(x, training=False))
    assert got.ndim in (2, 4)
    np.testing.assert_allclose(got, _expected(name, backbone, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_base_patch16_224_imagenet", "clip_vit_base_patch16"])
def test_class_token_and_mean_of_patches_can_be_had_alone(tmp_path, name):
    _save(tmp_path, name)
    spec, pixels = registry.find_backbone(name), _pixels(224).astype("uint8")
    outputs = [("", "avg"), ("", "token"), ("", "patches")]
    weights = registry.WeightsChoice(tmp_path)
    model = build_extractor(spec, 224, (224, 224, 3), outputs, weights=weights)
    both, token, patches = map(np.asarray, model(pixels))
    assert token.shape == patches.shape == (2, 8)
    np.testing.assert_allclose(both, np.concatenate([token, patches], axis=1), atol=1e-6)


@pytest.mark.parametrize("pooling", ["token", "patches"])
def test_tokens_are_asked_of_a_backbone_that_has_none(preset, pooling):
    folder, spec = preset
    weights = registry.WeightsChoice(folder)
    with pytest.raises(InvalidInputError, match=f"--pooling {pooling}: expected the last layer"):
        build_extractor(spec, 32, (32, 32, 3), [("", pooling)], weights=weights)


def test_the_image_half_computes_in_the_arithmetic_that_is_asked_for(tmp_path):
    _save(tmp_path, "siglip_base_patch16_224")
    spec, weights = (
        registry.find_backbone("siglip_base_patch16_224"),
        registry.WeightsChoice(tmp_path),
    )
    model = build_extractor(spec, 224, (224, 224, 3), weights=weights, precision="mixed_bfloat16")
    inner = [one for one in model.get_layer("backbone").layers if "encoder_block" in one.name]
    assert inner and all(layer.compute_dtype == "bfloat16" for layer in inner)


def test_preprocessing_is_the_image_converters(preset):
    import keras_hub

    folder, spec = preset
    pixels = _pixels(20)
    converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
    ours = registry.preprocessing_of(spec, folder).apply(pixels, np)
    np.testing.assert_allclose(ours, np.asarray(converter(pixels)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours, (pixels / 255 - MEAN) / STD, rtol=1e-4, atol=1e-4)


def test_digest_of_a_folder(preset):
    folder, spec = preset
    identity = registry.weights_identity(spec, folder)
    registry.build_backbone(spec, 32, folder, weights_sha256=identity)
    converter = folder / "image_converter.json"
    converter.write_text(converter.read_text().replace("bilinear", "bicubic"))
    changed = registry.weights_identity(spec, folder)
    assert changed != identity
    received = changed.removeprefix("sha256:")
    with pytest.raises(CorruptFileError, match=f"received {received}"):
        registry.build_backbone(spec, 32, folder, weights_sha256=identity)


def _refused(spec, folder, error, match):
    for call in (
        lambda: registry.build_backbone(spec, 32, folder),
        lambda: registry.weights_identity(spec, folder),
    ):
        with pytest.raises(error, match=match) as caught:
            call()
        assert isinstance(caught.value, OnepassError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_missing_file_is_named(preset, name):
    folder, spec = preset
    (folder / name).unlink()
    _refused(spec, folder, MissingFileError, name)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "image_converter.json"])
def test_a_truncated_file_is_named(preset, name):
    folder, spec = preset
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    _refused(spec, folder, CorruptFileError, name)


def test_another_class_is_refused(preset):
    folder, _ = preset
    vgg = registry.find_backbone("vgg_16_imagenet")
    _refused(vgg, folder, InvalidInputError, "expected VGGBackbone, received ResNetBackbone")


@pytest.mark.parametrize("place", ["config.json", "image_converter.json"])
def test_a_configuration_that_imports_is_refused(preset, place):
    folder, spec = preset
    config = json.loads((folder / place).read_text())
    config["config"]["dtype"] = {"module": "os", "class_name": "system", "config": ["true"]}
    (folder / place).write_text(json.dumps(config))
    _refused(spec, folder, InvalidInputError, "module 'os'")


def test_weights_of_another_depth_are_refused(preset, tmp_path):
    folder, spec = preset
    config = json.loads((folder / "config.json").read_text())
    config["config"]["stackwise_num_blocks"] = [1, 2]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(OnepassError) as caught:
        registry.build_backbone(spec, 32, folder)
    assert "\n" not in str(caught.value)


def test_weights_left_over_are_refused(preset):
    folder, spec = preset
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        file["layers/one_more/vars/0"] = np.zeros(4, "float32")
    with pytest.raises(InvalidInputError, match="not the weights of resnet_18_imagenet"):
        registry.build_backbone(spec, 32, folder)


def test_no_converter_and_no_folder(preset, tmp_path):
    folder, spec = preset
    (folder / "image_converter.json").unlink()
    with pytest.raises(OnepassError, match="image_converter") as caught:
        registry.preprocessing_of(spec, folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingFileError, match="--weights DIR"):
        registry.build_backbone(spec, 32, tmp_path / "nowhere")


def test_a_preset_that_cannot_be_fetched_is_one_line(monkeypatch, tmp_path, capsys):
    """KerasHub's real download code, sent through a proxy where nothing listens."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    spec = registry.find_backbone("resnet_18_imagenet")
    assert not spec.offline
    with pytest.raises(MissingFileError, match=r"^resnet_18_imagenet: .*--weights DIR") as caught:
        registry.build_backbone(spec, 32)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "size", "match"),
    [
        ("resnet_18_imagenet", 31, "expected 32 "),
        ("vit_base_patch16_384_imagenet", 224, "expected 384 "),
        ("vit_base_patch16_224_imagenet", 240, "exactly 224 px"),
        ("dinov2_base", 224, None),
        ("dinov2_base", 225, "multiple of 14 px"),
        ("mit_b0_ade20k_512", 100, "multiple of 32 px"),
    ],
)
def test_sizes(name, size, match):
    spec = registry.find_backbone(name)
    if match is None:
        registry.check_size(spec, size)
        return
    with pytest.raises(InvalidInputError, match=match):
        registry.check_size(spec, size)


def test_the_table_is_what_the_installed_kerashub_has():
    from onepass.extract.backbones.kerashub_presets import preset_rows

    expected = [{key: str(value) for key, value in row.items()} for row in preset_rows()]
    assert read_table(kerashub.TABLE) == expected


def test_downloaded_presets_count_as_offline(monkeypatch, tmp_path):
    row = next(row for row in read_table(kerashub.TABLE) if row["name"] == "resnet_18_imagenet")
    folder = tmp_path / "models" / row["handle"]
    folder.mkdir(parents=True)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    assert not registry.find_backbone("resnet_18_imagenet").offline
    (folder / "model.weights.h5").write_bytes(b"")
    assert registry.find_backbone("resnet_18_imagenet").offline
    shutil.rmtree(folder)
