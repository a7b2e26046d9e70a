"""The contact sheet of mistakes as a single picture; the page shows the images one by one."""

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
def contact_sheet_figure(
    dataset: ImageDataset, mistakes: Sequence[Mistake], names: Sequence[str]
) -> Figure:
    """Return the images with their true and predicted class names."""
    lines = -(-len(mistakes) // COLUMNS)
    canvas = Canvas((CELL * COLUMNS / POINT, HIGH * lines / POINT))
    cells = canvas.subplots(lines, COLUMNS, squeeze=False).ravel()
    canvas.subplots_adjust(0.01, 0.02, 0.99, 0.97, wspace=0.08, hspace=0.35)
    for cell in cells:
        cell.set_axis_off()
    for cell, mistake in zip(cells, mistakes, strict=False):
        pixels = dataset.pixels[mistake.row]
        cell.imshow(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        truth, predicted = (shorten(names[k], 18) for k in (mistake.truth, mistake.predicted))
        below = {"transform": cell.transAxes, "fontsize": 8, "va": "top"}
        cell.text(0, -0.04, truth, fontweight="bold", **below)
        cell.text(0, -0.17, predicted, color=colour("s2"), **below)
    return Figure(
        "mistakes",
        "Most confident mistakes",
        "Bold: true class. Below: predicted class.",
        Drawing(canvas, "Contact sheet of mistakes"),
        ("file", "true class", "predicted class", "probability"),
        [(m.name, names[m.truth], names[m.predicted], m.confidence) for m in mistakes],
    )
