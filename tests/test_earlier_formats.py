"""Stores and results of the commit before Onepass became a package still open, with the same numbers."""

import csv
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_backbone

from onepass.__main__ import run
from onepass.data.dataset import open_dataset

FIXTURE = Path(__file__).parent / "fixtures" / "before_the_package.zip"
KEY, RUN = "tiny@16!float32", "colours/tiny@16!float32-default"
TRAIN = ("finetune", "--dataset", "colours", "--epochs", "2", "--batch", "16")
Onepass = Callable[..., str]


@pytest.fixture
def onepass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Onepass:
    """Run a command in a folder with that store; return what it prints, with `--json` as it is."""
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONEPASS_CACHE", "store")
    monkeypatch.setenv("ONEPASS_RUNS", "runs")

    def call(*words: str) -> str:
        capsys.readouterr()
        code = run(words)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    with tiny_backbone.installed():
        call("cache", "migrate")
        yield call


def test_pixels_and_features_are_found_and_whole(onepass: Onepass) -> None:
    digest = open_dataset(Path("store"), "colours").digest
    assert digest == json.loads(Path("runs/colours/leaderboard.json").read_text())["dataset_digest"]
    assert "5 files verified" in onepass("cache", "verify")
    words = ["--backbone", "tiny", "--size", "16", "--dtype", "float32"]
    (file,) = json.loads(onepass("extract", "--dataset", "colours", *words, "--json"))["files"]
    assert (file["computed"], file["rows"]) == (0, 84)


@pytest.mark.slow
def test_results_are_read_and_go_on_to_be_used(onepass: Onepass) -> None:
    before = json.loads(Path("runs/colours/leaderboard.json").read_text())
    ranked = {probe["id"]: probe["val_top1"] for probe in before["results"]}
    words = ("classify", "--dataset", "colours", "--features", KEY, "--json")
    board = json.loads(onepass(*words, "--head", "centroid"))
    now = {probe["id"]: probe["val_top1"] for probe in board["results"]}
    assert {i: now[i] for i in ranked if i in now} == {i: v for i, v in ranked.items() if i in now}
    assert len(now) >= 6  # the four heads, the ensemble or the sweep's, and the new one

    result = json.loads(onepass(*TRAIN, "--json"))
    assert result["val_top1"] == json.loads(Path(f"runs/colours/finetune/{RUN[8:]}/result.json").read_text())["val_top1"]  # fmt: skip
    assert len(result["history"]) == 2

    onepass("predict", RUN, "--split", "val", "--format", "course", "--out", "run.txt")
    old = Path(f"runs/colours/finetune/{RUN[8:]}/val.txt").read_text()
    assert Path("run.txt").read_text() == old
    (answers,) = Path("runs/colours/predictions").glob("val-*.csv")
    probe = answers.stem.removeprefix("val-")
    onepass(
        "predict", f"colours/{probe}", "--split", "val", "--format", "csv", "--out", "probe.csv"
    )
    assert rows_of(Path("probe.csv")) == rows_of(answers)

    onepass("report", "--dataset", "colours")
    page = Path("runs/colours/report.html").read_text()
    assert "tiny@16" in page and "79.2" in page


def rows_of(path: Path) -> list[list[str]]:
    with path.open() as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_a_checkpoint_of_that_time_is_resumed(onepass: Onepass) -> None:
    """Its weights lie by position, without names; the run ends with the same logits."""
    folder = Path("runs/colours/finetune") / RUN[8:]
    before = np.load(folder / "val_logits.npz")["logits"]
    for name in ("result.json", "weights.npz", "val_logits.npz", "errors.json"):
        (folder / name).unlink()
    result = json.loads(onepass(*TRAIN, "--json"))
    assert [row["epoch"] for row in result["history"]] == [1, 2]
    np.testing.assert_allclose(np.load(folder / "val_logits.npz")["logits"], before, atol=1e-4)


@pytest.mark.slow
def test_a_run_of_that_time_can_be_started_anew_beside_it(onepass: Onepass) -> None:
    shutil.rmtree(Path("runs/colours/finetune"))
    assert json.loads(onepass(*TRAIN, "--json"))["ended"]
