"""Accuracy against input size and against the cost of extraction."""

from collections.abc import Mapping, Sequence

from onepass.cache.features import FeatureKey
from onepass.classify.leaderboard.board import ProbeResult
from onepass.classify.leaderboard.pareto import pareto_front
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style, series_style
from onepass.report.plot import Plot, styled

MOST = 8  # series in one figure: there are as many colours


@styled
def size_figure(probes: Sequence[ProbeResult]) -> Figure | None:
    """Return accuracy against input size, a line per backbone; None where no backbone has two sizes.

    Args:
        probes: Best first; the best of each backbone and size is drawn. Only features of a single
            backbone with default layer, view and pooling are compared.
    """
    best: dict[str, dict[int, ProbeResult]] = {}
    for probe in probes:
        if len(probe.keys) == 1 and _is_plain(probe.keys[0]):
            sizes = best.setdefault(probe.keys[0].backbone, {})
            sizes.setdefault(probe.keys[0].size, probe)
    if not any(len(sizes) > 1 for sizes in best.values()):
        return None
    names = list(best)[:MOST]
    plot = Plot(
        "input size (px)",
        "val top-1 (%)",
        [(name, series_style(i)) for i, name in enumerate(names)],
        ticks=[size for name in names for size in best[name]],
    )
    rows = []
    for i, name in enumerate(names):
        line = sorted(best[name].items())
        for size, probe in line:
            low, high = (100 * v for v in probe.val_interval)
            plot.span(size, low, high, series_style(i).colour)
        labels = [f"{name}, {size} px, {p.head}: {100 * p.val_top1:.2f} %" for size, p in line]
        places = [(size, 100 * p.val_top1) for size, p in line]
        plot.curve(places, series_style(i), labels)
        rows += [
            (name, s, p.head, 100 * p.val_top1, *(100 * v for v in p.val_interval)) for s, p in line
        ]
    words = "; ".join(f"{r[0]} at {r[1]} px {r[3]:.1f} %" for r in rows)
    return Figure(
        "accuracy-size",
        "Accuracy against input size",
        "For each backbone and size, the head that was best on held-out training images; bars are 95 % intervals.",
        plot.drawing(f"Line chart of accuracy against input size. {words}"),
        ("backbone", "size (px)", "head", "val top-1 (%)", "low (%)", "high (%)"),
        rows,
    )


def _is_plain(key: FeatureKey) -> bool:
    return (key.variant, key.layer, key.view, key.pooling) == ("", "", "", "avg")


@styled
def cost_figure(probes: Sequence[ProbeResult], costs: Mapping[str, float | None]) -> Figure | None:
    """Return accuracy against the time of extraction with its Pareto front; None below two points.

    Args:
        probes: Best first; the best of each feature set is drawn.
        costs: ms per image by the probe's id; None where it was not measured.
    """
    best: dict[str, tuple[float, ProbeResult]] = {}
    for probe in probes:
        if cost := costs.get(probe.id):
            best.setdefault(probe.features_text, (cost, probe))
    if len(best) < 2:
        return None
    places = sorted(best.values(), key=lambda place: (place[0], -place[1].val_top1))
    front = pareto_front({p.id: (cost, p.merit) for cost, p in places})
    spread = places[-1][0] > 3 * places[0][0]
    styles = {True: Style("s1"), False: Style("s8", "square")}
    plot = Plot(
        "extraction (ms per image)",
        "val top-1 (%)",
        [("Pareto front", styles[True]), ("others", styles[False])] if len(front) < len(places) else [],
        log=spread,
        ticks=_round_costs([cost for cost, _ in places]) if spread else (),
    )  # fmt: skip
    first = [(cost, 100 * p.val_top1) for cost, p in places if p.id in front]
    plot.curve(first, Style("s1", "", "--"))
    for cost, probe in places:
        style, accuracy = styles[probe.id in front], 100 * probe.val_top1
        low, high = (100 * v for v in probe.val_interval)
        plot.span(cost, low, high, style.colour)
        plot.curve([(cost, accuracy)], style, [f"{_short(probe)}: {accuracy:.2f} %, {cost:.3g} ms"])
        if probe.id in front:
            plot.name(cost, accuracy, _short(probe))
    rows = [
        (p.features_text, p.head, c, 100 * p.val_top1, "yes" if p.id in front else "no")
        for c, p in places
    ]
    words = "; ".join(f"{r[0]} {r[2]:.3g} ms {r[3]:.1f} %" for r in rows if r[4] == "yes")
    return Figure(
        "accuracy-cost",
        "Accuracy against the cost of extraction",
        "On the Pareto front: no cheaper features do as well on held-out training images. Bars are 95 % intervals. "
        "Times are of the machine that extracted; concatenated features cost the sum of their parts.",
        plot.drawing(
            f"Scatter plot of accuracy against milliseconds per image. Pareto front: {words}"
        ),
        ("features", "head", "ms per image", "val top-1 (%)", "on the Pareto front"),
        rows,
    )


def _short(probe: ProbeResult) -> str:
    return f"{probe.head} of {len(probe.members)}" if probe.members else probe.features_text


def _round_costs(costs: list[float]) -> list[float]:
    """Return round tick values around the range of the costs."""
    powers = [10.0**p for p in range(-6, 7)]
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [f * p for p in powers for f in factors if min(costs) * 0.8 <= f * p <= max(costs) * 1.25]  # fmt: skip
        if len(ticks) >= 3:
            break
    return ticks
