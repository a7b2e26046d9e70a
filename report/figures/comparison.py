"""Our results beside baselines and published ones."""

from dataclasses import dataclass

from onepass.report.figures.figure import Figure
from onepass.report.palette import Style
from onepass.report.plot import MARKERS, WIDTH, Drawing, blank, colour, shorten, styled, tip

ROW = 24.0  # points
STYLES = {
    "ours": Style("s1"),
    "published": Style("s2", "diamond"),
    "baseline": Style("s8", "square"),
}


@dataclass(frozen=True, slots=True)
class ComparedResult:
    """One result.

    Attributes:
        kind: "ours", "published" or "baseline".
        name: What it is of.
        accuracy: Top-1, 0 … 1.
        interval: Its 95 % interval; None where it is not known.
    """

    kind: str
    name: str
    accuracy: float
    interval: tuple[float, float] | None = None


@styled
def comparison_figure(results: list[ComparedResult]) -> Figure:
    """Return the results as a dot plot, the best on top."""
    results = sorted(results, key=lambda result: -result.accuracy)
    drawing = _draw(results)
    return Figure(
        name="comparison",
        title="Results in comparison",
        caption="Top-1 on the validation split, with 95 % intervals where they are known. "
        "Circles: ours; diamonds: published; squares: baselines.",
        drawing=drawing,
        columns=("kind", "result", "top-1 (%)", "low (%)", "high (%)"),
        rows=[
            (
                r.kind,
                r.name,
                100 * r.accuracy,
                *([100 * v for v in r.interval] if r.interval else ("", "")),
            )
            for r in results
        ],
    )


def _draw(results: list[ComparedResult]) -> Drawing:
    canvas, axes = blank(WIDTH, ROW * len(results) + 34, xlabel="top-1 (%)")
    for place, result in enumerate(results):
        style, ours = STYLES[result.kind], result.kind == "ours"
        at, ink = 100 * result.accuracy, colour(style.colour)
        low, high = (100 * v for v in result.interval or (result.accuracy, result.accuracy))
        axes.plot([low, high], [place, place], color=ink, lw=2)
        label = tip(f"{result.name}: {at:.2f} %")
        axes.plot([at], [place], marker=MARKERS[style.shape], ms=6, color=ink, gid=label)
        axes.annotate(
            f"{at:.1f}", (high, place), xytext=(7, 0), textcoords="offset points", va="center",
            fontweight="bold" if ours else "normal",
        )  # fmt: skip
    axes.set_yticks(range(len(results)), [shorten(result.name, 32) for result in results])
    for name, result in zip(axes.get_yticklabels(), results, strict=True):
        name.set_fontweight("bold" if result.kind == "ours" else "normal")
    axes.margins(x=0.1)
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.grid(False, axis="y")
    alt = "Dot plot. " + "; ".join(f"{r.name}: {100 * r.accuracy:.1f} %" for r in results)
    return Drawing(canvas, alt)
