"""How far the probabilities can be trusted; for two classes, what becomes of each of them."""

from dataclasses import dataclass
from typing import Any

from onepass.classify.leaderboard.records import Calibration
from onepass.classify.metrics import Reliability, auroc, average_precision, reliability
from onepass.report.context import Judged, Material
from onepass.report.figures.trust import precision_recall_figure, reliability_figure, roc_figure
from onepass.report.measures import Rates, rates_of
from onepass.report.sections.section import Section


@dataclass(frozen=True, slots=True)
class Detection:
    """A two-class model in numbers.

    Attributes:
        stage: Whose.
        rates: What became of the rows.
        auc: Area under the ROC curve.
        precision: Average precision.
    """

    stage: str
    rates: Rates
    auc: float
    precision: float


def build(material: Material) -> Section | None:
    """Return calibration, and detection where there are two classes."""
    judged = material.judged
    if not judged:
        return None
    calibration = [found for model in judged for found in _calibration(material, model)]
    figures = [reliability_figure(calibration)]
    facts: dict[str, Any] = {"calibration": calibration, "detections": [], "positive": ""}
    if len(material.class_names) == 2 and all(0 < m.truth.mean() < 1 for m in judged):
        positive = material.class_names[1]
        facts |= {"detections": [_detection(model) for model in judged], "positive": positive}
        figures += [roc_figure(judged, positive), precision_recall_figure(judged, positive)]
    return Section("trust", "How far to trust it", "Trust", facts, figures)


def _calibration(material: Material, model: Judged) -> list[tuple[str, Reliability]]:
    """Return a model's diagram; before and after temperature scaling where the probe has kept both."""
    kept = None
    if model.stage == "frozen":
        folder = material.board.head_folder(material.winner)
        kept = Calibration.read_optional(folder / Calibration.NAME)
    if kept is None:
        return [(model.stage, reliability(model.truth, model.probabilities))]
    return [(f"{model.stage}, before", kept.before), (f"{model.stage}, after", kept.after)]


def _detection(model: Judged) -> Detection:
    return Detection(
        model.stage,
        rates_of(model.predicted == 1, model.truth == 1),
        auroc(model.truth, model.probabilities),
        average_precision(model.truth, model.probabilities),
    )
