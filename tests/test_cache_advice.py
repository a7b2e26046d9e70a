"""The command line says which command mends an error, or comes next, with the folders that were given."""

import dataclasses
import pickle
import shlex
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from onepass.cache.commandline import advice
from onepass.cache.commandline.advice import COMMANDS, command_of, onepass_command, places_of
from onepass.cache.commandline.command import Command, main
from onepass.cache.commandline.flags import RunsConfig, flag
from onepass.cache.errors import MissingFileError, OnepassError, Remedy, Step, unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(RunsConfig):
    dataset: str = flag("digits", "which")


def run(error: OnepassError | None, *words: str) -> int:
    def work(config: Sample) -> str:
        if error:
            raise error
        return config.dataset

    text = lambda name: f"Next: {command_of('classify', name)}"  # noqa: E731
    return main("demo", [Command("", "Demo.", Sample, work, text)], words)


def test_every_step_has_a_command() -> None:
    assert set(COMMANDS) == set(get_args(Step))


@pytest.mark.parametrize("step", COMMANDS)
def test_the_real_command_line_understands_it(step: Step, capsys) -> None:
    with places_of({"cache_dir": "a b", "runs_dir": "c"}):
        _, room, *words = shlex.split(command_of(step, "digits"))
    seen: list = []
    commands = import_module(f"onepass.{room}.__main__").COMMANDS
    stubs = [
        dataclasses.replace(c, work=lambda *config: seen.extend(config), text=str, made=None)
        for c in commands
    ]
    assert main(room, stubs, words) == 0, capsys.readouterr().err
    assert str(seen[0].store) == "a b"
    assert not hasattr(seen[0], "runs") or str(seen[0].runs) == "c"


def test_an_error_ends_with_the_command_that_mends_it(capsys) -> None:
    missing = MissingFileError("x:\n no features", remedy=Remedy("extract", "my digits"))
    assert run(missing, "--cache-dir", "s", "--runs-dir", "r") == 1
    assert capsys.readouterr().err == (
        "onepass demo: x: no features; make it with: onepass extract --dataset 'my digits' "
        "--backbone efficientnet_lite0 --cache-dir s\n"
    )


def test_after_a_question_it_is_the_other_way_out(capsys) -> None:
    assert run(unknown_name("data set", "digit", ["digits"], Remedy("list data sets"))) == 1
    assert capsys.readouterr().err.endswith(
        "did you mean digits? Or see what there is with: onepass data list\n"
    )


def test_the_next_command_carries_the_folders_that_were_given(capsys) -> None:
    assert run(None, "--cache-dir", "s", "--runs-dir", "my runs") == 0
    assert capsys.readouterr().out == (
        "Next: onepass classify --dataset digits --cache-dir s --runs-dir 'my runs'\n"
    )
    assert run(None) == 0
    assert capsys.readouterr().out == "Next: onepass classify --dataset digits\n"


def test_outside_of_a_command_no_folder_is_carried() -> None:
    assert onepass_command("data", "list") == "onepass data list"


@pytest.mark.parametrize("kind", [list, tuple])
def test_each_store_to_read_from_is_a_word_of_the_command(kind) -> None:
    with places_of({"read_from": kind([Path("old"), Path("my old")])}):
        assert onepass_command("data", "list") == "onepass data list --read-from old 'my old'"


def test_rooms_without_results_are_not_given_the_folder_of_the_results() -> None:
    for room in ("data", "extract", "cache", "classify", "finetune", "predict", "report"):
        for command in import_module(f"onepass.{room}.__main__").COMMANDS:
            alone = room in advice.WITHOUT_RUNS and (room, command.name) != advice.DOCTOR
            assert alone == (not issubclass(command.config, RunsConfig))


def test_a_remedy_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MissingFileError("a: b", remedy=Remedy("delete", "a/b"))))
    assert (str(error), error.remedy) == ("a: b", Remedy("delete", "a/b"))


def test_an_error_without_end_is_cut_in_its_middle() -> None:
    line = advice.with_advice("first " + "x" * 100_000 + " last", None)
    assert line.startswith("first x") and line.endswith("x last") and len(line) < 2100
