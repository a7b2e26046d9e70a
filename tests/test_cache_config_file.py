"""`--config FILE`: the flags of a command from a file, and the file that every command leaves beside its result."""

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_cache_cli import Needed, Sample

from onepass.__main__ import ROOMS, commands_of
from onepass.cache.commandline.command import Command, main
from onepass.cache.commandline.config_file import write_flags


def run(argv: list[str], config: type = Sample, made: Any = None) -> tuple[int, Any]:
    seen: list[Any] = []

    def work(flags: Any) -> Any:
        seen.append(flags)
        return flags

    code = main("demo", [Command("do", "Does it.", config, work, str, made=made)], ["do", *argv])
    return code, seen[0]


def parsed(file: Path, text: str, *words: str, config: type = Sample) -> Any:
    file.write_text(text, encoding="utf-8")
    code, flags = run(["--config", str(file), *words], config)
    assert code == 0
    return flags


FLAGS = """
command = "demo do"
key = "k"
count = 7
share = 0.25
from = "x@64"
keep = true
shuffle = false
size = [80, 100]
layer = "p"
out = "a/b.txt"
fit = "crop"
time-limit = "8h45m"
"""


def test_flags_stand_in_a_file_as_on_the_command_line(tmp_path: Path) -> None:
    assert parsed(tmp_path / "a.toml", FLAGS) == Sample(
        key="k", count=7, share=0.25, from_="x@64", keep=True, shuffle=False, size=(80, 100), layer=("p",),
        out=Path("a/b.txt"), fit="crop", time_limit=31_500.0,
    )  # fmt: skip


def test_the_command_line_wins(tmp_path: Path) -> None:
    flags = parsed(tmp_path / "a.toml", FLAGS, "other", "--count=3", "--shuffle", "--size", "9")
    assert (flags.key, flags.count, flags.shuffle, flags.size) == ("other", 3, True, (9,))
    assert flags.share == 0.25
    assert parsed(tmp_path / "b.toml", 'dataset = "d"', config=Needed).dataset == "d"
    assert parsed(tmp_path / "b.toml", 'key = "one"', "--dataset", "e", config=Needed) == Needed(
        dataset="e", key="one"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cuont = 3", "a.toml: key 'cuont' is unknown; did you mean "),
        ("cache_dir = 'x'", "a.toml: key 'cache_dir' is unknown; did you mean cache-dir?"),
        ("count = 'three'", "a.toml: count: 'three' does not fit; expected int"),
        ("count = [1, 2]", "a.toml: count: expected one value, received [1, 2]"),
        ("size = [[1]]", "a.toml: size: expected values, received [1]"),
        ("keep = 'yes'", "a.toml: keep: expected true or false, received 'yes'"),
        ("out = true", "a.toml: out: expected one value, received True"),
        ("fit = 'stretch'", "a.toml: fit: expected one of pad, crop; received 'stretch'"),
        ("time-limit = 'soon'", "expected a duration such as 8h45m, received 'soon'"),
        ("command = 'demo undo'", "a.toml: command: expected 'demo do', received 'demo undo'"),
        ("[count]\nn = 1", "a.toml: count: expected one value"),
        ("count: 3", "a.toml: expected a TOML file with flags, found none"),
    ],
)
def test_what_does_not_fit_is_named_with_file_and_key(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(SystemExit) as stop:
        run(["k", "--config", str(file)])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and said in err.splitlines()[-1]


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["k", "--config", str(tmp_path / "no.toml")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith("it cannot be read (No such file or directory)\n")


HARD = 'a "b" \\ ä 🦜 \x7f \x01 \n'


def test_the_file_beside_a_result_gives_the_same_command_again(tmp_path: Path, capsys) -> None:
    words = [HARD, "--count", "7", "--keep", "--no-shuffle", "--size", "8", "9", "--time-limit", "2m",
             "--share", "1e-05", "--layer", "x y", "--cache-dir", str(tmp_path)]  # fmt: skip
    (tmp_path / "made").mkdir()
    code, first = run(words, made=lambda result: tmp_path / "made")
    file = tmp_path / "made" / "command.toml"
    heading, *_ = file.read_text(encoding="utf-8").splitlines()
    assert code == 0 and "fit" not in tomllib.loads(file.read_text(encoding="utf-8"))
    assert shlex.split(heading.split(": ")[1]) == ["onepass", "demo", "do", "--config", str(file)]
    capsys.readouterr()
    assert run(["--config", str(file)])[1] == first
    run(words, made=lambda result: tmp_path / "answers.csv")
    assert run(["--config", str(tmp_path / "answers.command.toml")])[1] == first


def test_nothing_is_written_where_nothing_was_made_or_in_a_store_that_is_only_read(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["k"], made=lambda result: None)[0] == 0
    run(["k", "--read-from", str(tmp_path)], made=lambda result: tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "gone").touch()
    assert run(["k"], made=lambda result: tmp_path / "gone" / "a.csv")[0] == 0
    assert "the command cannot be written beside" in capsys.readouterr().err


@pytest.mark.parametrize("word", ROOMS)
def test_every_example_can_be_written_and_read(word: str, tmp_path: Path) -> None:
    """Every flag that the examples of a command use comes back from the file with its value."""
    for command in commands_of(word):
        for line in command.examples:
            seen: list[Any] = []
            stub = Command(command.name, "", command.config, seen.append, str)
            assert main(word, [stub], shlex.split(line)[2:]) == 0
            write_flags(tmp_path, f"{word} {command.name}".strip(), seen[0])
            again = [command.name] if command.name else []
            assert main(word, [stub], [*again, "--config", str(tmp_path / "command.toml")]) == 0
            assert seen[0] == seen[1], json.dumps(line)
