"""The walk along the hyper-parameters: which were tried, how they did, which was chosen."""

from collections.abc import Sequence
from typing import Any

from onepass.classify.leaderboard.board import ProbeResult
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled

MOST = 8  # series in one figure: there are as many colours


def path_figures(probes: Sequence[ProbeResult]) -> list[Figure]:
    """Return, for each kind of head, selection accuracy along the hyper-parameter that it walked."""
    figures = []
    for head in dict.fromkeys(probe.head for probe in probes):
        walked = [
            (probe, walk) for probe in probes if probe.head == head and (walk := _walk(probe))
        ]
        names = {name for _, (name, _) in walked}
        if len(names) == 1:
            figures.append(_path_figure(head, names.pop(), walked[:MOST]))
    return figures


def _walk(probe: ProbeResult) -> tuple[str, list[tuple[float, float]]] | None:
    """Return the one hyper-parameter that varied and its (value, accuracy %), by value."""
    points = [(trial.params, 100 * trial.accuracy) for trial in probe.trials]
    for name in points[0][0] if points else ():
        values = [params.get(name) for params, _ in points]
        if all(isinstance(v, int | float) for v in values) and len(set(values)) > 2:
            return name, sorted((float(p[name]), accuracy) for p, accuracy in points)
    return None


@styled
def _path_figure(
    head: str, name: str, walked: list[tuple[ProbeResult, tuple[str, list[tuple[float, float]]]]]
) -> Figure:
    values = [x for _, (_, line) in walked for x, _ in line]
    plot = Plot(
        name,
        "selection top-1 (%)",
        [(probe.features_text, series_style(i)) for i, (probe, _) in enumerate(walked)],
        log=min(values) > 0 and name != "epochs",
    )
    rows: list[tuple[Any, ...]] = []
    for i, (probe, (_, line)) in enumerate(walked):
        style, chosen = series_style(i), float(probe.params[name]) if name in probe.params else None
        labels = [f"{probe.features_text}, {name} = {x:.3g}: {y:.2f} %" for x, y in line]
        plot.curve(line, style, labels if len(line) <= 16 else [])
        for x, y in line:
            if x == chosen:
                plot.curve(
                    [(x, y)], Style(style.colour, style.shape, dash=True), [f"chosen: {x:.3g}"]
                )
            rows.append((probe.features_text, x, y, "yes" if x == chosen else "no"))
    chosen_words = "; ".join(f"{r[0]} {r[1]:.3g} ({r[2]:.1f} %)" for r in rows if r[3] == "yes")
    title = (
        "C path of logistic regression"
        if (head, name) == ("logistic", "C")
        else f"{head}: accuracy along {name}"
    )
    return Figure(
        f"path-{head.lower()}",
        title,
        f"Accuracy on the selection split at each {name} that was tried; hollow signs were chosen.",
        plot.drawing(f"Line chart of selection accuracy along {name}. Chosen: {chosen_words}"),
        ("features", name, "selection top-1 (%)", "chosen"),
        rows,
    )
