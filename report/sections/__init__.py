"""The sections of the page, in its order; each is left out where it has nothing to show.

A section is a module with `build(context)` and a template of its name in templates/sections/.
"""

from onepass.report.context import ReportContext
from onepass.report.sections import (
    calibration,
    data,
    embedding,
    finetuning,
    headline,
    held_out,
    leaderboard,
    mistakes,
    reproduce,
    resampling,
    time,
    tradeoffs,
    transferability,
)
from onepass.report.sections.section import Section

ORDER = (
    headline, held_out, leaderboard, resampling, tradeoffs, transferability, finetuning, calibration, mistakes, embedding,
    data, time, reproduce,
)  # fmt: skip


def build_sections(context: ReportContext) -> list[Section]:
    """Return the sections for which there is something to show."""
    found = [module.build(context) for module in ORDER]
    return [section for section in found if section]
