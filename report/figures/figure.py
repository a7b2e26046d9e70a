"""A figure: its drawing for the page and for papers, and the numbers it was drawn from."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from onepass.cache.errors import OnepassError
from onepass.cache.files import read_json, write_atomic, write_json
from onepass.report.plot import Drawing

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
FEW = 40  # rows of a table that may stand below its figure
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        name: Of its files and of its place on the page.
        title: What it shows, in a few words.
        caption: How to read it.
        drawing: The picture.
        columns: Names of the columns of its numbers.
        rows: The numbers, as they were drawn.
    """

    name: str
    title: str
    caption: str
    drawing: Drawing
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"figure name {self.name!r}: expected lower-case letters and digits")

    @property
    def svg(self) -> Markup:
        """The picture for the page."""
        return self.drawing.svg(self.name)

    @property
    def few(self) -> bool:
        """Whether its numbers are few enough to stand below it."""
        return 0 < len(self.rows) <= FEW

    @property
    def table(self) -> list[list[str]]:
        """The numbers as text for people."""
        return [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in self.rows]

    def csv(self) -> str:
        """Return the numbers as CSV; a text that a spreadsheet would run gets a ' before it."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_harmless(value) for value in row] for row in self.rows)
        return out.getvalue()


def _harmless(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value


def write_figures(folder: Path, figures: Sequence[Figure]) -> None:
    """Write each figure as PNG and CSV, and what they show to `index.json`.

    Files of figures that an earlier page had and this one has not are deleted.
    """
    index = folder / "index.json"
    before = _listed(index)
    for figure in figures:
        write_atomic(folder / f"{figure.name}.png", figure.drawing.png())
        write_atomic(folder / f"{figure.name}.csv", figure.csv().encode())
    write_json(index, {f.name: {"title": f.title, "caption": f.caption} for f in figures})
    for name in before - {figure.name for figure in figures}:
        for ending in ("png", "csv"):
            (folder / f"{name}.{ending}").unlink(missing_ok=True)


def _listed(index: Path) -> set[str]:
    """Return the names of the figures that were written before."""
    try:
        return {name for name in read_json(index) if NAME.fullmatch(name)}
    except (OnepassError, TypeError):
        return set()
