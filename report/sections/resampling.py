"""What the training rows in folds say: whether heads differ by chance, and what more labels would be worth."""

from typing import Any

from onepass.classify.heads.base import brief
from onepass.classify.resampling.folds import compared
from onepass.classify.resampling.text import doubling, fold_words, points, protocol
from onepass.report.context import ReportContext
from onepass.report.figures.labels import labels_figure
from onepass.report.sections.section import Section


def build(context: ReportContext) -> Section | None:
    """Return what `classify --folds` and `classify curve` found; nothing where neither was run."""
    folds, curve = context.folds, context.curve
    facts: dict[str, Any] = {"lines": (), "doubling": [], "brief": brief, "points": points}
    figures = []
    if folds and folds.complete:
        words = {"words": fold_words(folds), "protocol": protocol(folds)}
        facts |= {"folds": folds, "lines": compared(folds), **words}
    if curve and curve.curves:
        expected = [(one.name, one.expected) for one in curve.curves if one.expected]
        facts["doubling"] = [(name, doubling(found, curve.by)) for name, found in expected]
        figures = [labels_figure(curve)]
    if not (facts["lines"] or figures):
        return None
    return Section("resampling", "Folds and learning curve", "Folds", facts, figures)
