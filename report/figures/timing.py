"""Wall time as a bar chart."""

from collections.abc import Sequence

from onepass.report.figures.figure import Figure
from onepass.report.numbers import duration
from onepass.report.plot import MUTED, WIDTH, Drawing, blank, colour, shorten, styled, tip

ROW = 22.0  # points
STAGES = {"extract": "s1", "classify": "s3", "finetune": "s2"}
MOST = 14
Spent = tuple[str, str, float]  # stage, what, seconds


@styled
def time_figure(spent: Sequence[Spent]) -> Figure:
    """Return wall times as bars, grouped by stage, the longest first in each."""
    order = list(STAGES)
    spent = sorted(spent, key=lambda line: (order.index(line[0]), -line[2]))
    largest = sorted(spent, key=lambda line: -line[2])[:MOST]
    shown = [line for line in spent if line in largest]
    left_out = "" if len(shown) == len(spent) else f" The {MOST} longest of {len(spent)}."
    words = "; ".join(f"{stage} {what} {duration(seconds)}" for stage, what, seconds in shown)
    return Figure(
        "time",
        "Wall time",
        f"Blue: extraction; green: classification; orange: fine-tuning.{left_out}",
        _draw(shown, f"Bar chart of wall time. {words}"),
        ("stage", "what", "seconds"),
        spent,
    )


def _draw(shown: Sequence[Spent], alt: str) -> Drawing:
    canvas, axes = blank(WIDTH, ROW * len(shown) + 12)
    for place, (stage, what, seconds) in enumerate(shown):
        (bar,) = axes.barh(place, seconds, 0.62, color=colour(STAGES[stage]))
        bar.set_gid(tip(f"{stage}, {what}: {duration(seconds)}"))
        axes.annotate(
            duration(seconds), (seconds, place), xytext=(5, 0), textcoords="offset points",
            va="center", color=MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [shorten(what, 34) for _, what, _ in shown])
    axes.set(xticks=[], xlim=(0, 1.3 * max(seconds for *_, seconds in shown) or 1.0))
    axes.invert_yaxis()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return Drawing(canvas, alt)
