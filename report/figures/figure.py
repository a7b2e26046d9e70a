"""A figure: its drawing, and the numbers it was drawn from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from onepass.cache.artifacts import Artifact, record
from onepass.cache.csv_text import csv_text
from onepass.cache.files import write_atomic
from onepass.report.plot import Drawing

INDEX = "index.json"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
FEW = 40  # rows of numbers that the page shows below a figure


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        name: Of its files and of its anchor on the page.
        title: What it shows, in a few words.
        caption: How to read it.
        drawing: The picture.
        columns: Names of the columns of its numbers.
        rows: The numbers, as drawn.
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
        """Whether its numbers are few enough to be shown below it."""
        return 0 < len(self.rows) <= FEW

    @property
    def table(self) -> list[list[str]]:
        """The numbers as text."""
        return [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in self.rows]

    def csv(self) -> str:
        """Return the numbers as CSV; text that a spreadsheet would run gets a ' in front."""
        return csv_text(self.columns, self.rows)


@record
class FigureTexts:
    """What a figure shows.

    Attributes:
        title: In a few words.
        caption: How to read it.
    """

    title: str
    caption: str


@record
class FigureIndex(Artifact):
    """`figures/index.json`: the figures of the page, by name.

    Attributes:
        figures: Title and caption of each.
    """

    figures: dict[str, FigureTexts]

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 0 had the figures at its top level."""
        return {"figures": value}


def write_figures(folder: Path, figures: Sequence[Figure]) -> None:
    """Write each figure as PNG and CSV, and what they show to `index.json`.

    Files of figures that an earlier page had and this one has not are deleted.

    Raises:
        CorruptFileError: The index of the earlier page is damaged.
    """
    index = folder / INDEX
    earlier = FigureIndex.read_optional(index)
    for figure in figures:
        write_atomic(folder / f"{figure.name}.png", figure.drawing.png())
        write_atomic(folder / f"{figure.name}.csv", figure.csv().encode())
    FigureIndex({f.name: FigureTexts(f.title, f.caption) for f in figures}).write(index)
    gone = set(earlier.figures if earlier else ()) - {figure.name for figure in figures}
    for name in filter(NAME.fullmatch, gone):
        for ending in ("png", "csv"):
            (folder / f"{name}.{ending}").unlink(missing_ok=True)
