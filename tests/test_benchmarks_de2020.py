"""The three tables of De (2020), filled from leaderboard, sweeps and runs on disk."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from classify_store import NAME, digits, write_dataset, write_features

from conftest import ROOT
from onepass.cache.made_by import MadeBy
from onepass.classify.config import ClassifyConfig, SweepConfig
from onepass.classify.pipeline import run_probes
from onepass.classify.search.sweep import run_sweeps
from onepass.finetune.recipes import RECIPES
from onepass.finetune.session.history import EpochRow
from onepass.finetune.session.result import FinetuneResult
from onepass.finetune.session.run_identity import RunConfig, RunIdentity


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Digits with probes on two "backbones", a finished run, and a run of another state of the data."""
    folder = tmp_path_factory.mktemp("tables")
    store, runs = folder / "store", folder / "runs"
    dataset = write_dataset(store, digits())
    X = digits().X
    write_features(store, dataset, X, backbone="xception")
    key = write_features(store, dataset, X[:, :24], backbone="vgg16")
    run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), cache_dir=store, runs_dir=runs))
    sweep = SweepConfig(
        dataset=NAME, features=("xception@8",), learning_rate=(1e-3,), penalty=("0",), epochs=15,
        dropout=(0.4, 0.65), seeds=(0,), cache_dir=store, runs_dir=runs,
    )  # fmt: skip
    run_sweeps(sweep)
    for run, digest in (("good", dataset.digest), ("stale", "0" * 64)):
        place = runs / NAME / "finetune" / run
        place.mkdir(parents=True)
        identity = RunIdentity(
            NAME, digest, "gone", key.recipe(), RECIPES["de2020"], "all", True, 0, "none", 0
        )
        RunConfig(identity, MadeBy.now()).write(place / "config.json")
        FinetuneResult(
            run=f"{NAME}/{run}", folder=Path(run), start="", warm_start_difference=None,
            history=(EpochRow(1, 1.0, 0.25, 1.0), EpochRow(2, 1.0, 0.75, 1.0)), stopped="",
            probe_top1=0.5, val_top1=0.625, val_interval=(0.6, 0.65), recipe="de2020",
        ).write(place / "result.json")  # fmt: skip
    return store, runs


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("de2020")


def tables(places: tuple[Path, Path], script: ModuleType) -> dict[str, Any]:
    store, runs = places
    script.make_tables(store, runs, NAME)
    return json.loads((runs / NAME / "tables.json").read_text())


def test_ours_and_the_papers_stand_side_by_side(places, script, monkeypatch) -> None:
    numbers = script.paper("tiny-imagenet")
    monkeypatch.setattr(script, "paper", lambda _: numbers)
    found = tables(places, script)
    first = {row["backbone"]: row for row in found["backbones"]}
    board = json.loads((places[1] / NAME / "leaderboard.json").read_text())["results"]
    ours = [probe for probe in board if probe["features"] == ["xception@8"]]
    best = min(ours, key=lambda probe: (-probe["selection_top1"], probe["selection_log_loss"]))
    assert {probe["head"] for probe in ours} == {"ridge", "dense"}
    assert first["xception"]["head"] == best["head"]
    assert first["xception"]["val"] == best["val_top1"] > 0.9
    assert first["xception"]["paper_val"] == pytest.approx(0.582)
    assert first["resnet50"] == {
        "backbone": "resnet50", "size": None, "features": None, "head": None, "val": None,
        "interval": None, "paper_val": None,
    }  # fmt: skip
    last = {row["backbone"]: row for row in found["finetune"]}
    assert last["vgg16"]["run"] == "good" and last["vgg16"]["val"] == 0.625
    assert (last["vgg16"]["before"], last["vgg16"]["train"]) == (0.5, 0.75)
    assert [last["xception"][f"paper_{name}"] for name in ("before", "val", "test")] == [
        pytest.approx(share) for share in (0.582, 0.757, 0.748)
    ]


def test_heads_are_shown_after_as_many_epochs_as_the_papers(places, script) -> None:
    rows = tables(places, script)["heads"]
    ours = [row for row in rows if row["features"]]
    assert [(row["head"], row["epoch"]) for row in ours] == [("dense", 10), ("dense", 15)]
    (path,) = (places[1] / NAME / "sweeps").glob("*.json")
    (best,) = (head for head in json.loads(path.read_text())["heads"] if head["rank"] == 1)
    (entry,) = (entry for entry in best["history"] if entry["epoch"] == 10)
    assert ours[0]["train"] == entry["train_accuracy"] > 0.5
    assert ours[0]["selection"] == entry["selection_accuracy"] > 0.5
    assert {(row["head"], row["epoch"]) for row in rows} == {
        (head, epoch) for head in ("dense", "mlp") for epoch in (10, 15, 20)
    }


def test_another_data_set_has_no_numbers_of_the_paper(places, script) -> None:
    found = tables(places, script)
    assert f"no numbers on {NAME}" in found["note"]
    for name in ("backbones", "heads", "finetune"):
        for row in found[name]:
            assert not any(row[column] for column in row if column.startswith("paper_"))


def test_runs_of_another_state_of_the_data_set_are_left_out(places, script) -> None:
    assert [row["run"] for row in tables(places, script)["finetune"] if row["run"]] == ["good"]


def test_the_papers_numbers_are_per_cents_or_unknown(script) -> None:
    rows = [row for rows in script.paper("tiny-imagenet")["tables"].values() for row in rows]
    assert {v for row in rows for v in row.values() if isinstance(v, float)} == {58.2, 75.7, 74.8}


def test_the_script_prints_three_tables(places, script, capsys) -> None:
    store, runs = places
    flags = ["--dataset", NAME, "--cache-dir", str(store), "--runs-dir", str(runs)]
    assert script.main(flags) == 0
    out = capsys.readouterr().out
    for words in ("Table 1", "Table 2", "Table 3", "xception", "resnet50", "good", "62.5 %"):
        assert words in out
    assert script.main(["--dataset", "nothing", *flags[2:]]) == 1
    assert "nothing" in capsys.readouterr().err
