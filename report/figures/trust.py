"""How far probabilities can be trusted: reliability; for two classes, ROC and precision-recall."""

from collections.abc import Sequence

from onepass.classify.metrics import Reliability
from onepass.report.context import Judged
from onepass.report.figures.figure import Figure
from onepass.report.measures import Curve, precision_recall, roc
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled


@styled
def reliability_figure(found: Sequence[tuple[str, Reliability]]) -> Figure:
    """Return how often the most probable class is right, by how probable it was said to be.

    Args:
        found: (whose, its diagram), such as a probe before and after temperature scaling.
    """
    errors = [f"{name} (ECE {100 * r.error:.1f} %)" for name, r in found]
    legend = [(text, series_style(i)) for i, text in enumerate(errors)]
    perfect = ("perfect", Style("muted", "", dash=True))
    plot = Plot("confidence", "share that is right", [*legend, perfect], unit=True)
    plot.diagonal()
    rows: list[tuple[str, int, float, float]] = []
    for i, (name, r) in enumerate(found):
        bins = [
            (name, b.count, b.confidence, b.accuracy)
            for b in r.bins
            if b.confidence is not None and b.accuracy is not None
        ]
        labels = [f"{name}: {n:,} images, confidence {c:.2f}, {a:.2f} right" for _, n, c, a in bins]
        plot.curve([(c, a) for _, _, c, a in bins], series_style(i), labels)
        rows += bins
    return Figure(
        "reliability",
        "Reliability",
        "A sign for each bin of confidence. Below the broken line a model is surer than it is right. "
        "ECE is the mean distance from that line.",
        plot.drawing("Reliability diagram. Expected calibration error: " + "; ".join(errors)),
        ("model", "images", "mean confidence", "share right"),
        rows,
    )


def roc_figure(judged: Sequence[Judged], positive: str) -> Figure:
    """Return the ROC curves of two-class models."""
    return _curves_figure(
        judged,
        [roc(model.probabilities, model.truth) for model in judged],
        ("roc", "ROC curve", "AUC", "false positive rate", "true positive rate"),
        f"Share of the {positive} images that is found against the share of the others that is taken for "
        "them, at every threshold. Hollow signs: where the models decide.",
    )


def precision_recall_figure(judged: Sequence[Judged], positive: str) -> Figure:
    """Return the precision-recall curves of two-class models."""
    return _curves_figure(
        judged,
        [precision_recall(model.probabilities, model.truth) for model in judged],
        ("precision-recall", "Precision and recall", "AP", "recall", "precision"),
        f"Of the images taken for {positive}, the share that is (precision), against the share of all "
        f"{positive} images that is found (recall). Hollow signs: where the models decide.",
    )


@styled
def _curves_figure(
    judged: Sequence[Judged],
    curves: Sequence[Curve],
    words: tuple[str, str, str, str, str],
    caption: str,
) -> Figure:
    slug, title, area, x_title, y_title = words
    areas = [f"{m.stage} ({area} {c.area:.3f})" for m, c in zip(judged, curves, strict=True)]
    legend = [(text, series_style(i)) for i, text in enumerate(areas)]
    plot = Plot(x_title, y_title, legend, unit=True)
    rows: list[tuple[str, float, float]] = []
    for i, (model, curve) in enumerate(zip(judged, curves, strict=True)):
        places = list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))
        style, (x, y) = series_style(i), curve.decision
        plot.curve(places, style)
        label = f"{model.stage}: {x_title} {x:.3f}, {y_title} {y:.3f}"
        plot.curve([(x, y)], Style(style.colour, style.shape, dash=True), [label])
        rows += [(model.stage, *place) for place in places]
    alt = f"{title}. " + "; ".join(areas)
    return Figure(slug, title, caption, plot.drawing(alt), ("model", x_title, y_title), rows)
