"""The colours, once: the page's style sheet, its SVG and the PNG files take them from here.

Contrast to the paper (WCAG): text at least 4.5, marks at least 3; a test computes it.
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
    """How one series is told from the others, by colour and by shape.

    Attributes:
        colour: Name in COLOURS.
        shape: Of its marks, one of SHAPES; "" for a line without any.
        dash: Whether its line is broken.
    """

    colour: str
    shape: str = "circle"
    dash: bool = False


def series_style(number: int) -> Style:
    """Return the style of the series of this number, from 0; they repeat after eight."""
    return Style(SERIES[number % len(SERIES)], SHAPES[number % len(SHAPES)])


def rgb(name: str, dark: bool = False) -> tuple[int, int, int]:
    """Return a colour as red, green and blue, 0 … 255."""
    text = COLOURS[name][dark]
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
