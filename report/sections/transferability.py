"""Transferability scores, and whether they rank the features as the trained probes do."""

from onepass.classify.analysis.text import NAMES
from onepass.report.context import ReportContext
from onepass.report.figures.agreement import agreement_figure
from onepass.report.sections.section import Section


def build(context: ReportContext) -> Section | None:
    """Return the scores of `onepass classify transfer`; nothing where they were not computed."""
    found = context.transferability
    if found is None or not found.scores:
        return None
    known = [name for name in NAMES if any(getattr(s, name) is not None for s in found.scores)]
    facts = {
        "scores": found.scores,
        "agreement": found.agreement,
        "known": known,
        "names": NAMES,
    }
    logme = next((one for one in found.agreement if one.score == "logme"), None)
    figure = agreement_figure(found.scores, logme)
    figures = [figure] if figure else []
    return Section("transferability", "Transferability scores", "Transferability", facts, figures)
