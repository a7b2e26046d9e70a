"""README and docs are true: commands exist, blocks run, numbers are what is printed, links lead somewhere."""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from PIL import Image

from conftest import ROOT
from onepass.__main__ import ROOMS, commands_of
from onepass.cache.commandline.command import main

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
    if path.name != "CHANGELOG.md"  # tells of what was
}
README, COMMANDS = PAGES["README.md"], PAGES["docs/commands.md"]
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
    return (
        {"--" + n for n in names}
        | {"--no-" + n for n in off}
        | {"--config", "--json", "--quiet", "--verbose", "--help"}
    )


def shell_lines(page: str) -> list[str]:
    """Return every command line of a page's shell and console blocks."""
    lines = []
    for _, language, body in BLOCK.findall(PAGES[page]):
        if language == "sh":
            lines += body.splitlines()
        elif language == "console":
            lines += [line[2:] for line in body.splitlines() if line.startswith("$ ")]
    return [line for line in lines if line.strip()]


ONEPASS = {p: [line for line in shell_lines(p) if line.startswith("onepass ")] for p in PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_the_command_lines_of_a_page_are_understood(page: str) -> None:
    for line in ONEPASS[page]:
        understood(line)


def understood(line: str) -> type:
    """The real flags and checks of the command take the line; only its work is left out.

    Returns the class of its flags.
    """
    package, *words = shlex.split(line, comments=True)[1:]
    assert package in PACKAGES
    seen: list[Any] = []
    stubs = [
        dataclasses.replace(c, work=lambda config, *stop: seen.append(config), text=str, made=None)
        for c in commands(package)
    ]
    assert main(package, stubs, words) == 0, line
    assert len(seen) == 1 and type(seen[0]) in {command.config for command in stubs}
    return type(seen[0])


def test_the_pages_have_commands_to_check() -> None:
    assert len(ONEPASS["README.md"]) > 5 and len(ONEPASS["docs/commands.md"]) > 70


@pytest.mark.parametrize("page", PAGES)
def test_no_flag_is_mentioned_that_does_not_exist(page: str) -> None:
    known = {"--version"}.union(*(flags_of(c) for package in PACKAGES for c in commands(package)))
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", PAGES[page].replace("<!--", "")))
    assert mentioned - known == set()


def test_every_command_is_documented() -> None:
    shown = {understood(line) for line in ONEPASS["docs/commands.md"]}
    for package in PACKAGES:
        for command in commands(package):
            name = f"{package} {command.name}"
            assert command.config in shown, f"docs/commands.md does not show {name}"


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
    text = "\n".join(PAGES.values())
    mentioned = set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE))
    assert {"demo", "test", "picture"} <= mentioned <= targets


def anchors(text: str) -> set[str]:
    """Return what links to the headings of a page are called."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)  # fmt: skip
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", README))
    assert PAGES.keys() - {"README.md"} <= linked


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) < 250


@pytest.mark.parametrize("page", PAGES)
def test_files_and_names_of_the_code_are_still_there(page: str) -> None:
    paths = re.findall(r"`((?:extract|classify|data|cache|finetune|predict|report|onepass|tests|benchmarks)/[\w/.-]+\.(?:py|csv|json|md))`", PAGES[page])  # fmt: skip
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_head_and_source_is_documented() -> None:
    from onepass.classify.heads.registry import PROBES
    from onepass.data.sources import SOURCES

    for name in [*PROBES, *SOURCES]:
        assert f"`{name}`" in COMMANDS or f"prepare {name}" in COMMANDS, name


@pytest.mark.parametrize("page", PAGES)
def test_no_path_of_one_machine(page: str) -> None:
    assert re.findall(r"(?<![\w.])/(?:root|home|tmp|work|Users)\b\S*", PAGES[page]) == []


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
    # The rows are those of users, the figures only drawn.
    done = processes.run(*words, cwd=home, FEW_ROWS="2000", PLAIN_FIGURES="1")
    assert done.returncode == 0, f"{words}\n{done.stderr}"
    return done.stdout.replace(f"{home}/", "")


def program(text: str, home: Path, **env: str) -> str:
    """Run a Python program in a folder; return what it prints."""
    done = processes.run("-c", text, cwd=home, PROGRAM="1", FEW_ROWS="2000", **env)
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
def test_the_blocks_marked_for_it_do_what_the_pages_show(home: Path) -> None:
    ran = 0
    for page in ("docs/commands.md", "docs/library.md"):  # one goes on where the other ended
        blocks = BLOCK.findall(PAGES[page])
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
                    assert "-ID" in path or (home / path).exists(), f"{line}: no {path}"
                for advice in NEXT.findall(printed):
                    understood(advice)
                ran += 1
    assert ran >= 10


# Lines of the README's shell blocks that no test gives, and why.
NOT_RUN = {
    "make demo": "it takes six minutes; the release checklist asks for it",
    "python3 -m venv": "it needs a package registry; test_wheel.py installs what is built",
    "pip install .": "the same",
}


def pictures(folder: Path, names: Sequence[str], count: int, seed: int) -> None:
    """Bright and dark pictures as JPEG files; without names, in the folder itself."""
    random = np.random.default_rng(seed)
    for number in range(count):
        path = folder / (names[number % 2] if names else "") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 100, (20, 20, 3)) + 120 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.mark.slow
def test_the_commands_of_the_readme_work_one_after_the_other(tmp_path: Path) -> None:
    pictures(tmp_path / "my-images", ("dark", "bright"), 80, 0)
    pictures(tmp_path / "new-images", (), 4, 1)
    lines = shell_lines("README.md")
    assert all(any(line.startswith(start) for line in lines) for start in NOT_RUN)
    for line in lines:
        if line.startswith(tuple(NOT_RUN)):
            continue
        words = shlex.split(line, comments=True)
        assert words[0] == "onepass", line
        small = {"TINY_BACKBONE": "all", "ONEPASS_ENGINE": "keras", "PLAIN_FIGURES": "1"}
        done = processes.run(*words[1:], cwd=tmp_path, **small)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "runs" / "my-images" / "report.html").exists()
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert len(answers) == 5
    assert len(list((tmp_path / "sorted").rglob("*.jpg"))) == 4

    (tmp_path / "new-images" / "0.jpg").rename(tmp_path / "new-images" / "one.jpg")
    (python,) = (body for _, language, body in BLOCK.findall(README) if language == "python")
    printed = program(python, tmp_path, TINY_BACKBONE="all")
    assert "['bright', 'dark']" in printed
