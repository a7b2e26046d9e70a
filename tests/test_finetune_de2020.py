"""The recipe of De (2020), as written, on the first blocks of its three backbones, through the real commands."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, Digits, digits, write_dataset, write_features

from conftest import ROOT
from onepass.cache.commandline.command import main
from onepass.classify.config import ClassifyConfig
from onepass.classify.pipeline import run_probes

# backbone, size, width of its vectors: Xception takes 71 px at least, the others 32
BACKBONES = (("vgg16", 32, 256), ("resnet50", 32, 256), ("xception", 71, 256))
# up to where a network is kept: what is in it, each of its kinds of layers and a branch, is all there
LAST = {"VGG16": "block3_pool", "ResNet50": "conv2_block2_out", "Xception": "block3_sepconv2_bn"}


@pytest.fixture
def first_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Keras make no more than the first blocks of the three."""
    import keras

    for factory, last in LAST.items():

        def cut(*, last: str = last, make: Any = getattr(keras.applications, factory), **options: Any) -> Any:  # fmt: skip
            whole = make(**options)
            return keras.Model(whole.input, whole.get_layer(last).output)

        monkeypatch.setattr(keras.applications, factory, cut)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Few digits of two classes, and probes on vectors that stand for those of random backbones."""
    folder = tmp_path_factory.mktemp("recipe")
    store, runs = folder / "store", folder / "runs"
    few = np.arange(0, 360, 6)
    all_digits = digits(classes=2)
    data = Digits(
        *(array[few] for array in (all_digits.pixels, all_digits.labels, all_digits.split))
    )
    dataset = write_dataset(store, data)
    for backbone, size, width in BACKBONES:
        X = np.repeat(data.X, -(-width // 64), axis=1)[:, :width]
        write_features(
            store, dataset, X, backbone=backbone, size=size, weights="none:0", variant="none0"
        )
    run_probes(ClassifyConfig(dataset=NAME, head=("dense",), cache_dir=store, runs_dir=runs))
    return store, runs


@pytest.mark.slow
@pytest.mark.usefixtures("first_blocks")
def test_the_recipe_runs_and_fills_the_three_tables(places, capsys, monkeypatch) -> None:
    from onepass.finetune.__main__ import COMMANDS

    store, runs = places
    flags = ["--dataset", NAME, "--cache-dir", str(store), "--runs-dir", str(runs)]
    few = ["--weights", "none", "--epochs", "1", "--batch", "8", "--rows", "16", "--no-select"]
    for backbone, size, _ in BACKBONES:
        words = ["--from", f"{backbone}@{size}#none0", "--recipe", "de2020", "--run", backbone]
        assert main("finetune", COMMANDS, [*words, *few, *flags]) == 0, capsys.readouterr().err
    capsys.readouterr()
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    assert importlib.import_module("de2020").main(flags) == 0
    out = capsys.readouterr().out
    found = json.loads((runs / NAME / "tables.json").read_text())
    ours = {row["run"]: row for row in found["finetune"]}
    for backbone, size, _ in BACKBONES:
        row = ours[backbone]
        assert (row["backbone"], row["size"], row["recipe"]) == (backbone, size, "de2020")
        assert 0 <= row["val"] <= 1 and 0 <= row["train"] <= 1 and row["before"] is not None
        (frozen,) = (r for r in found["backbones"] if r["backbone"] == backbone)
        assert frozen["head"] == "dense" and frozen["size"] == size
        assert out.count(backbone) >= 2  # in table 1 and in table 3
    result = json.loads((runs / NAME / "finetune" / "xception" / "result.json").read_text())
    settings = result["settings"]
    assert (settings["dropout"], settings["learning_rate"]) == (0.4, 1e-5)
