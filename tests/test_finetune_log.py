"""`--log tensorboard mlflow`: every number once, also of a run that was killed and resumed."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import processes
import pytest

from conftest import refused
from onepass.cache import tracking
from onepass.cache.errors import MissingFileError, OnepassError
from onepass.cache.tracking import LoggedRun, Logs, Point
from onepass.finetune.session.history import EpochRow, SelectionScore, points_of

LOG = ("--log", "tensorboard", "mlflow")
TRAIN = (
    "finetune", "--dataset", "digits", "--rows", "320", "--batch", "2", "--epochs", "3", "--run", "logged", *LOG,
)  # fmt: skip


def run(home: Path, *words: str) -> str:
    done = processes.run(*words, cwd=home, TINY_BACKBONE="1")
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Probes that were logged, and a run that was killed after its first epoch and resumed."""
    home = tmp_path_factory.mktemp("logged")
    run(home, "data", "prepare", "digits")
    run(home, "extract", "--dataset", "digits", "--backbone", "tiny", "--size", "32")
    run(home, "classify", "--dataset", "digits", "--head", "ridge", "centroid", *LOG)
    processes.interrupted("SIGKILL", "epoch 1 of 3: loss", *TRAIN, cwd=home, TINY_BACKBONE="1")
    said = run(home, *TRAIN)
    assert "resuming after epoch" in said
    assert "logged to runs/digits/finetune/logged/tensorboard (tensorboard --logdir runs)" in said
    assert f"sqlite:///{home}/runs/mlflow.db (mlflow ui --backend-store-uri " in said
    return home


def events(folder: str) -> int:
    """Print what TensorBoard reads in a folder, (step, value) by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(folder).Reload()
    print(json.dumps({name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}))  # fmt: skip
    return 0


def tracked(uri: str) -> int:
    """Print what MLflow has: the state of each run, its settings, and (step, value) by name."""
    from mlflow import MlflowClient

    client, runs = MlflowClient(uri), {}
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    for one in client.search_runs([experiment.experiment_id]):
        values = {n: [(m.step, m.value) for m in client.get_metric_history(one.info.run_id, n)] for n in one.data.metrics}  # fmt: skip
        assert one.info.run_name not in runs
        runs[one.info.run_name] = [one.info.status, one.data.params, values]
    print(json.dumps(runs))
    return 0


def read(how: str, where: object) -> dict:
    done = processes.run(str(where), CALL=f"test_finetune_log:{how}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_killed_run_goes_on_in_the_same_log_with_every_epoch_once(home: Path) -> None:
    folder = home / "runs" / "digits" / "finetune" / "logged"
    result = json.loads((folder / "result.json").read_text())
    history, start = result["history"], result["start_selection"]
    expected = {
        "train/loss": [(row["epoch"], row["loss"]) for row in history],
        "train/accuracy": [(row["epoch"], row["accuracy"]) for row in history],
        "selection/loss": [(0, start["loss"]), *((row["epoch"], row["selection_loss"]) for row in history)],
        "selection/accuracy": [(0, start["accuracy"]), *((row["epoch"], row["selection_accuracy"]) for row in history)],
        "validation/top1": [(3, result["val_top1"])],
    }  # fmt: skip
    for _ in range(2):
        shown, (state, settings, kept) = (
            read("events", folder / "tensorboard"),
            read("tracked", f"sqlite:///{home}/runs/mlflow.db")["logged"],
        )
        for name, points in expected.items():
            assert [tuple(one) for one in shown[name]] == [
                (step, pytest.approx(value)) for step, value in points
            ]
            assert sorted(map(tuple, kept[name])) == [
                (step, pytest.approx(value)) for step, value in points
            ]
        assert shown.keys() == kept.keys() == expected.keys()
        assert state == "FINISHED" and settings["rows"] == "320" and settings["batch"] == "2"
        run(home, *TRAIN)  # it is finished, and nothing is written twice


@pytest.mark.slow
def test_each_probe_is_a_run(home: Path) -> None:
    board = json.loads((home / "runs" / "digits" / "leaderboard.json").read_text())
    runs = read("tracked", f"sqlite:///{home}/runs/mlflow.db")
    probes = [probe for probe in board["results"] if probe["head"] == "ridge"]
    (probe,) = probes
    state, settings, values = runs[probe["id"]]
    assert state == "FINISHED" and settings["features"] == "tiny@32"
    assert values["validation/top1"] == [[0, pytest.approx(probe["val_top1"])]]
    assert len(runs) == len(board["results"]) + 1
    folder = home / "runs" / "digits" / "heads" / probe["id"] / "tensorboard"
    assert read("events", folder)["selection/top1"] == [[0, pytest.approx(probe["selection_top1"])]]


def logged(tmp_path: Path) -> LoggedRun:
    return LoggedRun("d", "a", "1", tmp_path / "a", tmp_path, {})


def test_a_log_that_is_not_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with refused(MissingFileError, r'--log mlflow: .* run: pip install "onepass\[mlflow\]"'):
        Logs(["mlflow"], logged(tmp_path))


class Broken:
    """A server that is gone."""

    place = "http://tracker"

    def write(self, points: Sequence[Point]) -> None:
        raise ConnectionError("no route\nto host")

    def close(self, finished: bool) -> None:
        raise AssertionError("it was given up")


def test_a_server_that_goes_away_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "MlflowLog", lambda run: Broken())
    with Logs(["mlflow"], logged(tmp_path)) as logs:
        logs.write([Point(0, {"a": 1.0}, 0.0)])
        logs.write([Point(1, {"a": 1.0}, 0.0)])
    lines = [one for one in said.records if one.levelno == logging.WARNING]
    assert [one.message.partition(";")[0] for one in lines] == [
        "http://tracker: cannot be written now (no route to host)"
    ]


def test_a_server_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(run: LoggedRun) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tracking, "MlflowLog", gone)
    with refused(OnepassError, r"--log mlflow: cannot be opened \(no route to host\)"):
        Logs(["mlflow"], logged(tmp_path))


def test_epochs_are_dated_one_after_the_other_until_now() -> None:
    history = [EpochRow(n, 1.0, 0.5, 10.0 * n) for n in (1, 2)]
    start, first, second = points_of(history, SelectionScore(0.5, 1.0))
    assert (first.time - start.time, second.time - first.time) == pytest.approx((10, 20))
    assert start.values == {"selection/accuracy": 0.5, "selection/loss": 1.0}
    assert first.values == {"train/loss": 1.0, "train/accuracy": 0.5}
