"""Accuracy against labelled images."""

import numpy as np

from onepass.classify.resampling.curve import CurveFile
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled

MOST = 8  # series in one figure: there are as many colours


@styled
def labels_figure(found: CurveFile) -> Figure:
    """Return the learning curve of each set of features, and its power law as far as twice the labels."""
    metric, curves = found.by, found.curves[:MOST]
    factor, title = (100, f"{metric.label} (%)") if metric.share else (1, metric.label)
    plot = Plot(
        "labelled images",
        title,
        [(curve.name, series_style(i)) for i, curve in enumerate(curves)],
        log=True,
    )
    rows, words = [], []
    for number, curve in enumerate(curves):
        style = series_style(number)
        for point in curve.points:
            low, high = (factor * bound(point.figures) for bound in (min, max))
            plot.span(point.rows, low, high, style.colour)
        labels = [f"{curve.name}, {p.rows:,} images: {metric.text(p.mean)}" for p in curve.points]
        places = [(float(p.rows), factor * p.mean) for p in curve.points]
        plot.curve(places, Style(style.colour, style.shape, ""), labels)
        rows += [(curve.name, p.rows, factor * p.mean, "measured") for p in curve.points]
        words.append(f"{curve.name}: {labels[-1].split(', ')[-1]}")
        if expected := curve.expected:
            sizes = np.geomspace(curve.points[0].rows, 2 * expected.rows, 40)
            law = [(float(n), factor * expected.at(float(n), metric)) for n in sizes]
            plot.curve(law, Style(style.colour, "", "--"))
            rows.append((curve.name, 2 * expected.rows, factor * expected.doubled, "expected"))
            words.append(
                f"{metric.text(expected.doubled)} expected of {2 * expected.rows:,} images"
            )
    return Figure(
        "labels",
        "Learning curve",
        "Markers: mean of the held-out folds, bars their range. Dashed: the power law, as far as twice the labels.",
        plot.drawing(f"Line chart of {metric.label} against labelled images. {'; '.join(words)}."),
        ("features and head", "images", title, "kind"),
        rows,
    )
