"""Names of views: in which ways an image may be looked at before a network sees it."""

from collections.abc import Collection, Iterable

from onepass.cache.errors import InvalidInputError

FIVE_CROPS = tuple(f"crop:{where}" for where in ("tl", "tr", "bl", "br", "center"))
SYMMETRIC = "symmetries"  # all views that leave every image's class what it is
VIEW_HELP = (
    "flip, turn:90|180|270, flip-turn:90|180|270, symmetries (those of the data set), scale:FACTOR, "
    "crop:tl|tr|bl|br|center, five-crop"
)


def expand_views(views: Iterable[str], symmetries: Collection[str] | None) -> tuple[str, ...]:
    """Return single views, each once: `five-crop` as its five, `symmetries` as all that these make.

    Args:
        views: Their names.
        symmetries: Of the data set, some of `onepass.data.record.SYMMETRIES`; None where nobody said.

    Raises:
        InvalidInputError: `symmetries` of a data set that has none.
    """
    single: list[str] = []
    for view in views:
        if view == SYMMETRIC:
            single += _symmetric_views(symmetries)
        else:
            single += FIVE_CROPS if view == "five-crop" else (view,)
    return tuple(dict.fromkeys(single))


def views_text(views: Iterable[str]) -> str:
    """Return views as they are asked for: `symmetries` for all eight of a square, `five-crop` for the five."""
    single = list(views)
    square = _symmetric_views(("flip", "quarter_turns"))
    for word, group in ((SYMMETRIC, square), ("five-crop", FIVE_CROPS)):
        if set(group) <= set(single):
            single = [word, *(view for view in single if view not in group)]
    return ", ".join(single)


def _symmetric_views(symmetries: Collection[str] | None) -> tuple[str, ...]:
    """Return the mirrored and turned views that some symmetries make, one after the other, but for the image as it is."""
    given = set(symmetries or ())
    if not given:
        raise InvalidInputError(
            f"view {SYMMETRIC}: expected a data set whose symmetries are known, received one "
            + ("of which nobody said" if symmetries is None else "that has none")
            + "; state them with onepass data prepare --symmetries"
        )
    turns = ("turn:90", "turn:180", "turn:270") if "quarter_turns" in given else ()
    mirrored = ("flip",) if "flip" in given else ("flip-turn:180",)  # left to right, top to bottom
    if turns:
        both = ("flip", "flip-turn:90", "flip-turn:180", "flip-turn:270")
        return turns + (both if len(given) > 1 else ())
    return ("flip", "flip-turn:180", "turn:180") if len(given) == 2 else mirrored
