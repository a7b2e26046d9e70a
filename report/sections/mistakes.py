"""Error analysis: worst classes, confused pairs, the most confident mistakes as pictures."""

from typing import Any

from onepass.classify.metrics import confusion_matrix
from onepass.report.context import ReportContext
from onepass.report.figures.confusion import confusion_figure
from onepass.report.figures.contact_sheet import contact_sheet_figure
from onepass.report.maps import activation_thumbnails
from onepass.report.mistakes import (
    Mistake,
    Neighbour,
    class_lines,
    confident_mistakes,
    nearest_training_images,
    pairs_with_examples,
)
from onepass.report.sections.section import Section

WORST = 10


def build(context: ReportContext) -> Section:
    """Return the mistakes of the model to use."""
    model, names = context.chosen, context.class_names
    counts = confusion_matrix(model.truth, model.predicted, len(names))
    mistakes = confident_mistakes(context.dataset, model)
    lines = class_lines(context.evaluated, len(names))
    maps, without_maps = activation_thumbnails(context, mistakes)
    errors = context.compared.errors if context.compared and model is context.tuned else None
    facts: dict[str, Any] = {
        "model": model,
        "wrong": int((~model.correct).sum()),
        "names": names,
        "classes": lines,
        "worst": lines[:WORST] if len(lines) > 2 * WORST else [],
        "both": len(context.evaluated) > 1,
        "pairs": pairs_with_examples(context.dataset, model, counts),
        "mistakes": mistakes,
        "near": _near(context, mistakes),
        "maps": maps,
        "without_maps": without_maps,
        "against": errors.probe if errors else None,
        "sample": errors.sample if errors and errors.sample.rows < len(model.truth) else None,
    }
    files = [contact_sheet_figure(context.dataset, mistakes, names)] if mistakes else []
    figures = [confusion_figure(counts, names)]
    return Section("mistakes", "Error analysis", "Errors", facts, figures, files)


def _near(context: ReportContext, mistakes: list[Mistake]) -> list[list[Neighbour]]:
    """Return the training images nearest to each mistake; none where the vectors are gone."""
    if context.vectors is None or not mistakes:
        return [[] for _ in mistakes]
    return nearest_training_images(context.dataset, context.vectors, mistakes)
