"""Figures drawn by matplotlib: as SVG for the page and as PNG for papers."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from onepass.report.palette import COLOURS, Style
from onepass.report.svg import Adorn, page_svg

WIDTH, HEIGHT = 380.0, 260.0  # points; one is one unit of the SVG
SMALL = 10.5  # points, of the font
ROW = 16.0  # height of a line of the legend
POINT = 72.0  # points per inch
DPI = 180  # of the PNG files
LONGEST = 46  # characters of a name in a figure
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^", "": ""}
INK, MUTED, GRID, PAPER = (COLOURS[name][0] for name in ("ink", "muted", "grid", "paper"))
# A class name is text, never a formula; text stays text in the SVG.
styled = matplotlib.rc_context(
    {
        "font.family": "DejaVu Sans", "font.size": SMALL, "text.parse_math": False, "text.color": INK,
        "svg.fonttype": "none", "axes.edgecolor": MUTED, "axes.labelcolor": MUTED, "axes.grid": True,
        "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "grid.color": GRID,
        "xtick.color": MUTED, "ytick.color": MUTED, "axes.spines.left": False, "ytick.major.size": 0,
        "axes.labelsize": SMALL, "legend.fontsize": SMALL, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
        "savefig.facecolor": PAPER, "legend.frameon": False, "axes.unicode_minus": False,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture and its description for screen readers.

    Attributes:
        canvas: The matplotlib figure.
        alt: What it shows, in words.
        adorn: Adds to its SVG what matplotlib does not draw.
    """

    canvas: Canvas
    alt: str
    adorn: Adorn | None = None

    def svg(self, name: str) -> Markup:
        """Return it for the page; `name` keeps its ids distinct from those of other figures."""
        return page_svg(self._saved("svg", name, {"Date": None}).decode(), self.alt, self.adorn)

    def png(self) -> bytes:
        """Return it for papers."""
        return self._saved("png", "", {"Software": None})

    @styled
    def _saved(self, kind: str, salt: str, metadata: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
            # The font of the PNG files lacks the letters of many scripts; the browser has them.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            self.canvas.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        return buffer.getvalue()


def colour(name: str) -> str:
    """Return a colour of the palette as it is on white paper."""
    return COLOURS[name][0]


def shorten(text: str, longest: int = LONGEST) -> str:
    """Return a name in one line of printable characters, truncated where it is long."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def tip(text: str) -> str:
    """Return the group id that `page_svg` turns into the tooltip `text`."""
    return "tip:" + shorten(text, 200)


def blank(width: float, height: float, **options: Any) -> tuple[Canvas, Axes]:
    """Return a canvas of a size in points with one pair of axes; use it under `styled`."""
    canvas = Canvas((width / POINT, height / POINT), layout="constrained")
    return canvas, canvas.add_subplot(**options)


class Plot:
    """A chart with two axes, to be filled with lines and markers; use it under `styled`.

    Args:
        x_title, y_title: Quantities, with their units.
        legend: (name, style) of each series; no legend where there is only one.
        log: Whether the x axis is logarithmic.
        ticks: Values of x to place the ticks at, such as sizes or epochs; used where they are few.
        unit: Whether both axes run from 0 to 1.
    """

    def __init__(
        self,
        x_title: str,
        y_title: str,
        legend: Sequence[tuple[str, Style]] = (),
        *,
        log: bool = False,
        ticks: Sequence[float] = (),
        unit: bool = False,
    ) -> None:
        self.names: list[tuple[float, float, str]] = []
        legend = legend if len(legend) > 1 else ()
        texts = [shorten(name) for name, _ in legend]
        columns = max(1, int(WIDTH // (44 + 5.8 * max(map(len, texts), default=0))))
        height = HEIGHT + ROW * -(-len(texts) // columns)
        self.canvas, self.axes = blank(
            WIDTH, height, xlabel=shorten(x_title), ylabel=shorten(y_title)
        )
        if texts:
            handles = [_handle(text, style) for text, (_, style) in zip(texts, legend, strict=True)]
            self.canvas.legend(handles=handles, loc="outside upper left", ncols=columns)
        if log:
            self.axes.set_xscale("log")
            self.axes.xaxis.set_major_locator(LogLocator(numticks=7))
            self.axes.xaxis.set_major_formatter("{x:g}")
            self.axes.xaxis.set_minor_formatter("")
        if 0 < len(set(ticks)) <= 10:
            self.axes.xaxis.set_major_locator(FixedLocator(_apart(ticks, log)))
            self.axes.xaxis.set_minor_locator(NullLocator())
            self.axes.xaxis.set_major_formatter("{x:g}")
        if unit:
            self.axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))

    def curve(
        self, points: Sequence[tuple[float, float]], style: Style, labels: Sequence[str] = ()
    ) -> None:
        """Draw a line through points; `labels` give each point a marker with a tooltip."""
        if len(points) > 1 and style.line:
            self.axes.plot(*zip(*points, strict=True), **_line(style))
        for (x, y), label in zip(points, labels, strict=False):
            self.axes.plot([x], [y], gid=tip(label), **_mark(style))

    def span(self, x: float, low: float, high: float, name: str) -> None:
        """Draw a vertical interval in a colour of the palette."""
        bars = [[(high - low) / 2], [(high - low) / 2]]
        self.axes.errorbar(
            [x], [(low + high) / 2], bars, ecolor=colour(name), elinewidth=1, capsize=2.5, fmt="none"
        )  # fmt: skip

    def diagonal(self) -> None:
        """Draw the line on which both axes are equal."""
        self.axes.axline((0, 0), slope=1, color=MUTED, lw=1, ls="--")

    def name(self, x: float, y: float, text: str) -> None:
        """Write a name beside a point when the figure is finished."""
        self.names.append((x, y, shorten(text, 26)))

    def drawing(self, alt: str, adorn: Adorn | None = None) -> Drawing:
        """Return what was drawn; `alt` describes it for screen readers, `adorn` adds to its SVG."""
        self.axes.autoscale_view()  # else the limits are known only when the picture is saved
        scale = self.axes.transScale + self.axes.transLimits
        taken: list[tuple[float, float]] = []
        for x, y, text in self.names:
            across, up = scale.transform((x, y))
            if any(abs(across - a) < 0.5 and abs(up - b) < 0.07 for a, b in taken):
                continue  # it would overlap another name; its marker still has the tooltip
            taken.append((across, up))
            place: dict[str, Any] = {"xytext": (6, 6)}
            if across > 0.5:
                place = {"xytext": (-6, 6), "ha": "right"}
            self.axes.annotate(text, (x, y), textcoords="offset points", **place)
        return Drawing(self.canvas, alt, adorn)


def _line(style: Style) -> dict[str, Any]:
    return {"color": colour(style.colour), "lw": 1.6, "ls": style.line}


def _mark(style: Style) -> dict[str, Any]:
    face = PAPER if style.hollow else colour(style.colour)
    return {
        "marker": MARKERS[style.shape], "ms": 5, "mfc": face, "mec": colour(style.colour), "mew": 1.4, "ls": "",
    }  # fmt: skip


def _handle(name: str, style: Style) -> Line2D:
    return Line2D([], [], label=name, **{**_mark(style), **_line(style)})


def _apart(ticks: Sequence[float], log: bool) -> list[float]:
    """Return the ticks without those whose labels would overlap their neighbours."""
    if log:
        return sorted(set(ticks))
    span, kept = max(ticks) - min(ticks), list[float]()
    for value in sorted(set(ticks)):
        if not kept or value - kept[-1] >= 0.06 * span:
            kept.append(value)
    return kept
