"""The contact sheet of mistakes as one picture, for papers; the page shows its images one by one."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas

from onepass.data.dataset import ImageDataset
from onepass.report.figures.figure import Figure
from onepass.report.mistakes import Mistake
from onepass.report.plot import POINT, Drawing, colour, shorten, styled

COLUMNS = 6
CELL, HIGH = 100.0, 128.0  # points


@styled
def sheet_figure(
    dataset: ImageDataset, mistakes: Sequence[Mistake], names: Sequence[str]
) -> Figure:
    """Return the images with both class names; the first is what they are."""
    lines = -(-len(mistakes) // COLUMNS)
    canvas = Canvas((CELL * COLUMNS / POINT, HIGH * lines / POINT))
    cells = canvas.subplots(lines, COLUMNS, squeeze=False).ravel()
    canvas.subplots_adjust(0.01, 0.02, 0.99, 0.97, wspace=0.08, hspace=0.35)
    for cell in cells:
        cell.set_axis_off()
    for cell, mistake in zip(cells, mistakes, strict=False):
        pixels = dataset.pixels[mistake.row]
        cell.imshow(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        truth, taken = (shorten(names[k], 18) for k in (mistake.truth, mistake.taken))
        below = {"transform": cell.transAxes, "fontsize": 8, "va": "top"}
        cell.text(0, -0.04, truth, fontweight="bold", **below)
        cell.text(0, -0.17, taken, color=colour("s2"), **below)
    return Figure(
        "mistakes",
        "The most confident mistakes",
        "Bold: what they are. Below: what they were taken for.",
        Drawing(canvas, "Contact sheet of mistakes"),
        ("file", "is", "taken for", "probability"),
        [(m.name, names[m.truth], names[m.taken], m.share) for m in mistakes],
    )
