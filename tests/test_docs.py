"""The picture in docs/architecture.md is that of the code."""

import re

from test_architecture import FLOORS

from conftest import ROOT
from onepass.cache import errors

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_floors_are_those_that_imports_are_held_to() -> None:
    assert {room.strip("`"): int(floor) for floor, room, _ in rows("Floors")} == FLOORS


def test_every_room_is_described_and_every_description_has_a_room() -> None:
    rooms = {str(p.parent.relative_to(ROOT)) for r in FLOORS for p in (ROOT / r).rglob("*.py")}
    assert {row[0].strip("`") for row in rows("Rooms")} == rooms


def test_files_that_are_named_are_there() -> None:
    for room, holds in rows("Rooms"):
        named = re.findall(r"`(\w+\.py)`", holds)
        assert [n for n in named if not (ROOT / room.strip("`") / n).exists()] == [], room
    for path in re.findall(r"`(\w+/[\w/]+\.py)`", TEXT):
        assert (ROOT / path).exists(), path


def test_the_page_of_errors_is_that_of_the_code() -> None:
    """docs/errors.md holds a row for each class of cache/errors.py, in its order and words."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    expected = []
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.OnepassError):
            bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
            text = " ".join(str(error.__doc__).split("\n\n")[0].split())
            expected.append(f"| `{error.__name__}` | {bases} | {error.exit_code} | {text} |")
    found = [line for line in page.splitlines() if line.startswith("| `")]
    assert found == expected, "\n".join(expected)
