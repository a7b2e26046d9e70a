"""The colours of the page's style sheet, its SVG and the PNG files.

Contrast with the background (WCAG): text at least 4.5, markers at least 3; a test computes it.
"""

from dataclasses import dataclass

COLOURS: dict[str, tuple[str, str]] = {  # name: (light, dark)
    "paper": ("#ffffff", "#14171b"),
    "soft": ("#f3f5f8", "#1d2228"),
    "grid": ("#e4e8ed", "#2a3038"),
    "line": ("#cfd5dc", "#3d4650"),
    "muted": ("#56606b", "#a6b0bb"),
    "ink": ("#15181c", "#e9ecef"),
    "accent": ("#0b57a4", "#82bbf6"),
    "s1": ("#0b63b0", "#6db3f2"),
    "s2": ("#bd4a06", "#f2955c"),
    "s3": ("#0f7350", "#5cc79b"),
    "s4": ("#84399f", "#c89ae9"),
    "s5": ("#8a6100", "#dcb14a"),
    "s6": ("#b01f57", "#f285ac"),
    "s7": ("#0b7385", "#57c5d8"),
    "s8": ("#566069", "#a6b0bb"),
}
SERIES = tuple(name for name in COLOURS if name.startswith("s") and name[1:].isdigit())
SHAPES = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True, slots=True)
class Style:
    """How one series looks: it differs from the others in colour and in shape.

    Attributes:
        colour: Name in COLOURS.
        shape: Of its markers, one of SHAPES; "" for a line without any.
        line: As matplotlib writes it: "-" solid, "--" dashed, "" none.
        hollow: Whether its markers are outlines.
    """

    colour: str
    shape: str = "circle"
    line: str = "-"
    hollow: bool = False


def series_style(number: int) -> Style:
    """Return the style of the series of this number, from 0; they repeat after eight."""
    return Style(SERIES[number % len(SERIES)], SHAPES[number % len(SHAPES)])
