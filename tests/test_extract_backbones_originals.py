"""Repositories as Transformers and timm write them: their features are those that these libraries gave.

fixtures/originals.json holds files, names, shapes and features (fixtures/README.md); ONEPASS_ORIGINALS names another such file.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from originals import pixels, weights
from test_extract_backbones_handles import COMMIT, snapshot

from conftest import refused
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError, OnepassError
from onepass.extract.backbones import preset_formats, registry
from onepass.extract.backbones.kerashub_presets import CLASSES
from onepass.extract.network.model import build_extractor

FIXTURE = Path(__file__).parent / "fixtures" / "originals.json"
ORIGINALS = json.loads(Path(os.environ.get("ONEPASS_ORIGINALS", FIXTURE)).read_text())
CLOSE = 2e-5  # of the largest value; float32
# KerasHub resizes the position embeddings of DINOv2 without registers by another cubic kernel than PyTorch;
# timm's own MobileNetV3-Large and EfficientNet-B2 of these weights differ by 4e-4 and 2e-3 between float32 and float64.
LESS_CLOSE = {
    ("dinov2", 84): 1e-2,
    ("mobilenetv3_large_100", 64): 1e-3,
    ("efficientnet_b2", 64): 2e-3,
}


def write(folder: Path, name: str) -> Path:
    """Write the repository of a network into a folder."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for file, content in ORIGINALS[name]["files"].items():
        (folder / file).write_text(json.dumps(content))
    metadata = {"format": "pt"}
    save_file(weights(ORIGINALS[name]["shapes"]), folder / "model.safetensors", metadata=metadata)
    return folder


def native_size(name: str) -> int:
    config = ORIGINALS[name]["files"]["config.json"]
    return config.get("image_size") or config["pretrained_cfg"]["input_size"][1]


def change(folder: Path, file: str = "config.json", **settings: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **settings}))


@pytest.mark.filterwarnings("ignore:Layer .attn.:UserWarning")  # KerasHub's Swin, of its own mask
@pytest.mark.parametrize("name", ORIGINALS)
def test_features_are_the_originals(hub: Path, name: str) -> None:
    write(snapshot(hub, "u/p"), name)
    spec = registry.find_backbone("hf://u/p")
    assert (spec.native_size, spec.offline) == (native_size(name), True)
    assert registry.weights_identity(spec) == f"huggingface:u/p@{COMMIT}"
    for side, rows in ORIGINALS[name]["features"].items():
        size, expected = int(side), np.array(rows)
        model = build_extractor(spec, size, (size, size, 3))
        got = np.asarray(model(pixels(size)))
        difference = np.abs(got - expected).max() / np.abs(expected).max()
        print(f"{name} at {size} px: {difference:.1e} of the largest value")
        assert difference < LESS_CLOSE.get((name, size), CLOSE)


@pytest.mark.parametrize(
    ("original", "name", "size"),
    [("resnet18", "resnet_50_imagenet", 64), ("dinov2", "dinov2_base", 56)],
)
def test_a_local_folder_is_taken_as_well(
    tmp_path: Path, original: str, name: str, size: int
) -> None:
    folder, spec = write(tmp_path, original), registry.find_backbone(name)
    identity = registry.weights_identity(spec, folder)
    model = build_extractor(
        spec, size, (size, size, 3), weights=registry.WeightsChoice(folder, sha256=identity)
    )
    expected = np.array(ORIGINALS[original]["features"][str(size)])
    difference = np.abs(np.asarray(model(pixels(size))) - expected).max()
    assert difference < CLOSE * np.abs(expected).max()


def test_the_tables_are_kerashubs() -> None:
    """Every type in them is converted to that class; what else is converted is left out on purpose."""
    from importlib import import_module
    from pkgutil import iter_modules

    from keras_hub.src.utils import timm, transformers
    from keras_hub.src.utils.timm.preset_loader import TimmPresetLoader
    from keras_hub.src.utils.transformers.preset_loader import TransformersPresetLoader

    for key, table, loader, package in (
        ("model_type", preset_formats.MODEL_TYPES, TransformersPresetLoader, transformers),
        ("architecture", preset_formats.ARCHITECTURES, TimmPresetLoader, timm),
    ):
        for kind, class_name in table.items():
            assert loader("", {key: kind}).check_backbone_class().__name__ == class_name
        modules = [one.name for one in iter_modules(package.__path__) if "convert_" in one.name]
        converted = {
            import_module(f"{package.__name__}.{name}").backbone_cls.__name__ for name in modules
        }
        left_out = {"DenseNetBackbone", "HGNetV2Backbone", "MobileNetV5Backbone"}
        assert (converted & set(CLASSES)) - left_out == set(table.values())


