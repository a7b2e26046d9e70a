"""Learning curves of fine-tuning."""

from collections.abc import Sequence
from typing import Any

from onepass.report.artifacts import FinetuneRun
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled

MOST = 6  # runs in one figure
# What an epoch may have measured: field, name, whether it is drawn broken and hollow.
ACCURACIES = (
    ("accuracy", "training", False),
    ("selection_accuracy", "selection", True),
    ("val_accuracy", "validation", True),
)
LOSSES = (
    ("loss", "training", False),
    ("selection_loss", "selection", True),
    ("val_loss", "validation", True),
)


def learning_figures(runs: Sequence[FinetuneRun]) -> list[Figure]:
    """Return accuracy and loss by epoch of the latest runs that have finished one epoch at least.

    Where no epoch was scored on validation images, the two scores that there are make a line: the
    probe's, which is the network's before its first step, and the finished network's.
    """
    shown = [run for run in runs if run.history][-MOST:]
    found = [
        _figure(shown, ACCURACIES, 100, ("learning-accuracy", "Learning: accuracy", "top-1 (%)")),
        _figure(shown, LOSSES, 1, ("learning-loss", "Learning: loss", "loss (nats)")),
    ]
    return [figure for figure in found if figure]


@styled
def _figure(
    runs: Sequence[FinetuneRun],
    fields: Sequence[tuple[str, str, bool]],
    factor: float,
    words: tuple[str, str, str],
) -> Figure | None:
    """Return one figure of the fields that the epochs hold; None where they hold none."""
    lines = [
        (run.name, name, Style(series_style(i).colour, series_style(i).shape, dash), line)
        for i, run in enumerate(runs)
        for field, name, dash in fields
        if (line := _line(run, field, factor))
    ]
    if not lines:
        return None
    slug, title, unit = words
    several = len({run for run, *_ in lines}) > 1
    plot = Plot(
        "epoch",
        unit,
        [(f"{run} · {name}" if several else name, style) for run, name, style, _ in lines],
        ticks=[x for *_, line in lines for x, _ in line],
    )
    rows: list[tuple[Any, ...]] = []
    for run, name, style, line in lines:
        plot.curve(line, style, [f"{run}, {name}, epoch {x:g}: {y:.4g}" for x, y in line])
        rows += [(run, name, int(x), y) for x, y in line]
    ends = "; ".join(f"{run} {name} {line[-1][1]:.3g}" for run, name, _, line in lines)
    return Figure(
        slug,
        title,
        "Training figures are of the images as they were seen: augmented, and while the weights still moved. "
        "Validation at epoch 0 is the frozen probe.",
        plot.drawing(f"Line chart by epoch. At the end: {ends}"),
        ("run", "images", "epoch", unit),
        rows,
    )


def _line(run: FinetuneRun, field: str, factor: float) -> list[tuple[float, float]]:
    found = [(r["epoch"], factor * r[field]) for r in run.history if r.get(field) is not None]
    before, after = run.result.get("probe_top1"), run.result.get("val_top1")
    if field == "val_accuracy" and not found and before is not None and after is not None:
        return [(0, factor * before), (len(run.history), factor * after)]
    return found
