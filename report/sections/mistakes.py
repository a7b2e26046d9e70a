"""What is still wrong: worst classes, pairs that are confused, confident mistakes as pictures."""

from typing import Any

from onepass.classify.metrics import confusion_matrix
from onepass.report.context import Material
from onepass.report.figures.matrix import matrix_figure
from onepass.report.figures.sheet import sheet_figure
from onepass.report.mistakes import class_lines, confident_mistakes, confused_pairs
from onepass.report.sections.section import Section

WORST = 10


def build(material: Material) -> Section | None:
    """Return the errors of the last stage that was scored; nothing where there is none."""
    if not material.judged:
        return None
    model = material.judged[-1]
    names = material.class_names
    counts = confusion_matrix(model.truth, model.predicted, len(names))
    mistakes = confident_mistakes(material.dataset, model)
    lines = class_lines(material.judged, len(names))
    facts: dict[str, Any] = {
        "model": model,
        "wrong": int((~model.correct).sum()),
        "names": names,
        "classes": lines,
        "worst": lines[:WORST] if len(lines) > 2 * WORST else [],
        "both": len(material.judged) > 1,
        "pairs": confused_pairs(material.dataset, model, counts),
        "mistakes": mistakes,
        "against": material.run.errors.get("probe") if material.run else None,
        "sample": material.run.errors.get("sample") if material.run else None,
    }
    files = [sheet_figure(material.dataset, mistakes, names)] if mistakes else []
    return Section(
        "mistakes", "What is still wrong", "Mistakes", facts, [matrix_figure(counts, names)], files
    )
