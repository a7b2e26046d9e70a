"""Two processes and one folder: one of them writes it, from the claim to the result."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import processes
import pytest
from tiny_backbone import unpack_colours

from onepass.cache.commandline.command import FAILED, STOPPED
from onepass.finetune.session.runs import read_run

TRAIN = ("finetune", "--dataset", "colours", "--epochs", "2000", "--batch", "16", "--run", "pair", "--no-select")  # fmt: skip
ABLATE = ("finetune", "ablate", "--dataset", "colours", "--epochs", "2000", "--batch", "16", "--rows", "32")  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_colours(tmp_path_factory.mktemp("migrated"))


@pytest.fixture
def place(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(migrated, tmp_path / "place"))


def start(place: Path, *words: str) -> processes.Process:
    env = {"TINY_BACKBONE": "1", "ONEPASS_CACHE": "store", "ONEPASS_RUNS": "runs"}
    return processes.start(*words, cwd=place, **env)


def await_file(path: Path, process: processes.Process) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def stop(process: processes.Process) -> None:
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == STOPPED, err


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_ino, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def test_the_second_training_ends_at_once_with_the_way_out(place: Path) -> None:
    folder = place / "runs" / "colours" / "finetune" / "pair"
    first = start(place, *TRAIN, "--seed", "0")
    await_file(folder / "config.json", first)
    second = start(place, *TRAIN, "--seed", "1")
    out, err = second.communicate()
    assert second.returncode == FAILED and not out
    (line,) = err.splitlines()
    assert f"finetune/pair: process {first.pid} is writing it now" in line and "--run NAME" in line
    stop(first)
    assert read_run(folder).identity.seed == 0
    assert not folder.with_name("pair.lock").exists()
    third = start(place, *TRAIN, "--seed", "1")  # the folder is free, and another's
    _, err = third.communicate()
    assert third.returncode == FAILED and "seed: 0, now 1" in err and "--run NAME" in err


def test_of_two_that_start_together_one_trains(place: Path) -> None:
    folder = place / "runs" / "colours" / "finetune" / "pair"
    both = [start(place, *TRAIN, "--seed", seed) for seed in "01"]
    await_any(both)
    (loser,) = [one for one in both if one.poll() is not None]
    (winner,) = [one for one in both if one is not loser]
    _, err = loser.communicate()
    assert loser.returncode == FAILED and f"process {winner.pid} is writing it now" in err
    await_file(folder / "config.json", winner)
    stop(winner)
    assert read_run(folder).identity.seed == both.index(winner)


def await_any(running: list[processes.Process]) -> None:
    while all(one.poll() is None for one in running):
        time.sleep(0.02)


def test_a_killed_training_holds_nothing(place: Path) -> None:
    folder = place / "runs" / "colours" / "finetune" / "pair"
    first = start(place, *TRAIN)
    await_file(folder / "config.json", first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start(place, *TRAIN)
    await_holder(folder.with_name("pair.lock"), second)
    stop(second)
    assert not folder.with_name("pair.lock").exists()


def await_holder(lock: Path, process: processes.Process) -> None:
    while not lock.exists() or lock.read_text() != str(process.pid):
        assert process.poll() is None, f"{lock}: not taken"
        time.sleep(0.02)


def test_one_ablation_at_a_time(place: Path) -> None:
    folder = place / "runs" / "colours" / "finetune" / "ablation"
    first = start(place, *ABLATE, "--seed", "0")
    await_holder(folder.with_name("ablation.lock"), first)
    second = start(place, *ABLATE, "--seed", "1")
    _, err = second.communicate()
    (line,) = err.splitlines()
    assert second.returncode == FAILED and f"process {first.pid} is writing it now" in line
    stop(first)


HELD = [
    (("finetune", "errors", "--run", "colours/tiny@16!float32-default"), "finetune/tiny@16!float32-default"),
    (("predict", "colours", "--split", "val", "--out", "answers.txt"), "../../answers.txt"),
    (("predict", "export", "colours/tiny@16!float32-default", "--out", "models"), "../../models/labels.json"),
    (("report", "--dataset", "colours"), "report.html"),
    (("classify", "sweep", "--dataset", "colours", "--epochs", "1"), "leaderboard.json"),
    (("classify", "ensemble", "--dataset", "colours"), "leaderboard.json"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "held"), HELD, ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "")  # fmt: skip
def test_whatever_is_written_in_steps_has_one_writer(
    place: Path, words: tuple[str, ...], held: str
) -> None:
    from onepass.cache.locks import exclusive

    path = Path(os.path.normpath(place / "runs" / "colours" / held))
    before = files_of(place)
    with exclusive(path):
        refused = start(place, *words)
        _, err = refused.communicate()
        assert refused.returncode == FAILED, err
        assert f"{path.name}: process {os.getpid()} is writing it now" in err.splitlines()[-1]
    now = files_of(place)
    assert {name: now.get(name) for name in before} == before
    assert json.dumps(sorted(Path(n).name for n in now.keys() - before.keys())) == "[]"
