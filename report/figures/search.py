"""Hyper-parameter searches: which values were tried, how they did, which was chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onepass.classify.leaderboard.board import ProbeResult
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled

MOST = 8  # series in one figure: there are as many colours
LABELLED = 16  # points of a series that get tooltips


@dataclass(frozen=True, slots=True)
class Search:
    """The search of one probe over one hyper-parameter.

    Attributes:
        probe: Whose.
        name: Of the hyper-parameter.
        points: (value, selection top-1 in %), by value.
    """

    probe: ProbeResult
    name: str
    points: list[tuple[float, float]]

    @property
    def chosen(self) -> float | None:
        """The value that was chosen."""
        value = self.probe.params.get(self.name)
        return None if value is None else float(value)


def search_figures(probes: Sequence[ProbeResult]) -> list[Figure]:
    """Return, for each kind of head that searched a single hyper-parameter, accuracy by its value."""
    figures = []
    for head in dict.fromkeys(probe.head for probe in probes):
        searches = [search for probe in probes if probe.head == head and (search := _search(probe))]
        if len({search.name for search in searches}) == 1:
            figures.append(_search_figure(head, searches[:MOST]))
    return figures


def _search(probe: ProbeResult) -> Search | None:
    """Return a probe's search over the first number of which it tried three values or more, each once.

    The trials of a grid over several hyper-parameters lie on no line; its sweep has a table.
    """
    tried = [(trial.params, 100 * trial.accuracy) for trial in probe.trials]
    for name in tried[0][0] if tried else ():
        values = [params.get(name) for params, _ in tried]
        if all(isinstance(v, int | float) for v in values) and 2 < len(set(values)) == len(values):
            points = sorted((float(params[name]), accuracy) for params, accuracy in tried)
            return Search(probe, name, points)
    return None


@styled
def _search_figure(head: str, searches: list[Search]) -> Figure:
    name = searches[0].name
    values = [x for search in searches for x, _ in search.points]
    plot = Plot(
        name,
        "selection top-1 (%)",
        [(s.probe.features_text, series_style(i)) for i, s in enumerate(searches)],
        log=min(values) > 0 and name != "epochs",
        ticks=values if all(value.is_integer() for value in values) else (),
    )
    rows: list[tuple[Any, ...]] = []
    for i, search in enumerate(searches):
        style, features = series_style(i), search.probe.features_text
        labels = [f"{features}, {name} = {x:.3g}: {y:.2f} %" for x, y in search.points]
        plot.curve(search.points, style, labels if len(labels) <= LABELLED else [])
        for x, y in search.points:
            chosen = x == search.chosen
            if chosen:
                mark = Style(style.colour, style.shape, hollow=True)
                plot.curve([(x, y)], mark, [f"{features}, {name} = {x:.3g}: {y:.2f} %, chosen"])
            rows.append((features, x, y, "yes" if chosen else "no"))
    chosen_words = "; ".join(f"{r[0]} {r[1]:.3g} ({r[2]:.1f} %)" for r in rows if r[3] == "yes")
    return Figure(
        f"search-{head.lower()}",
        f"{head}: accuracy by {name}",
        f"Accuracy on held-out training images for each {name} that was tried; hollow: chosen.",
        plot.drawing(f"Line chart of selection accuracy by {name}. Chosen: {chosen_words}"),
        ("features", name, "selection top-1 (%)", "chosen"),
        rows,
    )
