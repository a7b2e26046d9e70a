"""Handles of Hugging Face's hub as backbones: presets saved by the real library, read by the real client from its cache."""

import json
from pathlib import Path

import numpy as np
import processes
import pytest
from picture_store import write_pictures
from test_extract_backbones_kerashub import TINY, _expected, _pixels, _save

from conftest import refused
from onepass.__main__ import run as onepass
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError, UsageError
from onepass.cache.features import FeatureKey
from onepass.extract.backbones import registry

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def snapshot(hub: Path, repository: str) -> Path:
    """Make the folder of a repository as it lies in the cache once it was downloaded."""
    top = hub / f"models--{repository.replace('/', '--')}"
    (top / "refs").mkdir(parents=True)
    (top / "refs" / "main").write_text(COMMIT)
    folder = top / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("name", "size", "native"),
    [
        ("resnet_18_imagenet", 48, 224),
        ("dinov2_with_registers_small", 56, 56),
        ("clip_vit_base_patch16", 224, 224),
    ],
)
def test_a_handle_is_the_backbone_that_was_saved(
    hub: Path, name: str, size: int, native: int
) -> None:
    backbone = _save(snapshot(hub, "User/Tiny.1"), name)
    spec = registry.find_backbone("hf://User/Tiny.1")
    assert (spec.native_size, spec.offline) == (native, True) and size == TINY[name][1]
    assert registry.weights_identity(spec) == f"huggingface:User/Tiny.1@{COMMIT}"
    x = registry.preprocessing_of(spec).apply(_pixels(size), np)
    model = registry.build_backbone(spec, size)
    np.testing.assert_allclose(
        np.asarray(model(x, training=False)), _expected(name, backbone, x), rtol=1e-5, atol=1e-5
    )


def test_its_name_is_one_of_a_file_and_leads_back_to_it(hub: Path) -> None:
    _save(snapshot(hub, "User/Tiny.1"), "resnet_18_imagenet")
    spec = registry.find_backbone("hf://User/Tiny.1")
    key = FeatureKey(spec.name, spec.weights, 48)
    assert key.file_name == str(key) == "hf--User--Tiny.1@48"
    assert registry.find_backbone(key.backbone) == spec


def test_a_size_that_does_not_fit_its_patches_is_refused(hub: Path) -> None:
    _save(snapshot(hub, "u/dino"), "dinov2_with_registers_small")
    with refused(InvalidInputError, "hf--u--dino: size: expected a multiple of 14 px, received 50"):
        registry.check_size(registry.find_backbone("hf://u/dino"), 50)


@pytest.mark.parametrize("name", ["hf://user", "hf://", "hf://a/b/c", "hf://a/b--c", "hf://a/b@2"])
def test_what_is_no_handle_is_refused(hub: Path, name: str) -> None:
    with refused(UsageError, "expected hf://USER/PRESET"):
        registry.find_backbone(name)


def test_without_a_network_one_line_says_how_to_get_it(hub: Path) -> None:
    with refused(
        MissingFileError, f"run: hf download u/p, and copy its folder models--u--p into {hub}$"
    ):
        registry.find_backbone("hf://u/p")


def test_weights_that_were_not_downloaded_are_named(hub: Path) -> None:
    folder = snapshot(hub, "u/p")
    _save(folder, "resnet_18_imagenet")
    (folder / "model.weights.h5").unlink()
    spec = registry.find_backbone("hf://u/p")
    assert not spec.offline
    with refused(MissingFileError, "hf://u/p: not in Hugging Face's cache"):
        registry.build_backbone(spec, 32)


@pytest.mark.parametrize(
    ("config", "received"),
    [
        ({"registered_name": "keras_hub>BertBackbone"}, "BertBackbone"),
        ({"model_type": "siglip"}, "Transformers' siglip"),
        ({"architecture": "convnext_tiny"}, "timm's convnext_tiny"),
        ({"architecture": "densenet121"}, "timm's densenet121"),
        ({"architecture": "efficientnet_es"}, "timm's efficientnet_es"),
        ({}, "another format"),
        ([], "another format"),
    ],
)
def test_what_is_no_image_backbone_of_kerashub_is_refused(
    hub: Path, config: object, received: str
) -> None:
    (snapshot(hub, "u/p") / "config.json").write_text(json.dumps(config))
    with refused(
        InvalidInputError,
        f"hf://u/p: expected a KerasHub preset of CLIPBackbone, .*received {received}",
    ):
        registry.find_backbone("hf://u/p")


def test_foreign_code_and_damage_are_refused(hub: Path) -> None:
    folder = snapshot(hub, "u/p")
    _save(folder, "resnet_18_imagenet")
    spec = registry.find_backbone("hf://u/p")
    weights, config = folder / "model.weights.h5", folder / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFileError, match=r"model\.weights\.h5"):
        registry.build_backbone(spec, 32)
    weights.write_bytes(whole)
    config.write_text(config.read_text().replace('"keras_hub.src', '"evil.src'))
    with pytest.raises(InvalidInputError, match="refused, it asks for the module"):
        registry.build_backbone(spec, 32)


def given(cache: str, *words: str) -> int:
    """Give a command with this cache: the client's settings are read when it is imported, which was before."""
    from huggingface_hub import constants

    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = cache, True
    return onepass(words)


@pytest.mark.slow
def test_the_commands_take_a_handle(tmp_path: Path) -> None:
    """From pictures to answers, without a network."""
    hub = tmp_path / "hub"
    _save(snapshot(hub, "User/Tiny.1"), "resnet_18_imagenet")
    write_pictures(tmp_path / "birds")
    for line in (
        "data prepare birds",
        "extract --dataset birds --backbone hf://User/Tiny.1 --size 32",
        "classify --dataset birds --head ridge",
        "predict birds birds/val/jay --out answers.csv",
    ):
        done = processes.run(str(hub), *line.split(), cwd=tmp_path, CALL=f"{__name__}:given")
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "cache/store/birds/features/hf--User--Tiny.1@32.h5").is_file()
    assert len((tmp_path / "answers.csv").read_text().splitlines()) > 1
