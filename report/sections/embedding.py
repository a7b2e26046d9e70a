"""The validation images as the backbone sees them: a map."""

from onepass.report.context import ReportContext
from onepass.report.figures.embedding import embedding_figure
from onepass.report.sections.section import Section

LEAST = 3  # images


def build(context: ReportContext) -> Section | None:
    """Return the map of the model to use; nothing where the vectors are gone, or the images too few."""
    if context.vectors is None or len(context.chosen.truth) < LEAST:
        return None
    figure = embedding_figure(context.dataset, context.vectors, context.chosen, context.class_names)
    return Section("embedding", "What looks alike", "Map", figures=[figure])
