"""How reliable the probabilities are; where one class is to be found, ROC and precision-recall curves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from onepass.classify.metrics import (
    Detection,
    Reliability,
    Share,
    auroc,
    average_precision,
    risk_coverage,
)
from onepass.classify.operating_points import OperatingPoint
from onepass.report.context import EvaluatedModel
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled

POINT = Style("ink", "diamond", "")


@styled
def reliability_figure(found: Sequence[tuple[str, Reliability]]) -> Figure:
    """Return accuracy against confidence, by bins of confidence.

    Args:
        found: (model, its reliability), such as a probe before and after temperature scaling.
    """
    errors = [f"{name} (ECE {100 * r.error:.1f} %)" for name, r in found]
    legend = [(text, series_style(i)) for i, text in enumerate(errors)]
    perfect = ("perfect calibration", Style("muted", "", "--"))
    plot = Plot("confidence", "accuracy", [*legend, perfect], unit=True)
    plot.diagonal()
    rows: list[tuple[str, int, float, float]] = []
    for i, (name, r) in enumerate(found):
        bins = [
            (name, b.count, b.confidence, b.accuracy)
            for b in r.bins
            if b.confidence is not None and b.accuracy is not None
        ]
        labels = [f"{name}: {n:,} images, confidence {c:.2f}, accuracy {a:.2f}" for _, n, c, a in bins]  # fmt: skip
        plot.curve([(c, a) for _, _, c, a in bins], series_style(i), labels)
        rows += bins
    return Figure(
        "reliability",
        "Reliability diagram",
        "A marker for each bin of confidence that has images. Below the dashed line a model is overconfident. "
        "ECE is the mean distance from that line, weighted by images.",
        plot.drawing("Reliability diagram. Expected calibration error: " + "; ".join(errors)),
        ("model", "images", "mean confidence", "accuracy"),
        rows,
    )


@styled
def risk_coverage_figure(evaluated: Sequence[EvaluatedModel]) -> Figure:
    """Return the share of wrong answers among the most confident ones, by how many are given."""
    curves = [risk_coverage(model.probabilities, model.correct) for model in evaluated]
    areas = [
        f"{m.stage} (mean {100 * c.mean():.1f} %)" for m, c in zip(evaluated, curves, strict=True)
    ]
    legend = [(text, series_style(i)) for i, text in enumerate(areas)]
    plot = Plot("share of images answered", "share of these that is wrong", legend)
    rows: list[tuple[str, float, float]] = []
    for i, (model, risk) in enumerate(zip(evaluated, curves, strict=True)):
        few = np.unique(np.linspace(0, len(risk) - 1, 200).astype(int))
        points = [((n + 1) / len(risk), float(risk[n])) for n in few]
        plot.curve(points, series_style(i))
        rows += [(model.stage, *point) for point in points]
    return Figure(
        "risk-coverage",
        "Risk and coverage",
        "Where the least probable answers are left open: the share of wrong answers among the others. At the right "
        "every image is answered.",
        plot.drawing("Risk and coverage. Mean risk: " + "; ".join(areas)),
        ("model", "share answered", "share wrong"),
        rows,
    )


@dataclass(frozen=True, slots=True)
class Positive:
    """The class that is to be found: its column, and its name."""

    column: int
    name: str


@dataclass(frozen=True, slots=True)
class _Curve:
    """One model over all thresholds of the probability of the positive class.

    Attributes:
        x, y: Its points.
        area: Area under the ROC curve, or average precision.
        decision: Where the most probable class is the answer.
    """

    x: np.ndarray
    y: np.ndarray
    area: float
    decision: tuple[float, float]


def roc_figure(
    evaluated: Sequence[EvaluatedModel], positive: Positive, point: OperatingPoint | None = None
) -> Figure:
    """Return the ROC curves of one class against the rest, with the operating point of the first model."""
    return _curves_figure(
        evaluated,
        [_roc(model, positive.column) for model in evaluated],
        ("roc", "ROC curve", "AUC", "false positive rate", "true positive rate"),
        positive,
        point,
        lambda found: (found.false_alarms, found.sensitivity),
    )


def precision_recall_figure(
    evaluated: Sequence[EvaluatedModel], positive: Positive, point: OperatingPoint | None = None
) -> Figure:
    """Return the precision-recall curves of one class against the rest, with the operating point as above."""
    return _curves_figure(
        evaluated,
        [_precision_recall(model, positive.column) for model in evaluated],
        ("precision-recall", "Precision-recall curve", "AP", "recall", "precision"),
        positive,
        point,
        lambda found: (found.sensitivity, found.precision),
    )


def _roc(model: EvaluatedModel, column: int) -> _Curve:
    scores, positive = model.probabilities[:, column], model.truth == column
    false, true, _ = roc_curve(positive, scores)
    called = model.predicted == column
    decision = (float(called[~positive].mean()), float(called[positive].mean()))
    return _Curve(false, true, auroc(model.truth, model.probabilities, column), decision)


def _precision_recall(model: EvaluatedModel, column: int) -> _Curve:
    scores, positive = model.probabilities[:, column], model.truth == column
    precision, recall, _ = precision_recall_curve(positive, scores)
    called = model.predicted == column
    at_decision = float(positive[called].mean()) if called.any() else 1.0
    area = average_precision(model.truth, model.probabilities, column)
    return _Curve(recall, precision, area, (float(called[positive].mean()), at_decision))


@styled
def _curves_figure(
    evaluated: Sequence[EvaluatedModel],
    curves: Sequence[_Curve],
    words: tuple[str, str, str, str, str],
    positive: Positive,
    point: OperatingPoint | None,
    axes: Callable[[Detection], tuple[Share, Share]],
) -> Figure:
    slug, title, area, x_title, y_title = words
    areas = [f"{m.stage} ({area} {c.area:.3f})" for m, c in zip(evaluated, curves, strict=True)]
    legend = [(text, series_style(i)) for i, text in enumerate(areas)]
    caption = f"{positive.name} is the positive class. Hollow: where the most probable class is the answer."
    marked = axes(point.validation) if point and point.validation else ()
    if point and marked:
        legend.append((f"operating point, {point.goal}", POINT))
        caption += (
            f" Diamond: {evaluated[0].stage}, called {positive.name} from a probability of {point.threshold:.3g} "
            "on, chosen on held-out training images; bar: 95 % interval."
        )
    plot = Plot(x_title, y_title, legend, unit=True)
    rows: list[tuple[str, float, float]] = []
    for i, (model, curve) in enumerate(zip(evaluated, curves, strict=True)):
        points = list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))
        style = series_style(i)
        plot.curve(points, style)
        label = _label(model.stage, x_title, y_title, curve.decision)
        plot.curve([curve.decision], Style(style.colour, style.shape, hollow=True), [label])
        rows += [(model.stage, *point) for point in points]
    alt = f"{title}. " + "; ".join(areas)
    if point and marked:
        x, y = marked
        place, (low, high) = (x.value or 0.0, y.value or 0.0), y.interval or (0.0, 1.0)
        label = _label(str(point.goal), x_title, y_title, place)
        plot.span(place[0], low, high, POINT.colour)
        plot.curve([place], POINT, [label])
        rows.append((f"operating point, {point.goal}", *place))
        alt += f"; {label}"
    return Figure(slug, title, caption, plot.drawing(alt), ("model", x_title, y_title), rows)


def _label(name: str, x_title: str, y_title: str, place: tuple[float, float]) -> str:
    return f"{name}: {x_title} {place[0]:.3f}, {y_title} {place[1]:.3f}"
