"""What a command prints: nothing that a terminal obeys, and no stream that ends the work."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import ROOT
from onepass.__main__ import run
from onepass.cache.commandline.terminal import one_line, printable
from onepass.cache.csv_text import csv_text

HOSTILE = "a\x1b]0;owned\x07\x1b[2Jb\nclassify: all is well\rc\u202egnp.exe"


def test_what_a_terminal_obeys_becomes_an_escape() -> None:
    assert printable("ä 🦜 \x1b[2J\t\x9b\u202e\n") == "ä 🦜 \\x1b[2J\\t\\x9b\\u202e\n"
    assert printable("\ud800\u2028") == "\\ud800\\u2028"
    assert one_line("a\nb") == "a\\nb"
    words = "می‌خواهم 👩\u200d🚀"  # joiners that a language and a picture need
    assert one_line(words) == words


def pictures(folder: Path) -> Path:
    for name in (HOSTILE, "=1+1"):
        place = folder / "images" / name
        place.mkdir(parents=True)
        for number in range(5):
            Image.new("L", (8, 8), number).save(place / f"{name}{number}.png")
        (place / "broken\x1b[1m\n.png").write_bytes(b"no image")
    return folder / "images"


def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path, capsys) -> None:
    store = ["--cache-dir", str(tmp_path / "store")]
    source = str(pictures(tmp_path))
    words = ["data", "prepare", "folder", "--source", source, "--name", "d", "--on-bad", "skip"]
    for command in (words, ["data", "show", "d"], ["data", "list"], ["data", "verify"]):
        assert run([*command, *store]) == 0
        out, err = capsys.readouterr()
        assert all(char.isprintable() or char == "\n" for char in out + err)
        assert "classify: all is well" not in (out + err).split("\n")
        assert "\nclassify" not in out
    assert run([*words[:-2], *store, "--name", "e"]) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said and said.count("\n") <= 3


def test_a_spreadsheet_runs_nothing() -> None:
    cells = ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "＝1", "a\r=1", -1, 0.5]
    text = csv_text(["x"], [[cell] for cell in cells])
    found = [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]
    assert found == ["'" + c if isinstance(c, str) and c[0] != "a" else str(c) for c in cells]
    exact = csv_text(["x"], [[cell] for cell in cells], exact=True)
    assert [row[0] for row in csv.reader(io.StringIO(exact, newline=""))][1:] == [*map(str, cells)]


WORK = """
import logging, os, sys, time
from dataclasses import dataclass
from onepass.cache.commandline import terminal
from onepass.cache.commandline.command import Command, main
from onepass.cache.commandline.flags import StoreConfig
from onepass.cache.errors import OnepassError
from onepass.cache.progress import Progress
from onepass.cache.stderr import suppress_stderr

terminal.LOG_PERIOD = 0

@dataclass(frozen=True, slots=True, kw_only=True)
class Flags(StoreConfig):
    pass

def work(config):
    with suppress_stderr(), Progress(300, label="work") as progress:
        for _ in range(300):
            logging.getLogger("onepass").info("step " + "x" * 200)
            progress.advance(1)
    with open(sys.argv[1], "w") as done:
        assert done.fileno() > 2, "took the number of a standard stream"
        done.write("done")
    if "failing" in sys.argv[1]:
        raise OnepassError("it failed")
    return "the result " * 5000

sys.exit(main("demo", [Command("", "Works.", Flags, work, str)], []))
"""


@pytest.mark.parametrize(
    ("redirections", "code"),
    [
        (">out 2>&-", 0),
        (">&- 2>&-", 0),
        ("<&- >&- 2>&-", 0),
        (">out 2>/dev/full", 0),
        (">/dev/full 2>err", 1),
        (">/dev/full 2>/dev/full", 1),
        ("2>&1 >out | true", 0),
        ("2>err | true", 0),
    ],
)
def test_streams_that_are_closed_full_or_unread_do_not_end_the_work(
    redirections: str, code: int, tmp_path: Path
) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    name = "closed" if "&-" in redirections else "other"
    command, slash, reader = redirections.partition("|")
    line = f"{sys.executable} {script} {name} {command} {slash}{reader}; exit ${{PIPESTATUS[0]}}"
    found = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (tmp_path / name).read_text() == "done" and found.returncode == code
    said = (tmp_path / "err").read_text() if (tmp_path / "err").exists() else ""
    assert "Traceback" not in said and "Exception ignored" not in said
    if code and "2>err" in redirections:
        assert said.splitlines()[-1].startswith(
            "onepass: what it prints cannot be written (No space"
        )


def test_an_error_that_cannot_be_said_keeps_its_exit_code(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    line = f"{sys.executable} {script} failing 2>&-"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, check=False).returncode == 1
