"""How reliable the probabilities are; for two classes, sensitivity and specificity too."""

from dataclasses import dataclass
from typing import Any

from onepass.classify.leaderboard.records import Calibration
from onepass.classify.metrics import (
    Reliability,
    auroc,
    average_precision,
    confusion_matrix,
    reliability,
)
from onepass.report.context import EvaluatedModel, ReportContext
from onepass.report.figures.calibration import (
    precision_recall_figure,
    reliability_figure,
    risk_coverage_figure,
    roc_figure,
)
from onepass.report.sections.section import Section


@dataclass(frozen=True, slots=True)
class Detection:
    """What a two-class model makes of the validation images.

    Attributes:
        stage: Whose.
        true_positive, false_positive, false_negative, true_negative: Images.
        auc: Area under the ROC curve.
        average_precision: Area under the precision-recall curve.
    """

    stage: str
    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int
    auc: float
    average_precision: float

    @property
    def sensitivity(self) -> float:
        """Share of the positive images that were found."""
        return self.true_positive / (self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Share of the negative images that were left alone."""
        return self.true_negative / (self.true_negative + self.false_positive)

    @property
    def precision(self) -> float | None:
        """Share of the images predicted as positive that are; None where none was."""
        predicted = self.true_positive + self.false_positive
        return self.true_positive / predicted if predicted else None


def build(context: ReportContext) -> Section:
    """Return calibration, and detection where there are two classes that both have images."""
    evaluated = context.evaluated
    calibration = [found for model in evaluated for found in _calibration(context, model)]
    figures = [reliability_figure(calibration), risk_coverage_figure(evaluated)]
    facts: dict[str, Any] = {"calibration": calibration, "detections": [], "positive": ""}
    if len(context.class_names) == 2 and 0 < context.frozen.truth.mean() < 1:
        positive = context.class_names[1]
        facts |= {"detections": [detection(model) for model in evaluated], "positive": positive}
        figures += [roc_figure(evaluated, positive), precision_recall_figure(evaluated, positive)]
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


def detection(model: EvaluatedModel) -> Detection:
    """Return what a two-class model makes of the validation images; class 1 is positive."""
    counts = confusion_matrix(model.truth, model.predicted, 2)
    return Detection(
        stage=model.stage,
        true_positive=int(counts[1, 1]),
        false_positive=int(counts[0, 1]),
        false_negative=int(counts[1, 0]),
        true_negative=int(counts[0, 0]),
        auc=auroc(model.truth, model.probabilities),
        average_precision=average_precision(model.truth, model.probabilities),
    )
