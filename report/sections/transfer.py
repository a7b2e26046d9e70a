"""What transferability scores said before anything was trained, and whether they were right."""

from onepass.report.context import Material
from onepass.report.figures.agreement import agreement_figure
from onepass.report.sections.section import Section

NAMES = {"logme": "LogME", "h_score": "H-score", "nce": "NCE", "leep": "LEEP", "zero_training": "zero-training"}  # fmt: skip


def build(material: Material) -> Section | None:
    """Return the scores of `onepass classify transfer`; nothing where they were not computed."""
    record = material.records.get("transferability")
    if not record or not record["scores"]:
        return None
    agreement = {one["score"]: one for one in record["agreement"]}
    known = [name for name in NAMES if any(one[name] is not None for one in record["scores"])]
    facts = {"scores": record["scores"], "agreement": record["agreement"], "known": known, "names": NAMES}  # fmt: skip
    figure = agreement_figure(record["scores"], agreement.get("logme"))
    return Section(
        "transfer", "Could it have been known beforehand", "Transfer", facts, [figure] if figure else []
    )  # fmt: skip
