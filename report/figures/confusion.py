"""The confusion matrix: true classes in rows, predicted ones in columns."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from onepass.classify.metrics import confused_pairs
from onepass.report.figures.figure import Figure
from onepass.report.plot import INK, PAPER, WIDTH, Drawing, blank, colour, shorten, styled, tip

ALL = 12  # with so many classes or fewer, all are shown
PALE, STRONG = 0.35, 0.85  # opacities: up to PALE the number is dark, from STRONG on it is light


@styled
def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Return the confusion matrix of all classes, or of those that are confused most.

    Args:
        counts: (K, K) how often true class i was predicted as class j.
        names: K names.
    """
    shown = shown_classes(counts)
    whole = len(shown) == len(names)
    part = counts[np.ix_(shown, shown)]
    if not whole:  # predictions of classes that are not shown
        part = np.column_stack([part, counts[shown].sum(axis=1) - part.sum(axis=1)])
    labels = [names[k] for k in shown]
    columns = labels if whole else [*labels, "another class"]
    rows = [
        (true, predicted, int(part[i, j]))
        for i, true in enumerate(labels)
        for j, predicted in enumerate(columns)
    ]
    errors = "; ".join(f"{a} predicted as {b}: {n}" for a, b, n in rows if n and a != b)
    words = "all classes" if whole else f"the {len(shown)} classes of the most confused pairs"
    return Figure(
        "confusion",
        "Confusion matrix" if whole else "Confusion matrix of the worst pairs",
        f"Images of {words}: true class in rows, predicted class in columns. "
        "Blue: right; orange: wrong.",
        _draw(part, labels, columns, f"Confusion matrix. {errors}"),
        ("true class", "predicted class", "images"),
        rows,
    )


def shown_classes(counts: np.ndarray) -> list[int]:
    """Return the classes to show: all where they are few, else those of the most confused pairs."""
    if len(counts) <= ALL:
        return list(range(len(counts)))
    chosen: list[int] = []
    for i, j, _ in confused_pairs(counts, counts.size, symmetric=True):
        new = [k for k in (i, j) if k not in chosen]
        if len(chosen) + len(new) > ALL - 2:
            break
        chosen += new
    return chosen or list(range(ALL - 2))


def _draw(part: np.ndarray, labels: list[str], columns: list[str], alt: str) -> Drawing:
    canvas, axes = blank(WIDTH, 26 + max(26.0 if len(labels) > 2 else 40.0, 24) * len(labels))
    totals = np.maximum(part.sum(axis=1), 1)
    for i, true in enumerate(labels):
        for j, predicted in enumerate(columns):
            label = f"{true} predicted as {predicted}: {part[i, j]}"
            _cell(axes, (j, i), int(part[i, j]), float(part[i, j] / totals[i]), label)
    heads = [str(j + 1) if j < len(labels) else "other" for j in range(len(columns))]
    axes.set_xticks(range(len(columns)), heads)
    axes.set_yticks(range(len(labels)), [f"{shorten(n, 24)}  {i}" for i, n in enumerate(labels, 1)])
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(labels) - 0.5, -0.5))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return Drawing(canvas, alt)


def _cell(axes: Axes, place: tuple[int, int], count: int, share: float, label: str) -> None:
    """Draw a cell whose colour deepens with the share of its row; no number for a zero."""
    (j, i), strong = place, share >= 0.4
    corner = (j - 0.46, i - 0.46)
    axes.add_patch(Rectangle(corner, 0.92, 0.92, color=colour("soft"), lw=0))
    if not count:
        return
    shade = STRONG + 0.15 * share if strong else 0.1 + (PALE - 0.1) * share / 0.4
    ink = colour("s1" if i == j else "s2")
    axes.add_patch(Rectangle(corner, 0.92, 0.92, color=ink, alpha=shade, lw=0, gid=tip(label)))
    axes.text(j, i, str(count), ha="center", va="center", color=PAPER if strong else INK)