def test_a_changed_processor_is_another_identity(tmp_path: Path) -> None:
    folder, spec = write(tmp_path, "vit"), registry.find_backbone("vit_base_patch16_224_imagenet")
    before = registry.weights_identity(spec, folder)
    change(folder, "preprocessor_config.json", do_normalize=False)
    assert registry.weights_identity(spec, folder) != before
    pixel = np.array([51.0, 102.0, 255.0])
    np.testing.assert_allclose(
        registry.preprocessing_of(spec, folder).apply(pixel, np), [0.2, 0.4, 1.0], rtol=1e-6
    )
    change(folder, "preprocessor_config.json", do_rescale=False)
    np.testing.assert_array_equal(registry.preprocessing_of(spec, folder).apply(pixel, np), pixel)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vit", {"hidden_act": "relu"}, "hidden_act: expected 'gelu', which is all that KerasHub converts, received 'relu'"),
        ("swin", {"use_absolute_embeddings": True}, "use_absolute_embeddings: expected False"),
        ("resnet18", {"model_args": {"num_classes": 10, "output_stride": 8}}, r"model_args: expected {}.*received {'output_stride': 8}"),
        ("resnet18", {"model_args": "x"}, "model_args: expected {}.*received 'x'"),
        ("resnet18", {"x": {"module": "os"}}, "refused, it asks for the module 'os'"),
        ("resnet18", {"architecture": "resnet50d"}, "resnet50d is not supported"),
        ("vit", {"num_hidden_layers": 3}, "KerasHub cannot load it .*layer.2"),
        ("vit", {"hidden_size": 32}, "KerasHub cannot load it"),
        ("vit", {"model_type": "deit", "layer_norm_eps": 1e-6}, "KerasHub cannot load it .*distillation_token|KerasHub cannot load it .*deit"),
    ],
)  # fmt: skip
def test_what_would_be_another_network_is_refused(
    hub: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    change(write(snapshot(hub, "u/p"), name), **settings)
    spec = registry.find_backbone("hf://u/p")
    with refused(OnepassError, message):  # type: ignore[type-abstract]
        registry.build_backbone(spec, native_size(name))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_mean": None}, "preprocessor_config.json: expected the image_mean and image_std of 3 channels"),
        ({"image_std": [1, 0, 1]}, "ZeroDivisionError"),
        ({"image_std": [1, 2]}, "1 or 3 numbers"),
        ({"rescale_factor": "x"}, "TypeError"),
    ],
)  # fmt: skip
def test_what_says_nothing_of_pixels_is_refused(
    hub: Path, settings: dict[str, Any], message: str
) -> None:
    folder = write(snapshot(hub, "u/p"), "vit")
    change(folder, "preprocessor_config.json", **settings)
    spec = registry.find_backbone("hf://u/p")
    with refused(InvalidInputError, message):
        registry.preprocessing_of(spec)
    (folder / "preprocessor_config.json").unlink()
    with refused(MissingFileError, "not there, but it tells what the pixels need"):
        registry.preprocessing_of(spec)


def test_a_configuration_of_timm_without_mean_and_std_is_refused(hub: Path) -> None:
    change(write(snapshot(hub, "u/p"), "resnet18"), pretrained_cfg={})
    with refused(InvalidInputError, "config.json: expected a pretrained_cfg with input_size, mean"):
        registry.preprocessing_of(registry.find_backbone("hf://u/p"))


def test_weights_in_a_pickle_are_never_read(hub: Path) -> None:
    folder = write(snapshot(hub, "u/p"), "resnet18")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    spec = registry.find_backbone("hf://u/p")
    assert not spec.offline
    never = "model.safetensors is not there; pickled weights, pytorch_model.bin, are never read"
    with refused(MissingFileError, never):
        registry.build_backbone(spec, 64)
    for choice in (registry.build_backbone, registry.preprocessing_of):
        arguments = (64,) if choice is registry.build_backbone else ()
        with refused(
            MissingFileError, r"model.safetensors is not there \(pytorch_model.bin is a pickle"
        ):
            choice(registry.find_backbone("resnet_18_imagenet"), *arguments, folder)


def test_damage_parts_and_a_missing_package_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, spec = write(tmp_path, "resnet18"), registry.find_backbone("resnet_18_imagenet")
    weights_file = folder / "model.safetensors"
    whole = weights_file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:100], b"", b"\xff" * 100):
        weights_file.write_bytes(damaged)
        with refused(CorruptFileError, "model.safetensors: expected a file of safetensors, but"):
            registry.build_backbone(spec, 64, folder)
    weights_file.write_bytes(whole)
    parts = folder / "model.safetensors.index.json"
    parts.write_text(json.dumps({"weight_map": {"conv1.weight": "../../etc/passwd"}}))
    with refused(InvalidInputError, "index.json: expected the weights in one file"):
        registry.build_backbone(spec, 64, folder)
    parts.unlink()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with refused(MissingFileError, r'needs safetensors; run: pip install "onepass\[huggingface\]"'):
        registry.build_backbone(spec, 64, folder)


def test_a_network_without_its_name_before_the_weights_is_one_line(hub: Path) -> None:
    """As ViTModel saves itself: KerasHub asks for `vit.embeddings…` only."""
    folder = write(snapshot(hub, "u/p"), "vit")
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "model.safetensors")
    save_file(
        {name.removeprefix("vit."): one for name, one in arrays.items()},
        folder / "model.safetensors",
    )
    with refused(CorruptFileError, "KerasHub cannot load it .*vit.embeddings"):
        registry.build_backbone(registry.find_backbone("hf://u/p"), 32)
