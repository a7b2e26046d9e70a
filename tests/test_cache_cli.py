"""Flags from dataclasses, results on standard output, errors in one line; the words of the errors."""

import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT
from onepass.cache import errors
from onepass.cache.artifacts import to_json
from onepass.cache.commandline.command import Command, main
from onepass.cache.commandline.flags import (
    RunsConfig,
    StoreConfig,
    flag,
    parse_bytes,
    parse_duration,
)
from onepass.cache.errors import InvalidInputError, OnepassError, UsageError, unknown_name
from onepass.cache.stores import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(StoreConfig):
    """One flag of every form."""

    key: str = flag(help="what to do it to", positional=True, metavar="KEY")
    count: int = flag(3, "how many, not 100 %")
    share: float = flag(0.5, "of them")
    from_: str = flag("auto", "where it starts")
    keep: bool = flag(False, "keep it")
    shuffle: bool = flag(True, "mix them")
    size: tuple[int, ...] = flag((), "px", metavar="PX")
    layer: tuple[str, ...] = flag(("",), "which ones")
    head: tuple[str, ...] = flag(("a", "b"), "kinds")
    out: Path | None = flag(None, "file")
    fit: str = flag("pad", "how", choices=("pad", "crop"))
    time_limit: float | None = flag(None, "at the most", parse=parse_duration)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UsageError(f"--count: expected 0 or more, received {self.count}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed(RunsConfig):
    """A flag that must be given, and a position that may be."""

    dataset: str = flag(help="name")
    key: str = flag("", "one, or all", positional=True)


def run(argv: list[str], work: Any = lambda config: config, config: type = Sample) -> int:
    return main("demo", [Command("", "Does it.", config, work, str)], argv)


def parsed(argv: list[str], config: type = Sample) -> Any:
    seen: list[Any] = []
    assert run(argv, seen.append, config) == 0
    return seen[0]


def refused(argv: list[str], capsys: pytest.CaptureFixture, config: type = Sample) -> str:
    """Run a wrong command line; return what it says at its end."""
    with pytest.raises(SystemExit) as stop:
        run(argv, config=config)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    return err.splitlines()[-1]


def test_flags_have_the_type_of_their_field() -> None:
    line = (
        "k --count 7 --share 0.25 --from x@64 --keep --no-shuffle --size 80 100 --layer p q "
        "--out a/b.txt --fit crop --time-limit 8h45m --cache-dir c"
    )
    assert parsed(line.split()) == Sample(
        key="k", count=7, share=0.25, from_="x@64", keep=True, shuffle=False, size=(80, 100), layer=("p", "q"),
        out=Path("a/b.txt"), fit="crop", time_limit=31_500.0, cache_dir=Path("c"),
    )  # fmt: skip


def test_defaults_come_from_the_dataclass() -> None:
    assert parsed(["k"]) == Sample(key="k")
    assert parsed(["--dataset", "d"], Needed) == Needed(dataset="d")
    assert parsed(["--dataset", "d", "one"], Needed).key == "one"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "KEY"),
        (["k", "--count", "three"], "--count: invalid int value: 'three'"),
        (["k", "--size"], "--size: expected at least one argument"),
        (["k", "--size", "80", "x"], "invalid int value: 'x'"),
        (["k", "--fit", "stretch"], "choose from"),
        (["k", "--cou", "3"], "unrecognized arguments: --cou 3"),
        (["k", "--from_", "x"], "unrecognized arguments: --from_"),
        (["k", "--time-limit", "soon"], "expected a duration such as 8h45m, received 'soon'"),
        (["k", "more"], "unrecognized arguments: more"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(argv: list[str], said: str, capsys) -> None:
    assert said in refused(argv, capsys)


def test_a_required_flag_is_asked_for(capsys) -> None:
    assert refused([], capsys, Needed).endswith("required: --dataset")


def test_a_config_that_refuses_itself_is_one_line_and_exit_code_2(capsys) -> None:
    assert run(["k", "--count", "-1"]) == 2
    assert capsys.readouterr() == ("", "onepass demo: --count: expected 0 or more, received -1\n")


def test_help_says_each_default_once_and_no_empty_one(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and text.startswith("usage: onepass demo ")
    assert "how many, not 100 % (default: 3)" in text and "kinds (default: a b)" in text
    assert "which ones --head" in text  # ("",) has nothing to show
    assert "--keep keep it" in text and "--shuffle, --no-shuffle" in text
    assert text.index("--time-limit T") < text.index("--cache-dir CACHE")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h45m", 31_500), ("90s", 90), ("2H", 7200), (" 1m30s ", 90), ("45", 45), ("0.5h", 1800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "h", "-5", "8h45", "1m2h", "1.2.3", "5 min", "1h1h", "³", "inf", "9" * 400]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 8h45m, received"):
        parse_duration(text)


def test_sizes() -> None:
    sizes = {"2GB": 2e9, "500 mb": 5e8, "12kB": 12e3, "0.5gb": 5e8, "7b": 7, "500000000.0": 5e8}
    assert {text: parse_bytes(text) for text in sizes} == sizes
    for text in ("", "GB", "2 G", "-1GB", "2TB", "2GB2"):
        with pytest.raises(ValueError, match="expected a size such as 2GB or 500MB, received"):
            parse_bytes(text)


@dataclass(frozen=True, slots=True)
class Inner:
    path: Path
    score: np.float32


def test_json_is_one_object_on_standard_output_and_nothing_else(capsys) -> None:
    def work(config: Sample) -> dict:
        logging.getLogger("onepass.demo").info("working")
        return {
            "inner": [Inner(Path("a/ä.h5"), np.float32(0.5))],
            "array": np.arange(4, dtype="int8").reshape(2, 2),
            "none": None,
            "nan": [float("nan"), np.float32("inf")],
            3: (np.int64(7), np.True_),
            "text": "two\nlines",
        }

    assert run(["k", "--json"], work) == 0
    out, err = capsys.readouterr()
    assert err == "working\n" and out.count("\n") == 1
    assert json.loads(out, parse_constant=pytest.fail) == {
        "inner": [{"path": "a/ä.h5", "score": 0.5}],
        "array": [[0, 1], [2, 3]],
        "none": None,
        "nan": [None, None],
        "3": [7, True],
        "text": "two\nlines",
    }


def test_json_of_a_list_is_an_object_as_well(capsys) -> None:
    assert run(["k", "--json"], lambda config: ["a"]) == 0
    assert json.loads(capsys.readouterr().out) == {"result": ["a"]}
    assert to_json({"b": {2}}) == {"b": [2]}


def raising(error: BaseException) -> Any:
    def work(config: Sample) -> None:
        raise error

    return work


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidInputError("a.h5: expected\n  rows,   received none"), 1, "a.h5: expected rows, received none"),
        (UsageError("--x: no"), 2, "--x: no"),
        (errors.MissingFileError("a.h5: no such file"), 1, "a.h5: no such file"),
        (PermissionError(13, "Permission denied", "/store/a"), 1, "/store/a: Permission denied"),
        (OSError("the library said no"), 1, "the library said no"),
        (BrokenPipeError("a worker has gone"), 1, "a worker has gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_on_standard_error(
    flags: list[str], error: BaseException, code: int, line: str, capsys
) -> None:
    assert run(["k", *flags], raising(error)) == code
    assert capsys.readouterr() == ("", f"onepass demo: {line}\n")


