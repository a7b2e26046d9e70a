"""Every `--help` ends with two examples, and they run as they stand."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image

from onepass.__main__ import EXAMPLES, ROOMS, commands_of
from onepass.__main__ import run as onepass

# In an order in which each finds what the ones before it made; what reads next to nothing stands last.
ORDER = (
    "run", "data prepare", "data export", "data relabel", "data show", "data list", "data verify", "extract",
    "report", "data similar", "cache list", "cache show", "cache verify", "cache export", "cache migrate", "cache doctor",
    "classify", "classify ensemble", "classify sweep", "classify curve", "classify transfer", "classify inspect",
    "classify next", "finetune", "finetune find-lr", "finetune ablate", "finetune errors", "predict",
    "predict export", "doctor", "completion", "cache delete",
)  # fmt: skip
COMMANDS = {
    f"{word} {command.name}".strip(): command for word in ROOMS for command in commands_of(word)
}
# A backbone of 700 weights takes the place of the one that the examples name.
TINY = (("efficientnet_lite0@224", "tiny@16"), ("efficientnet_lite0", "tiny"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples are given, with labelled images, new ones and a data set without labels."""
    home = tmp_path_factory.mktemp("examples")
    random = np.random.default_rng(0)
    for number in range(80):
        level = 40 + 120 * (number % 2)
        pixels = np.clip(level + random.normal(0, 30, (16, 16, 3)), 0, 255).astype("uint8")
        name = f"my-images/{('dark', 'light')[number % 2]}" if number < 60 else "new-images"
        (home / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(home / name / f"{number:02}.png")
    shutil.copytree(home / "new-images", home / "unlabelled" / "test")
    given("onepass data prepare unlabelled", home)
    given("onepass extract --dataset unlabelled --backbone efficientnet_lite0", home)
    return home


def given(line: str, home: Path) -> None:
    for real, tiny in TINY:
        line = line.replace(real, tiny)
    done = processes.run(*shlex.split(line)[1:], cwd=home, TINY_BACKBONE="1", PLAIN_FIGURES="1")
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_every_command_has_two_examples_of_its_own() -> None:
    assert set(ORDER) == set(COMMANDS) and len(ORDER) == len(COMMANDS)
    for name, command in COMMANDS.items():
        assert len(command.examples) == 2, name
        assert all(f"{line} ".startswith(f"onepass {name} ") for line in command.examples), name


@pytest.mark.parametrize("words", ["", *ROOMS, *ORDER])
def test_help_ends_with_two_examples(words: str, capsys: pytest.CaptureFixture) -> None:
    try:
        onepass([*words.split(), "--help"])
    except SystemExit as end:
        assert end.code == 0
    *_, heading, first, second = capsys.readouterr().out.splitlines()
    assert heading == "examples:"
    every = [line for command in COMMANDS.values() for line in command.examples]
    assert {first.strip(), second.strip()} <= {*every, *EXAMPLES}


@pytest.mark.slow
def test_every_example_runs(home: Path) -> None:
    for name in ORDER:
        for line in COMMANDS[name].examples:
            given(line, home)
