"""What a person reads at the end of `classify --folds` and `classify curve`."""

from typing import TYPE_CHECKING

from onepass.cache.commandline.advice import command_of
from onepass.cache.commandline.table import table
from onepass.cache.progress import human_seconds
from onepass.classify.text import p_value

if TYPE_CHECKING:
    from onepass.classify.metrics import Metric
    from onepass.classify.resampling.curve import CurveResult, Extrapolation
    from onepass.classify.resampling.folds import CrossValidation, FoldLine, FoldsResult

TOGETHER = {
    "images": "equal images together",
    "groups": "images of one group together",
    "column": "as the data set's column says",
}


def folds_text(result: "FoldsResult") -> str:
    """Return how every head does over the folds, and whether the best is better by more than chance."""
    found, metric = result.found, result.found.by
    header = ("#", "features", "head", "chosen", f"{metric.label} (95 %)", "deviation", "best is better by", "p", "time")  # fmt: skip
    rows = [_row(place, line, metric) for place, line in enumerate(result.lines, 1)]
    from onepass.classify.analysis.series import (
        series_words,  # NumPy and SciPy: too slow for --help
    )

    note = [f"Note: {series_words(found.dataset, result.series)}"] if result.series else []
    all_in_all = len(result.lines) * found.folds * found.repeats
    return "\n".join(
        [
            f"{found.dataset}: {fold_words(found)}; {result.ran} of {all_in_all} fits run now, the others cached; "
            f"{human_seconds(result.seconds)}",
            "",
            *table([header, *rows]),
            "",
            f"Protocol: {protocol(found)}.",
            "p: two-sided corrected t-test of the best against each other (Nadeau and Bengio, 2003), one test a line.",
            *note,
            f"Files: {result.path}",
            f"Next: {command_of('classify', found.dataset)}",
        ]
    )


def fold_words(found: "CrossValidation") -> str:
    """Return how the folds were dealt, in a few words."""
    times = f" {found.repeats} times" * (found.repeats > 1)
    return f"{found.rows:,} training rows in {found.folds} folds{times}, {TOGETHER[found.together]}"


def protocol(found: "CrossValidation") -> str:
    """Return what was read and how a setting was chosen, in a sentence."""
    kept = f"; {found.kept:,} rows of classes of one image or group are never held out" * bool(
        found.kept
    )
    return (
        f"every head in the same folds of the training rows, stratified, seed {found.seed}{kept}; hyper-parameters for "
        "a fold are those that are best on the other folds; the validation split is not read"
    )


def _row(place: int, line: "FoldLine", metric: "Metric") -> tuple[str, ...]:
    from onepass.classify.heads.base import brief  # scikit-learn: too slow for --help

    probe, (low, high) = line.probe, line.interval
    numbers = [metric.text(figure) for figure in (low, high, line.deviation)]
    if metric.share:
        numbers[:2] = [number.removesuffix(" %") for number in numbers[:2]]
    return (
        "baseline" if probe.baseline else str(place),
        probe.features_text or "none",
        probe.head,
        brief(probe.chosen()) or "-",
        f"{metric.text(line.mean)} ({numbers[0]} … {numbers[1]})",
        numbers[2],
        "-" if line.gain is None else points(line.gain, metric),
        "-"
        if line.p_value is None
        else p_value(line.p_value).removeprefix("p ").removeprefix("= "),
        human_seconds(probe.seconds),
    )


def points(gain: float, metric: "Metric") -> str:
    """Return a difference of a metric in words: in points where it is a share."""
    return f"{100 * gain:.1f} points" if metric.share else f"{gain:.3f}"


def curve_text(result: "CurveResult") -> str:
    """Return each curve as a table, and what twice as many labels would be worth."""
    found, metric = result.found, result.found.by
    lines = []
    for curve in found.curves:
        rows = [
            (
                f"{point.rows:,}",
                f"{point.rows / found.classes:,.1f}",
                metric.text(point.mean),
                f"{metric.text(min(point.figures))} to {metric.text(max(point.figures))}",
            )
            for point in curve.points
        ]
        header = ("images", "a class", metric.label, "held-out folds")
        lines += [curve.name, "", *table([header, *rows]), ""]
        if curve.expected:
            lines += [f"{doubling(curve.expected, metric)}.", ""]
    return "\n".join(
        [
            *lines,
            f"Protocol: {found.seeds} times two of five folds of the {found.rows:,} training rows held out; the same "
            "images at every size and further ones; the validation split is not read.",
            f"Files: {result.path}",
        ]
    )


def doubling(expected: "Extrapolation", metric: "Metric") -> str:
    """Return what twice as many labels are worth, in a sentence without its stop."""
    low, high = expected.gain_interval
    width, factor = (high - low) / 2, 100 if metric.share else 1
    digits = 1 if metric.share else 3
    unit = " points" * metric.share
    return (
        f"Doubling the labels from {expected.rows:,} images is worth {factor * expected.gain:.{digits}f} ± "
        f"{factor * width:.{digits}f}{unit}: {metric.text(expected.now)} now, {metric.text(expected.doubled)} expected "
        f"(power law through the sizes, power {expected.power:.2f}; 95 % interval by bootstrap)"
    )
