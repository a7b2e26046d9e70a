"""How reliable the probabilities are; for two classes, ROC and precision-recall curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from onepass.classify.metrics import Reliability, auroc, average_precision, risk_coverage
from onepass.report.context import EvaluatedModel
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled

DECISION = 0.5  # probability of class 1 above which a two-class model predicts it


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
class _Curve:
    """One model over all thresholds of the probability of class 1.

    Attributes:
        x, y: Its points.
        area: Area under the ROC curve, or average precision.
        decision: The point at DECISION.
    """

    x: np.ndarray
    y: np.ndarray
    area: float
    decision: tuple[float, float]


def roc_figure(evaluated: Sequence[EvaluatedModel], positive: str) -> Figure:
    """Return the ROC curves of two-class models; `positive` is the name of class 1."""
    return _curves_figure(
        evaluated,
        [_roc(model) for model in evaluated],
        ("roc", "ROC curve", "AUC", "false positive rate", "true positive rate"),
        f"{positive} is the positive class. Hollow: the threshold of one half, at which the models decide.",
    )


def precision_recall_figure(evaluated: Sequence[EvaluatedModel], positive: str) -> Figure:
    """Return the precision-recall curves of two-class models; `positive` is the name of class 1."""
    return _curves_figure(
        evaluated,
        [_precision_recall(model) for model in evaluated],
        ("precision-recall", "Precision-recall curve", "AP", "recall", "precision"),
        f"{positive} is the positive class. Hollow: the threshold of one half, at which the models decide.",
    )


def _roc(model: EvaluatedModel) -> _Curve:
    scores, positive = model.probabilities[:, 1], model.truth == 1
    false, true, _ = roc_curve(positive, scores)
    above = scores > DECISION
    decision = (float(above[~positive].mean()), float(above[positive].mean()))
    return _Curve(false, true, auroc(model.truth, model.probabilities), decision)


def _precision_recall(model: EvaluatedModel) -> _Curve:
    scores, positive = model.probabilities[:, 1], model.truth == 1
    precision, recall, _ = precision_recall_curve(positive, scores)
    above = scores > DECISION
    at_decision = float(positive[above].mean()) if above.any() else 1.0
    area = average_precision(model.truth, model.probabilities)
    return _Curve(recall, precision, area, (float(above[positive].mean()), at_decision))


@styled
def _curves_figure(
    evaluated: Sequence[EvaluatedModel],
    curves: Sequence[_Curve],
    words: tuple[str, str, str, str, str],
    caption: str,
) -> Figure:
    slug, title, area, x_title, y_title = words
    areas = [f"{m.stage} ({area} {c.area:.3f})" for m, c in zip(evaluated, curves, strict=True)]
    legend = [(text, series_style(i)) for i, text in enumerate(areas)]
    plot = Plot(x_title, y_title, legend, unit=True)
    rows: list[tuple[str, float, float]] = []
    for i, (model, curve) in enumerate(zip(evaluated, curves, strict=True)):
        points = list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))
        style, (x, y) = series_style(i), curve.decision
        plot.curve(points, style)
        label = f"{model.stage}: {x_title} {x:.3f}, {y_title} {y:.3f}"
        plot.curve([(x, y)], Style(style.colour, style.shape, hollow=True), [label])
        rows += [(model.stage, *point) for point in points]
    alt = f"{title}. " + "; ".join(areas)
    return Figure(slug, title, caption, plot.drawing(alt), ("model", x_title, y_title), rows)
