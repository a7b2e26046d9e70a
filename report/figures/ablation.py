"""Ablation of the augmentation: what each part contributes."""

from collections.abc import Sequence

from onepass.finetune.ablation import AblationLine
from onepass.report.figures.figure import Figure
from onepass.report.plot import MUTED, WIDTH, Drawing, blank, colour, shorten, styled, tip

ROW = 24.0  # points


@styled
def ablation_figure(lines: Sequence[AblationLine]) -> Figure | None:
    """Return the change of selection accuracy when each part is left out; None where nothing was."""
    rows: list[tuple[str, float, float, float]] = []
    for one in lines:
        if one.difference is not None and one.difference_interval is not None:
            low, high = one.difference_interval
            name = left_out_words(one.left_out)
            rows.append((name, 100 * one.difference, 100 * low, 100 * high))
    if not rows:
        return None
    canvas, axes = blank(WIDTH, ROW * len(rows) + 40, xlabel="change of selection top-1 (points)")
    axes.axvline(0, color=MUTED, lw=1)
    for place, (name, change, low, high) in enumerate(rows):
        ink = colour("s2" if change < 0 else "s1")
        axes.plot([low, high], [place, place], color=ink, lw=2)
        label = tip(f"{name}: {change:+.2f} points ({low:+.2f} … {high:+.2f})")
        axes.plot([change], [place], marker="o", ms=6, color=ink, gid=label)
    axes.set_yticks(range(len(rows)), [shorten(name, 30) for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
    words = "; ".join(f"{name} {change:+.2f}" for name, change, *_ in rows)
    return Figure(
        "ablation",
        "Contribution of each augmentation",
        "Left of the line: leaving it out costs accuracy. Bars are 95 % intervals.",
        Drawing(canvas, f"Dot plot of points gained or lost. {words}"),
        ("left out", "points", "low", "high"),
        rows,
    )


def left_out_words(part: str) -> str:
    """Return what a line of the study leaves out, in words."""
    return f"without {part.replace('_', ' ')}" if part else "all parts"
