"""Words for several views, and what a data set's symmetries make of an image."""

import numpy as np
import pytest

from onepass.cache.errors import InvalidInputError
from onepass.data.views import expand_views, views_text
from onepass.extract.network.model import Resize

TURNS = ("turn:90", "turn:180", "turn:270")
ALL = ("flip", "vertical_flip", "quarter_turns")


@pytest.mark.parametrize(
    ("symmetries", "views"),
    [
        (["flip"], ("flip",)),
        (["vertical_flip"], ("flip-turn:180",)),
        (["flip", "vertical_flip"], ("flip", "flip-turn:180", "turn:180")),
        (["quarter_turns"], TURNS),
    ],
)
def test_symmetries_are_all_that_they_make(symmetries: list[str], views: tuple[str, ...]) -> None:
    assert expand_views(("", "symmetries"), symmetries) == ("", *views)


@pytest.mark.parametrize("symmetries", [ALL, ("flip", "quarter_turns"), ALL[1:]])
def test_a_square_has_eight(symmetries: tuple[str, ...]) -> None:
    views = expand_views(("", "symmetries"), symmetries)
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 9, 1), dtype=np.uint8)
    seen = {np.asarray(Resize(9, view)(image)).tobytes() for view in views}
    assert len(views) == len(seen) == 8


def test_words_are_expanded_once() -> None:
    assert expand_views(("flip", "symmetries", "crop:tl", "crop:tl"), ["flip"]) == (
        "flip",
        "crop:tl",
    )
    assert len(expand_views(("five-crop", "crop:center"), None)) == 5


@pytest.mark.parametrize(("symmetries", "why"), [(None, "nobody said"), ([], "has none")])
def test_without_symmetries_the_word_is_refused(symmetries: list[str] | None, why: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"symmetries: .* {why}; .* --symmetries"):
        expand_views(("symmetries",), symmetries)


def test_views_are_told_as_they_are_asked_for() -> None:
    square = expand_views(("scale:1.1", "symmetries"), ALL)
    assert views_text(square) == "symmetries, scale:1.1"
    assert views_text(expand_views(("five-crop",), None)) == "five-crop"
    assert views_text(TURNS) == ", ".join(TURNS) and views_text(()) == ""
