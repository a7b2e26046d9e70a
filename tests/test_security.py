"""SECURITY.md states the limits that the code has."""

import pytest

from conftest import ROOT
from onepass.cache.arrays import MOST_GROWTH as MOST_GROWTH_PACKED
from onepass.cache.arrays import MOST_UNPACKED
from onepass.cache.commandline.advice import LONGEST
from onepass.cache.files import MAX_JSON
from onepass.cache.hdf5 import MOST_OBJECTS
from onepass.cache.progress import human_bytes
from onepass.data import tables
from onepass.data.archive import Limits
from onepass.data.images import MAX_PIXELS, MEMORY, PIXEL_BYTES
from onepass.extract.backbones import torch_file
from onepass.extract.backbones.weights_files import MOST_GROWTH

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
LINES = dict(
    line.strip("| ").split(" | ", 1)
    for line in TEXT.partition("## Limits")[2].splitlines()
    if line.startswith("| ")
)
ZIP = Limits()


def short(count: int) -> str:
    """A size as the table has it: without a digit behind the point where that is 0."""
    return human_bytes(count).replace(".0 ", " ")


@pytest.mark.parametrize(
    ("what", "numbers"),
    [
        ("pixels of an image", [f"{MAX_PIXELS:,}", *(f"{MEMORY // b:,}" for b in PIXEL_BYTES.values())]),
        ("memory of all images that are being decoded, in all threads", [short(MEMORY)]),
        ("a member of a zip", [f"{ZIP.ratio} times", f"{ZIP.growth / 1e6:.0f} MB"]),
        ("a compressed tar", [f"{ZIP.ratio} times", f"{ZIP.growth / 1e6:.0f} MB"]),
        ("a zip or tar", [f"{ZIP.members:,}", f"{ZIP.total_bytes / 1e9:.0f} GB", f"{ZIP.name} characters"]),
        ("a file in a folder, zip or tar that is taken for an image", [f"{ZIP.member_bytes / 1e9:.2f} GB"]),
        ("a JSON file", [short(MAX_JSON), f"{tables.MAX_LINE / 1e6:.2f} MB"]),
        ("a table", [f"{tables.MAX_TEXT / 1e9:.2f} GB", f"{tables.MAX_ROWS:,} rows", f"{tables.MAX_COLUMNS:,} columns"]),
        ("images of an `.npz`", [f"{MOST_GROWTH_PACKED} times", f"{MOST_UNPACKED / 1e9:.1f} GB"]),
        ("tensors of a `.pth`", [f"{torch_file.MAX_INSTRUCTIONS:,}", f"{torch_file.MAX_DIMENSIONS} dim"]),
        ("arrays of a weights file `.h5`", [f"{MOST_GROWTH} times"]),
        ("arrays of a row file", [f"{MOST_OBJECTS:,} objects"]),
        ("an error message", [f"{LONGEST:,}"]),
    ],
)  # fmt: skip
def test_the_limits_are_those_of_the_code(what: str, numbers: list[str]) -> None:
    assert [number for number in numbers if number not in LINES[what]] == []


def test_the_parser_of_weights_has_as_many_instructions() -> None:
    known = len(torch_file.CONSTANTS) + len(torch_file.CHANGES) + 1  # and the end
    assert known == 30 and "thirty instructions" in TEXT
