"""Learning curves of fine-tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onepass.finetune.session.runs import Run
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled

MOST = 6  # runs in one figure
SPLITS = ("training", "selection", "validation")


@dataclass(frozen=True, slots=True)
class Curve:
    """One measure of one run by epoch.

    Attributes:
        run: Name of the run.
        split: One of SPLITS.
        points: (epoch, value); epoch 0 is what the run started from.
    """

    run: str
    split: str
    points: list[tuple[float, float]]


def learning_figures(runs: Sequence[Run]) -> list[Figure]:
    """Return accuracy and loss by epoch of the latest finished runs.

    The validation split is scored twice only: for the frozen probe, or the network of the run that it goes
    on from, and for the finished network. At epoch 0 the selection split is scored by the network before its
    first step; of a probe it has the head, fitted without that split.
    """
    before = {run.result.run: run.result.val_top1 for run in runs if run.result}
    shown = [run for run in runs if run.result and run.result.history][-MOST:]
    accuracy = [curve for run in shown for curve in _accuracies(run, _start_top1(run, before))]
    loss = [curve for run in shown for curve in _losses(run)]
    return [
        _figure(curves, *words)
        for curves, words in (
            (accuracy, ("learning-accuracy", "Accuracy by epoch", "top-1 (%)")),
            (loss, ("learning-loss", "Loss by epoch", "loss (nats)")),
        )
        if curves
    ]


def _start_top1(run: Run, before: Mapping[str, float | None]) -> float | None:
    """Return the validation accuracy of what a run started from; None where that is not known.

    Args:
        run: Finished.
        before: Of runs by their name, DATASET/RUN.
    """
    result = run.result
    assert result is not None
    if run.identity.from_run:
        return before.get(run.identity.from_run)
    head_at_random = result.from_scratch or bool(run.identity.recipe.hidden)
    return None if head_at_random else result.probe_top1


def _accuracies(run: Run, start_top1: float | None) -> list[Curve]:
    result = run.result
    assert result is not None
    training = [(float(row.epoch), 100 * row.accuracy) for row in result.history]
    start = result.start_selection
    selection = [(0.0, 100 * start.accuracy)] if start else []
    selection += [
        (float(row.epoch), 100 * row.selection_accuracy)
        for row in result.history
        if row.selection_accuracy is not None
    ]
    validation = [] if start_top1 is None else [(0.0, 100 * start_top1)]
    if result.val_top1 is not None:
        validation.append((float(len(result.history)), 100 * result.val_top1))
    return _known(run, training, selection, validation)


def _losses(run: Run) -> list[Curve]:
    assert run.result is not None
    history, start = run.result.history, run.result.start_selection
    training = [(float(row.epoch), row.loss) for row in history]
    selection = [(0.0, start.loss)] if start else []
    selection += [
        (float(row.epoch), row.selection_loss) for row in history if row.selection_loss is not None
    ]
    return _known(run, training, selection, [])


def _known(run: Run, *measures: list[tuple[float, float]]) -> list[Curve]:
    """Return a curve for each of SPLITS that was measured."""
    pairs = zip(SPLITS, measures, strict=True)
    return [Curve(run.name, split, points) for split, points in pairs if points]


@styled
def _figure(curves: Sequence[Curve], slug: str, title: str, unit: str) -> Figure:
    names = list(dict.fromkeys(curve.run for curve in curves))
    several = len(names) > 1
    styles = [_style(curve.split, names.index(curve.run) if several else None) for curve in curves]
    texts = [f"{c.run} · {c.split}" if several else c.split for c in curves]
    plot = Plot(
        "epoch",
        unit,
        list(zip(texts, styles, strict=True)),
        ticks=[x for curve in curves for x, _ in curve.points],
    )
    rows: list[tuple[Any, ...]] = []
    for curve, style in zip(curves, styles, strict=True):
        labels = [f"{curve.run}, {curve.split}, epoch {x:g}: {y:.4g}" for x, y in curve.points]
        plot.curve(curve.points, style, labels)
        rows += [(curve.run, curve.split, int(x), y) for x, y in curve.points]
    ends = "; ".join(f"{c.run} {c.split} {c.points[-1][1]:.3g}" for c in curves)
    scored = any(curve.split == "validation" for curve in curves)
    frozen = " Validation at epoch 0 is the frozen probe." if scored else ""
    return Figure(
        slug,
        title,
        f"Training values are means over the steps of the epoch, on augmented images.{frozen}",
        plot.drawing(f"Line chart by epoch. At the end: {ends}"),
        ("run", "split", "epoch", unit),
        rows,
    )


def _style(split: str, run: int | None) -> Style:
    """Return a curve's style: colours tell the runs apart, or the splits of a single run."""
    place = SPLITS.index(split)
    base = series_style(place if run is None else run)
    return Style(base.colour, base.shape, line=("-", "--", "")[place], hollow=place > 0)
