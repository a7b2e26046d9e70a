"""onepass run: one command for all stages, which shows the commands that it stands for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run
from test_architecture import HEAVY, SLOW, ran

from onepass.all_stages import Decision

TINY = {"TINY_BACKBONE": "1", "ONEPASS_ENGINE": "keras"}
CLASSES = ("black cat", "white cat")


def picture(path: Path, bright: bool, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (12 + number % 5, 10 + number % 7, 3)
    pixels = np.random.default_rng(number).integers(0, 90, shape) + 120 * bright
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes and formats in folders of classes; one of them broken."""
    place = tmp_path_factory.mktemp("run")
    for number in range(24):
        kind = (".jpg", ".png", ".webp", ".bmp")[number % 4]
        for bright, name in enumerate(CLASSES):
            picture(place / "cats" / name / f"{number}{kind}", bool(bright), 2 * number + bright)
    (place / "cats" / CLASSES[0] / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    return place


@pytest.fixture(scope="module")
def first(folder: Path):
    words = (
        "run",
        "cats",
        "--backbone",
        "tiny",
        "--budget",
        "30m",
        "--log",
        "tensorboard",
        "--json",
    )
    return run(*words, cwd=folder, **TINY)


def commands(done) -> list[str]:
    return [line[2:] for line in done.stderr.splitlines() if line.startswith("$ ")]


def test_it_gives_the_commands_that_it_shows_and_ends_with_a_page(folder: Path, first) -> None:
    assert first.returncode == 3, first.stderr  # one picture was left out
    assert [line.split()[1] for line in commands(first)] == [
        "data", "extract", "extract", "classify", "finetune", "report",
    ]  # fmt: skip
    assert "broken.jpg" in first.stderr
    found = json.loads(first.stdout)  # and nothing else
    assert found["dataset"] == "cats" and found["model"].startswith("cats/")
    assert found["val_top1"] == 1.0 and found["val_interval"][0] < 1.0
    assert (folder / found["page"]).stat().st_size > 10_000
    plan = first.stderr.split("Plan, where nothing is stored yet:")[1]
    for word in ("extract", "classify", "finetune", "report"):
        assert f"onepass {word} --dataset cats" in plan.split("\n\n")[0]
    logs = {path.parent.parent.name for path in (folder / "runs").rglob("events.out.tfevents.*")}
    assert len(logs) >= 2 and all("--log tensorboard" in line for line in commands(first)[3:5])
    answers = run("predict", found["model"], "cats/white cat/1.png", "--json", cwd=folder, **TINY)
    assert answers.returncode == 0, answers.stderr


def test_another_length_is_another_run_and_the_same_one_is_resumed(folder: Path, first) -> None:
    path = folder / "runs" / "cats" / "run.json"
    decided = Decision.read(path)
    words = ("run", "cats", "--backbone", "tiny", "--budget", "30m")
    same = run(*words, cwd=folder, **TINY)
    assert same.returncode == 3 and "this run is finished" in same.stderr
    replace(decided, epochs=1).write(path)  # as a machine would choose that is slower
    shorter = run(*words, cwd=folder, **TINY)
    decided.write(path)
    assert shorter.returncode == 3, shorter.stderr
    assert "epoch 1 of 1:" in shorter.stderr
    assert len(list((folder / "runs" / "cats" / "finetune").glob("run-*/result.json"))) == 2


def test_where_an_epoch_does_not_fit_into_the_budget_it_says_so(
    folder: Path, tmp_path: Path
) -> None:
    stores = ("--cache-dir", str(tmp_path / "store"), "--runs-dir", str(tmp_path / "runs"))
    done = run("run", "cats", "--backbone", "tiny", *stores, "--budget", "10s", cwd=folder, **TINY)
    assert done.returncode == 3, done.stderr
    assert "no fine-tuning, since an epoch takes" in done.stdout
    assert "finetune" not in [line.split()[1] for line in commands(done)]
    assert all("--cache-dir" in line for line in commands(done))


def test_a_stage_that_fails_or_has_no_time_ends_it_with_its_own_code(
    folder: Path, tmp_path: Path
) -> None:
    stores = ("--cache-dir", str(tmp_path / "store"), "--runs-dir", str(tmp_path / "runs"))
    missing = run("run", "nowhere", *stores, cwd=folder, **TINY)
    assert missing.returncode in (1, 2) and "nowhere" in missing.stderr.splitlines()[-1]
    unknown = run("run", "cats", "--backbone", "nothing", *stores, cwd=folder, **TINY)
    assert unknown.returncode == 1 and "Traceback" not in unknown.stderr
    late = run("run", "cats", "--backbone", "tiny", "--time-limit", "0.01s", *stores, cwd=folder, **TINY)  # fmt: skip
    assert late.returncode == 75 and "the same command resumes" in late.stdout + late.stderr
    wrong = run("run", "cats", "--budget", "soon", cwd=folder)
    assert wrong.returncode == 2


def test_again_after_a_change_it_does_only_what_is_new(folder: Path, first) -> None:
    for number in range(100, 110):
        picture(folder / "cats" / CLASSES[1] / f"{number}.png", True, number)
    moved = folder / "cats" / CLASSES[0] / "3.bmp"
    moved.rename(folder / "cats" / CLASSES[1] / "was black 3.bmp")
    words = ("run", "cats", "--backbone", "tiny", "--goal", "frozen")
    done = run(*words, cwd=folder, **TINY)
    assert done.returncode == 3, done.stderr
    assert [line.split()[1] for line in commands(done)] == [
        "data", "extract", "classify", "report",
    ]  # fmt: skip
    assert "images added: 10" in done.stderr and "labels changed: 1" in done.stderr
    assert "(10 computed, 48 carried over)" in done.stderr
    assert "Model to use: cats/" in done.stdout
    same = run(*words, cwd=folder, **TINY)
    assert "8 cached" in same.stderr and same.stdout.splitlines()[0] == done.stdout.splitlines()[0]


def test_its_help_answers_without_what_takes_long_to_import() -> None:
    code = "from onepass.__main__ import run; run(['run', '--help'])"
    printed, loaded = ran(code, (*HEAVY, *SLOW))
    assert "PATH_OR_NAME" in printed and loaded == set()
