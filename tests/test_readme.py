"""The README is true: its commands exist, its blocks run, its numbers are what is printed."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest

from conftest import ROOT
from onepass.__main__ import ROOMS, commands_of
from onepass.cache.commandline.command import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = tuple(ROOMS)
BLOCK = re.compile(r"(<!-- run -->\n)?```(\w+)\n(.*?)\n```", re.DOTALL)
# What must hold of a shown output, whatever words stand around it. Counts are whole numbers from 100
# up that are no time, size or speed; shares may differ by chance on another processor.
COUNT = re.compile(
    r"(?<![\w.@-])(\d{1,3}(?:,\d{3})+|\d{3,})(?![\w.,-]|\s?(?:s|ms|min|h|k?B|MB|GB|rows/s|images/s|px)\b)"
)
SHARE = re.compile(r"(\d+\.\d) %")
FILE = re.compile(r"(?:cache/store|runs)/[\w@./+-]*[\w@]")
NEXT = re.compile(r"^(?:Next: | +)(onepass [a-z].*?)(?:, or |$)", re.MULTILINE)
POINTS = 2.0  # by how many points a share may differ


def commands(package: str) -> list[Any]:
    return commands_of(package)


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


ONEPASS = [line for line in shell_lines() if line.startswith("onepass ")]


@pytest.mark.parametrize("line", ONEPASS)
def test_a_command_line_of_the_readme_is_understood(line: str) -> None:
    understood(line)


def understood(line: str) -> type:
    """The real flags and checks of the command take the line; only its work is left out.

    Returns the class of its flags.
    """
    package, *words = shlex.split(line, comments=True)[1:]
    assert package in PACKAGES
    seen: list[Any] = []
    stubs = [
        dataclasses.replace(c, work=lambda config, *stop: seen.append(config), text=str)
        for c in commands(package)
    ]
    assert main(package, stubs, words) == 0, line
    assert len(seen) == 1 and type(seen[0]) in {command.config for command in stubs}
    return type(seen[0])


def test_the_readme_has_commands_to_check() -> None:
    assert len(ONEPASS) > 20


def test_no_flag_is_mentioned_that_does_not_exist() -> None:
    known = set().union(*(flags_of(c) for package in PACKAGES for c in commands(package)))
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", README.replace("<!--", "")))
    assert mentioned - known == set()
    assert len(mentioned) > 20


def test_every_command_is_documented() -> None:
    shown = {understood(line) for line in ONEPASS}
    for package in PACKAGES:
        for command in commands(package):
            assert command.config in shown, f"the README does not show {package} {command.name}"


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


def facts(text: str) -> dict[str, list]:
    """The numbers, files and next commands of an output."""
    return {
        "counts": COUNT.findall(text),
        "shares": [float(number) for number in SHARE.findall(text)],
        "files": FILE.findall(re.sub(r"-[0-9a-f]{12}\b", "-ID", text)),
        "next": NEXT.findall(re.sub(r"-[0-9a-f]{12}\b", "-ID", text)),
    }


def test_facts_are_found_and_words_are_not() -> None:
    shown = """digits: made, 1,797 of 1,797 rows, 4,893 rows/s, 223.4 kB, 120 ms, digest dd385959
  96.7 % (94.9 … 98.2) runs/digits/heads/ridge-a5875b2ad2b2/head.json at 224 px
Next: onepass classify --dataset digits, or something else
      onepass report"""
    assert facts(shown) == {
        "counts": ["1,797", "1,797"],
        "shares": [96.7],
        "files": ["runs/digits/heads/ridge-ID/head.json"],
        "next": ["onepass classify --dataset digits", "onepass report"],
    }
    with pytest.raises(AssertionError):
        same("of 1,348 rows", "of 1,347 rows")
    with pytest.raises(AssertionError):
        same("val 96.7 %", "val 94.6 %")
    same("val 96.7 % of 1,348 rows in 3 s", "1,348 rows, 96.5 %, after 12 s")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the rows and results of all blocks, which follow one another."""
    return tmp_path_factory.mktemp("readme")


def run(words: list[str], home: Path) -> str:
    done = processes.run(*words, cwd=home, FEW_ROWS="2000")  # as it is for users
    assert done.returncode == 0, f"{words}\n{done.stderr}"
    return done.stdout.replace(f"{home}/", "")


def program(text: str, home: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, cwd=home, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(shown: str, printed: str) -> None:
    """What must hold of the shown output holds of the printed one."""
    wanted, found = facts(shown), facts(printed)
    shares = wanted.pop("shares"), found.pop("shares")
    assert found == wanted, printed
    assert len(shares[0]) == len(shares[1]), printed
    assert all(abs(a - b) <= POINTS for a, b in zip(*shares, strict=True)), printed


@pytest.mark.slow
def test_the_blocks_marked_for_it_do_what_the_readme_shows(home: Path) -> None:
    blocks = BLOCK.findall(README)
    ran = 0
    for number, (marked, language, body) in enumerate(blocks):
        if not marked:
            continue
        if language == "python":
            assert blocks[number + 1][1] == "text"  # what it prints
            same(blocks[number + 1][2], program(body, home))
            ran += 1
            continue
        for part in re.split(r"^\$ onepass ", body, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            printed = run(shlex.split(line), home)
            same(shown, printed)
            for path in facts(printed)["files"]:
                assert "-ID" in path or (home / path).exists(), f"{line}: {path} is not there"
            for advice in NEXT.findall(printed):
                understood(advice)
            ran += 1
    assert ran >= 10
