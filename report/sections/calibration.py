"""How reliable the probabilities are; where one class is to be found, sensitivity and specificity too."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from onepass.classify.leaderboard.records import Calibration
from onepass.classify.metrics import (
    Detection,
    Reliability,
    auroc,
    average_precision,
    detection,
    reliability,
)
from onepass.report.context import EvaluatedModel, ReportContext
from onepass.report.figures.calibration import (
    Positive,
    precision_recall_figure,
    reliability_figure,
    risk_coverage_figure,
    roc_figure,
)
from onepass.report.sections.section import Section


@dataclass(frozen=True, slots=True)
class DetectionLine:
    """What a model makes of the validation images, where one class is to be found.

    Attributes:
        name: Whose answers.
        counts: Images by truth and answer.
        auc: Area under the ROC curve; None in a further line of the same model.
        average_precision: Area under the precision-recall curve; None likewise.
    """

    name: str
    counts: Detection
    auc: float | None = None
    average_precision: float | None = None


def build(context: ReportContext) -> Section:
    """Return calibration, and detection where one class is to be found."""
    evaluated = context.evaluated
    calibration = [found for model in evaluated for found in _calibration(context, model)]
    figures = [reliability_figure(calibration), risk_coverage_figure(evaluated)]
    facts: dict[str, Any] = {"calibration": calibration, "detections": [], "positive": ""}
    positive, point = _positive(context), context.points.get(context.frozen.stage)
    if positive:
        lines = []
        for model in evaluated:
            lines.append(detection_line(model, positive.column))
            point = context.points.get(model.stage)
            if point and point.validation:
                lines.append(DetectionLine(f"{model.stage}, {point.goal}", point.validation))
        facts |= {"detections": lines, "positive": positive.name}
        figures += [
            roc_figure(evaluated, positive, point),
            precision_recall_figure(evaluated, positive, point),
        ]
    return Section(
        "calibration", "How reliable the probabilities are", "Calibration", facts, figures
    )


def _calibration(context: ReportContext, model: EvaluatedModel) -> list[tuple[str, Reliability]]:
    """Return a model's reliability, before and after temperature scaling where the probe kept both."""
    kept = None
    if model.stage == "frozen":
        folder = context.board.head_folder(context.winner)
        kept = Calibration.read_optional(folder / Calibration.NAME)
    if kept is None:
        return [(model.stage, reliability(model.truth, model.probabilities))]
    return [
        (f"{model.stage}, uncalibrated", kept.before),
        (f"{model.stage}, temperature-scaled", kept.after),
    ]


def _positive(context: ReportContext) -> Positive | None:
    """Return the class that is to be found; None where none is, or the validation images are all or none of it."""
    column = context.positive
    if column is None or not 0 < np.mean(context.frozen.truth == column) < 1:
        return None
    return Positive(column, context.class_names[column])


def detection_line(model: EvaluatedModel, column: int) -> DetectionLine:
    """Return what a model makes of the validation images by its most probable class."""
    return DetectionLine(
        model.stage,
        detection(model.truth == column, model.predicted == column),
        auroc(model.truth, model.probabilities, column),
        average_precision(model.truth, model.probabilities, column),
    )
