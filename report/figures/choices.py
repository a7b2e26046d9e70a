"""What the choice of backbone and input size does: accuracy against size and against cost."""

from collections.abc import Sequence
from typing import Any

from classify.leaderboard import ProbeResult
from report.figures.figure import Figure
from report.palette import Style, series_style
from report.plot import Plot, styled

MOST = 8  # series in one figure: there are as many colours


@styled
def size_figure(probes: Sequence[ProbeResult]) -> Figure | None:
    """Return accuracy against input size, a line per backbone; None where no backbone has two sizes.

    Args:
        probes: Best first; the best of each backbone and size counts. Only features of one backbone
            as they come by default are compared.
    """
    best: dict[str, dict[int, ProbeResult]] = {}
    for probe in probes:
        if len(probe.keys) == 1 and _is_plain(probe.keys[0]):
            sizes = best.setdefault(probe.keys[0]["backbone"], {})
            sizes.setdefault(int(probe.keys[0]["size"]), probe)
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
        "The head that was best on the selection split, for each backbone and size; bars are 95 % intervals.",
        plot.drawing(f"Line chart of accuracy against input size. {words}"),
        ("backbone", "size (px)", "head", "val top-1 (%)", "low (%)", "high (%)"),
        rows,
    )


def _is_plain(key: dict[str, Any]) -> bool:
    usual = {"variant": "", "layer": "", "view": "", "pooling": "avg"}
    return all(key.get(name, value) == value for name, value in usual.items())


@styled
def cost_figure(
    probes: Sequence[ProbeResult], speeds: dict[tuple[str, ...], float]
) -> Figure | None:
    """Return accuracy against the time of extraction with its Pareto front; None below two points.

    Args:
        probes: Best first; the best of each set of features counts.
        speeds: Images per second by the features of a probe; 0 where it was not measured.
    """
    best: dict[tuple[str, ...], ProbeResult] = {}
    for probe in probes:
        if speeds.get(probe.features):
            best.setdefault(probe.features, probe)
    if len(best) < 2:
        return None
    places = sorted((1000 / speeds[f], 100 * p.val_top1, p) for f, p in best.items())
    places.sort(key=lambda place: (place[0], -place[1]))
    front = pareto_front([(cost, accuracy) for cost, accuracy, _ in places])
    plot = Plot(
        "extraction, ms an image",
        "val top-1 (%)",
        [("Pareto front", Style("s1")), ("others", Style("s8", "square"))]
        if len(front) < len(places)
        else [],
        log=True,
        ticks=_round_costs([cost for cost, _, _ in places]),
    )
    _step_line(plot, [places[i][:2] for i in front])
    for i, (cost, accuracy, probe) in enumerate(places):
        style = Style("s1") if i in front else Style("s8", "square")
        label = f"{probe.features_text}: {accuracy:.2f} %, {cost:.3g} ms"
        low, high = (100 * v for v in probe.val_interval)
        plot.span(cost, low, high, style.colour)
        plot.curve([(cost, accuracy)], style, [label])
    for i in front:
        plot.name(places[i][0], places[i][1], places[i][2].features_text)
    rows = [
        (p.features_text, p.head, c, a, "yes" if i in front else "no")
        for i, (c, a, p) in enumerate(places)
    ]
    words = "; ".join(f"{r[0]} {r[2]:.3g} ms {r[3]:.1f} %" for r in rows if r[4] == "yes")
    return Figure(
        "accuracy-cost",
        "Accuracy against the cost of extraction",
        "Nothing is both faster and better than what stands on the Pareto front; bars are 95 % intervals. Times hold for the machine "
        "that extracted; features side by side cost the sum of theirs.",
        plot.drawing(
            f"Scatter plot of accuracy against milliseconds an image. Pareto front: {words}"
        ),
        ("features", "head", "ms an image", "val top-1 (%)", "on the Pareto front"),
        rows,
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other one beats: (cost, gain), by rising cost, the best of a cost first."""
    front, best = [], float("-inf")
    for i, (_, gain) in enumerate(points):
        if gain > best:
            front.append(i)
            best = gain
    return front


def _step_line(plot: Plot, front: list[tuple[float, float]]) -> None:
    steps = [front[0]]
    for cost, gain in front[1:]:
        steps += [(cost, steps[-1][1]), (cost, gain)]
    plot.curve(steps, Style("s1", "", dash=True))


def _round_costs(costs: list[float]) -> list[float]:
    """Return round numbers between the least and the greatest cost, some beyond, for the ticks."""
    powers = [10.0**p for p in range(-6, 7)]
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [f * p for p in powers for f in factors if min(costs) * 0.8 <= f * p <= max(costs) * 1.25]  # fmt: skip
        if len(ticks) >= 3:
            break
    return ticks
