"""Whether transferability scores rank the features as the trained probes do."""

from collections.abc import Sequence

from onepass.classify.analysis.transferability import Agreement, FeatureScores
from onepass.report.figures.figure import Figure
from onepass.report.palette import Style
from onepass.report.plot import Plot, styled


@styled
def agreement_figure(scores: Sequence[FeatureScores], agreement: Agreement | None) -> Figure | None:
    """Return LogME against the accuracy of the best probe on the same features; None below two.

    Args:
        scores: Of each feature set.
        agreement: That of LogME; None where there are too few probes.
    """
    probed = [one for one in scores if one.selection_top1 is not None]
    if len(probed) < 2:
        return None
    plot = Plot("LogME (nats per row)", "selection top-1 (%)")
    rows = []
    for one in sorted(probed, key=lambda one: one.logme):
        name, accuracy = " & ".join(one.features), 100 * (one.selection_top1 or 0)
        plot.curve([(one.logme, accuracy)], Style("s1"), [f"{name}: {one.logme:.3f}, {accuracy:.1f} %"])  # fmt: skip
        rows.append((name, one.logme, one.head, accuracy))
    found = f"Kendall\u2019s τ {agreement.kendall:+.2f}, Spearman\u2019s ρ {agreement.spearman:+.2f}." if agreement else ""  # fmt: skip
    return Figure(
        "agreement",
        "LogME against the probes",
        f"Each marker is a feature set. {found}".strip(),
        plot.drawing(f"Scatter plot of selection accuracy against LogME. {found}"),
        ("features", "LogME", "best head", "selection top-1 (%)"),
        rows,
    )
