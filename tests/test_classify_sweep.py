"""`onepass classify sweep`: its record, its probe, and that it is not run twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from conftest import fields_of
from onepass.cache.artifacts import to_json
from onepass.cache.commandline.command import main
from onepass.cache.errors import UsageError
from onepass.classify import config as classify_config
from onepass.classify.__main__ import COMMANDS
from onepass.classify.config import ClassifyConfig, SweepConfig
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.pipeline import run_probes
from onepass.classify.protocol.evaluate import selected_on
from onepass.classify.search.sweep import run_sweeps
from onepass.classify.search.sweep_record import SweepRecord
from onepass.classify.text import sweep_text
from onepass.data.dataset import ImageDataset


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    data = digits()
    made = write_dataset(tmp_path / "store", data)
    write_features(tmp_path / "store", made, data.X)
    return made


def config(folder: Path, **other: Any) -> SweepConfig:
    fields = {
        "dataset": NAME,
        "learning_rate": (1e-5, 3e-3),
        "penalty": ("0", "l2:1e-4"),
        "epochs": 9,
        "cache_dir": folder / "store",
        "runs_dir": folder / "runs",
    }
    return SweepConfig(**{**fields, **other})


def test_the_record_and_the_probe(tmp_path: Path, dataset: ImageDataset) -> None:
    result = run_sweeps(config(tmp_path))
    (path,), (probe,) = result.paths, result.probes
    record = fields_of(path)
    assert record == {"format": 2, **to_json(result.sweeps[0])} and path.parent.name == "sweeps"
    assert SweepRecord.read(path) == result.sweeps[0]
    assert len(record["heads"]) == 16 == record["rungs"][0]["heads"]
    assert [rung["heads"] for rung in record["rungs"]] == [16, 4, 1]
    assert [rung["epoch"] for rung in record["rungs"]] == [1, 3, 9]
    assert sorted(head["rank"] for head in record["heads"]) == list(range(1, 17))
    best = next(head for head in record["heads"] if head["rank"] == 1)
    assert {**best["params"], "epochs": best["best"]["epochs"]} == probe.params
    assert best["best"]["accuracy"] == probe.selection_top1
    assert all(h["best"] is None or h["best"]["accuracy"] <= probe.selection_top1 for h in record["heads"])  # fmt: skip
    assert max(len(head["history"]) for head in record["heads"]) == 9

    board = Leaderboard.load(tmp_path / "runs" / NAME, NAME, dataset.digest)
    assert board.winner.id == probe.id == record["probe"] and probe.head == "dense"
    assert probe.val_top1 > 0.9 and "val" not in json.dumps(record["heads"])
    head = load_head(board.head_folder(probe))
    val = dataset.rows("val")
    assert head.score(digits().X[val], dataset.labels[val]) == pytest.approx(probe.val_top1)
    text = sweep_text(result)
    assert "16 dense heads (16 to epoch 1, 4 to epoch 3, 1 to epoch 9)" in text
    assert probe.id in text and "Next: onepass finetune" in text


def test_the_same_sweep_is_not_run_again(tmp_path: Path, dataset: ImageDataset, said) -> None:
    small = {"learning_rate": (1e-2,), "dropout": (0.3,), "epochs": 2}
    first = run_sweeps(config(tmp_path, **small))
    state = first.paths[0].with_suffix(".npz")
    state.write_bytes(b"left by a kill after the record was written")
    again = run_sweeps(config(tmp_path, **small))
    assert not state.exists()
    assert (first.ran, again.ran) == (1, 0) and again.sweeps == first.sweeps
    assert "the same sweep was run before" in said.text
    other = run_sweeps(config(tmp_path, **{**small, "mixup": 0.2}))
    assert other.ran == 1 and other.paths != first.paths
    assert other.sweeps[0].fixed["mixup"] == 0.2

    first.paths[0].write_text("{")
    assert run_sweeps(config(tmp_path, **small)).ran == 1
    assert "it is run again" in said.text
    assert SweepRecord.read(first.paths[0]).heads == first.sweeps[0].heads


def test_a_sweep_never_looks_at_the_reported_split(tmp_path: Path, dataset: ImageDataset) -> None:
    """Features that give away the classes of the val and test rows change nothing but their scores."""
    data = digits()
    known = np.where(data.split == 0, 0, data.labels + 1)[:, None]
    for name, column in (("blind", 0 * known), ("spy", known)):
        X = np.hstack([data.X, np.repeat(column, 3, axis=1)]).astype(np.float16)
        write_features(tmp_path / "store", dataset, X, backbone=name)
    keys = ("blind@8", "spy@8")
    result = run_sweeps(config(tmp_path, features=keys, epochs=3, seeds=(0,)))
    blind, spy = result.sweeps
    assert blind.heads == spy.heads
    first, second = result.probes
    assert first.params == second.params and first.selection_top1 == second.selection_top1


def test_few_rows_are_swept_by_folds_and_ranked_with_probes_by_folds(
    tmp_path: Path, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = run_sweeps(config(tmp_path))
    monkeypatch.setattr(classify_config, "FEW_ROWS", 2_000)
    places = {"dataset": NAME, "cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    run_probes(ClassifyConfig(head=("ridge",), **places))
    result = run_sweeps(config(tmp_path))
    (probe,), (sweep,) = result.probes, result.sweeps
    train = len(dataset.rows("train"))
    assert probe.id != split.probes[0].id and result.ran == 1
    assert probe.rows.select == "folds" and probe.rows.selection == sweep.rows.selection == train
    assert [(rung.heads, rung.epoch) for rung in sweep.rungs] == [(16, 1), (4, 3), (1, 9)]
    assert {**sweep.best.params, "epochs": sweep.best.best.epochs} == probe.params
    board = Leaderboard.load(tmp_path / "runs" / NAME, NAME, dataset.digest)
    assert {one.head for one in board.ranked} == {"dense", "ridge"} and board.select == "folds"
    kept = load_probabilities(board.head_folder(probe), probe.rows)
    truth = dataset.labels[selected_on(dataset, probe)]
    right = kept.selection.astype(np.float32).argmax(axis=1) == truth
    assert right.mean() == pytest.approx(probe.selection_top1, abs=0.005)
    assert probe.selection_top1 == pytest.approx(sweep.best.best.accuracy, abs=1e-4)
    assert run_sweeps(config(tmp_path)).ran == 0


def test_mlp_through_the_command(tmp_path: Path, dataset: ImageDataset, capsys) -> None:
    words = "--head mlp --learning-rate 1e-3 3e-3 --penalty 0 l1:1e-5 --dropout 0.2 --seeds 4"
    folders = ["--cache-dir", str(tmp_path / "store"), "--runs-dir", str(tmp_path / "runs")]
    argv = ["sweep", "--dataset", NAME, *words.split(), "--epochs", "6", "--keep", "1", *folders]
    assert main("classify", COMMANDS, [*argv, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert record["head"] == "mlp" and record["fixed"]["hidden_dropout"] == 0.25
    assert [len(head["history"]) for head in record["heads"]] == [6] * 4
    assert record["heads"][1]["params"] == {
        "learning_rate": 1e-3, "l1": 1e-5, "l2": 0.0, "dropout": 0.2, "seed": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"penalty": ("l3:1",)}, "--penalty l3:1: expected 0, l2:NUMBER or l1:NUMBER"),
        ({"penalty": ("l2:much",)}, "--penalty l2:much"),
        ({"seeds": (1, 1)}, "--seeds: expected each value once"),
        ({"seeds": (-1,)}, "0 or above"),
    ],
)
def test_refuses_senseless_flags(tmp_path: Path, other: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config(tmp_path, **other)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--dropout", "1.5"], "dense: expected dropout"),
        (["--epochs", "0"], "expected at least 1 epoch"),
        (["--mixup", "-1"], "dense: expected l1, l2 and mixup"),
    ],
)
def test_refuses_senseless_values_in_one_line(
    tmp_path: Path, dataset: ImageDataset, capsys, words: list[str], line: str
) -> None:
    folders = ["--cache-dir", str(tmp_path / "store"), "--runs-dir", str(tmp_path / "runs")]
    assert main("classify", COMMANDS, ["sweep", "--dataset", NAME, *words, *folders]) == 1
    error = capsys.readouterr().err.strip()
    assert line in error and "\n" not in error
    assert not list((tmp_path / "runs").rglob("*.json"))