def test_a_bug_of_ours_shows_where_it_is() -> None:
    with pytest.raises(KeyError):
        run(["k"], raising(KeyError("bug")))


TWO = [
    Command("list", "Lists.", StoreConfig, lambda config: "listed", str),
    Command("show", "Shows.", Needed, lambda config: config.dataset, str),
]


def test_a_package_of_several_commands_says_which(capsys) -> None:
    assert main("demo", TWO, []) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: onepass demo {list,show}") and "Shows." in err
    assert main("demo", TWO, ["--help"]) == 0
    assert capsys.readouterr().out == err
    assert main("demo", TWO, ["lost"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("onepass demo: expected a command, received 'lost'\n")
    assert main("demo", TWO, ["show", "--dataset", "d"]) == 0
    assert capsys.readouterr().out == "d\n"


def test_a_package_of_its_own_command_names_the_others_in_its_help(capsys) -> None:
    commands = [Command("", "Does it.", StoreConfig, lambda config: "done", str), *TWO]
    assert main("demo", commands, []) == 0
    assert main("demo", commands, ["list"]) == 0
    assert capsys.readouterr().out == "done\nlisted\n"
    with pytest.raises(SystemExit):
        main("demo", commands, ["--help"])
    assert "onepass demo show  Shows." in capsys.readouterr().out


def test_the_store_is_where_the_flag_says_then_the_environment_then_the_working_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ONEPASS_CACHE", raising=False)
    monkeypatch.delenv("ONEPASS_RUNS", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("ONEPASS_READ_FROM", raising=False)
    assert parsed([], RunsConfig).store == Store(Path("cache/store"))
    assert parsed([], RunsConfig).runs == Path("runs")
    monkeypatch.setenv("ONEPASS_CACHE", "~/rows")
    monkeypatch.setenv("ONEPASS_RUNS", "/runs")
    assert parsed([], RunsConfig).store == Store(Path("/home/somebody/rows"))
    assert parsed([], RunsConfig).runs == Path("/runs")
    there = parsed(["--cache-dir=~/a", "--runs-dir", "b"], RunsConfig)
    assert (there.store, there.runs) == (Store(Path("/home/somebody/a")), Path("b"))


def test_stores_to_read_from_are_named_by_flag_or_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, other = tmp_path / "a b", tmp_path / "c"
    here.mkdir()
    other.mkdir()
    monkeypatch.setenv("ONEPASS_READ_FROM", f"{here}{os.pathsep}{other}")
    assert parsed([], RunsConfig).store.read_from == (here, other)
    assert parsed(["--read-from", str(other)], RunsConfig).store.read_from == (other,)
    with pytest.raises(UsageError, match=r"--read-from .*nowhere: expected the folder of a store"):
        _ = parsed(["--read-from", str(tmp_path / "nowhere")], RunsConfig).store


def test_a_terminal_that_cannot_write_a_letter_shows_an_escape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(["k"], lambda config: "8×8 …") == 0
    assert screen.buffer.getvalue() == b"8\\xd78 \\u2026\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [["extract", "--list-backbones"], ["onepass", "--help"], ["cache", "--help"], ["cache", "list", "--help"]])  # fmt: skip
def test_a_reader_that_has_seen_enough_is_no_error(words: list[str]) -> None:
    """What `| head -1` does: the pipe has no reader when the text comes."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_names_tell_the_nearest() -> None:
    known = ["efficientnet_lite0", "efficientnet_lite1", "resnet50"]
    near = str(unknown_name("backbone", "eficientnet_lite0", known))
    assert near == "backbone 'eficientnet_lite0' is unknown; did you mean efficientnet_lite0 or efficientnet_lite1?"  # fmt: skip
    assert "known: efficientnet_lite0, efficientnet_lite1, resnet50" in str(unknown_name("backbone", "zzz", known))  # fmt: skip
    assert "known: none yet" in str(unknown_name("key", "zzz", []))
    many = str(unknown_name("backbone", "zzz", [f"b{i:02}" for i in range(20)]))
    assert many.endswith("there are 20, such as b00, b01, b02, b03, b04")


def test_every_error_is_ours_and_a_builtin_one() -> None:
    ours = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, OnepassError)]
    assert len(ours) >= 9
    for error in ours:
        if error is not OnepassError:
            assert any(base.__module__ == "builtins" for base in error.__bases__), error
        assert error("a: b").exit_code == (2 if error is UsageError else 1)
        assert str(error("a: b")) == "a: b"
