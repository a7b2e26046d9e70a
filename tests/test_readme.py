"""The README is true: its commands exist, its blocks run, its output is what is printed."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from onepass.cache.commandline.command import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("data", "extract", "cache", "classify", "finetune", "predict", "report")
BLOCK = re.compile(r"(<!-- run -->\n)?```(\w+)\n(.*?)\n```", re.DOTALL)
NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
# What another machine or another day prints otherwise; all the rest has to be the same.
VARIES = [
    (rf"\({NUMBER} … {NUMBER}\)", "(#)"),
    (rf"{NUMBER} ?(?:%|ms(?: \*)?|s\b|min\b|h\b|kB\b|MB\b|points\b|rows/s|images/s)", "#"),
    (r"#(?: #)+", "#"),
    (rf"(=|within |p = |loss |Temperature ){NUMBER}", r"\1#"),
    (r"-[0-9a-f]{12}\b", "-#"),
    (r"bound by \w+", "bound by #"),
    (rf"\b{NUMBER} only\b", "# only"),
    (r"a (tie|difference) by", "# by"),
    (r"\s+", " "),
]


def commands(package: str) -> list[Any]:
    return import_module(package + ".__main__").COMMANDS


def flags_of(command: Any) -> set[str]:
    names = {f.name.rstrip("_").replace("_", "-") for f in dataclasses.fields(command.config)}
    off = {
        f.name.replace("_", "-") for f in dataclasses.fields(command.config) if f.default is True
    }
    return {"--" + n for n in names} | {"--no-" + n for n in off} | {"--json", "--help"}


def shell_lines() -> list[str]:
    """Return every command line of the shell and console blocks."""
    lines = []
    for _, language, body in BLOCK.findall(README):
        if language == "sh":
            lines += body.splitlines()
        elif language == "console":
            lines += [line[2:] for line in body.splitlines() if line.startswith("$ ")]
    return [line for line in lines if line.strip()]


ONEPASS = [line for line in shell_lines() if line.startswith("python -m ")]


@pytest.mark.parametrize("line", ONEPASS)
def test_a_command_line_of_the_readme_is_understood(line: str, capsys) -> None:
    """The real flags and checks of the command take it; only its work is left out."""
    package, *words = shlex.split(line, comments=True)[2:]
    assert package in PACKAGES
    seen: list[Any] = []
    stubs = [dataclasses.replace(c, work=seen.append, text=str) for c in commands(package)]
    assert main(package, stubs, words) == 0, capsys.readouterr().err
    assert len(seen) == 1 and type(seen[0]) in {command.config for command in stubs}


def test_the_readme_has_commands_to_check() -> None:
    assert len(ONEPASS) > 20


def test_no_flag_is_mentioned_that_does_not_exist() -> None:
    known = set().union(*(flags_of(c) for package in PACKAGES for c in commands(package)))
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", README.replace("<!--", "")))
    assert mentioned - known == set()
    assert len(mentioned) > 20


@pytest.mark.parametrize("package", PACKAGES)
def test_every_command_is_documented(package: str) -> None:
    for command in commands(package):
        words = f"python -m {package} {command.name or '--'}"
        assert words in README, f"the README does not show {words}"


def test_every_requirement_says_why_it_is_there() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {
        re.split(r"[~=><!\[]", line)[0].strip() for line in lines if line and line[0] != "#"
    }
    section = README.split("\n## Dependencies\n")[1].split("\n## ")[0]
    bullets = re.findall(r"^- (.*?):", section, re.MULTILINE | re.DOTALL)
    explained = {name for bullet in bullets for name in re.findall(r"`([^`]+)`", bullet)}
    assert explained == required


def test_targets_of_the_makefile_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE))
    assert {"demo", "test"} <= mentioned <= targets


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link.split("#")[0]).exists()] == []


def test_files_and_names_of_the_code_are_still_there() -> None:
    paths = re.findall(r"`((?:extract|classify|data|cache|finetune|predict|report)/[\w/]+\.(?:py|csv))`", README)  # fmt: skip
    assert paths and [path for path in paths if not (ROOT / path).exists()] == []
    assert "PROBES" in (ROOT / "classify/heads/registry.py").read_text()
    assert "SOURCES" in (ROOT / "data/sources/__init__.py").read_text()
    assert "FAMILIES" in (ROOT / "extract/backbones/registry.py").read_text()
    from onepass.classify.heads.registry import PROBES
    from onepass.data.sources import SOURCES

    for name in [*PROBES, *SOURCES]:
        assert f"`{name}`" in README or f"prepare {name}" in README, name


def test_no_path_of_one_machine() -> None:
    assert re.findall(r"(?<![\w.])/(?:root|home|tmp|work|Users)\b\S*", README) == []


def masked(line: str) -> str:
    for pattern, instead in VARIES:
        line = re.sub(pattern, instead, line)
    return line.strip()


def test_what_varies_is_masked_and_nothing_else() -> None:
    assert masked("x: 1,797 rows, 4,893 rows/s, bound by device") == "x: 1,797 rows, #, bound by #"
    assert masked("age  1 min 13 s  made") == masked("age  29 s        made")
    assert masked("96.7 % (94.9 … 98.2)  0.9 s") == masked("96.5 % (94.8 … 98.1)  1.2 s")
    assert masked("1,348 train + 449 val") != masked("1,348 train + 450 val")
    assert masked("digest dd385959)") != masked("digest 00000000)")
    assert masked("ridge-43329e87d691)") == masked("ridge-00000e87d691)")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the rows and results of all blocks, which follow one another."""
    return tmp_path_factory.mktemp("readme")


def run(command: list[str], home: Path) -> str:
    moved = {"ONEPASS_CACHE": str(home / "cache/store"), "ONEPASS_RUNS": str(home / "runs")}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **moved}
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout.replace(f"{home}/", "")


def same(shown: str, printed: str) -> None:
    assert [masked(line) for line in printed.splitlines()] == [masked(line) for line in shown.splitlines()]  # fmt: skip


@pytest.mark.slow
def test_the_blocks_marked_for_it_print_what_the_readme_shows(home: Path) -> None:
    blocks = BLOCK.findall(README)
    ran = 0
    for number, (marked, language, body) in enumerate(blocks):
        if not marked:
            continue
        if language == "python":
            assert blocks[number + 1][1] == "text"  # what it prints
            same(blocks[number + 1][2], run(["-c", body], home))
            ran += 1
            continue
        for part in re.split(r"^\$ python ", body, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            same(shown, run(shlex.split(line), home))
            ran += 1
    assert ran >= 10
