"""What `onepass extract` says at its end."""

from dataclasses import replace
from pathlib import Path

from onepass.extract.__main__ import _text
from onepass.extract.pipeline import ExtractResult, FileReport


def test_the_next_command_is_one_that_the_images_are_fit_for() -> None:
    file = FileReport("tiny@16", Path("tiny@16.h5"), "cached", 9, 16)
    labelled = ExtractResult("birds", 9, [file], "", [], 0.0)
    assert _text(labelled).endswith("Next: onepass classify --dataset birds")
    last = _text(replace(labelled, labelled=False)).splitlines()[-1]
    assert last.startswith("Next: onepass classify next --dataset LABELLED --from birds, where")
