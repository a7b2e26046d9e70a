"""What the features say about the data: likely label errors, duplicates, outliers."""

from dataclasses import dataclass

from onepass.classify.analysis.inspection import LabelIssue, LabelReport
from onepass.data.dataset import SPLITS
from onepass.report.context import ReportContext
from onepass.report.mistakes import is_tiny, thumbnail
from onepass.report.sections.section import Section

SHOWN = 16  # pictures of each kind
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of the data set.

    Attributes:
        name: Its file name.
        split: Name of its split, one of SPLIT_NAMES.
        label: Its class in words.
        uri: The image, small, as a data URI.
        tiny: Whether it has so few pixels that they should be shown as they are.
    """

    name: str
    split: str
    label: str
    uri: str
    tiny: bool


def build(context: ReportContext) -> Section | None:
    """Return what `onepass classify inspect` found; nothing where it was not run."""
    found = context.inspection
    if found is None:
        return None
    facts = {
        "features": " & ".join(found.features),
        "split_names": SPLIT_NAMES,
        "labels": [_label_issues(context, report) for report in found.labels if report.worst],
        "duplicates": found.duplicates,
        "pairs": [
            (pair, _picture(context, pair.row), _picture(context, pair.other))
            for pair in found.duplicates.pairs[:SHOWN]
        ],
        "outliers": [
            (_picture(context, outlier.row), outlier.distance) for outlier in found.outliers[:SHOWN]
        ],
    }
    return Section("data", "Data quality", "Data", facts)


def _label_issues(
    context: ReportContext, report: LabelReport
) -> tuple[LabelReport, list[tuple[Picture, str, LabelIssue]]]:
    """Return what was found of a split; of the most likely errors image, suggested class and all that is known."""
    names, worst = context.class_names, report.worst[:SHOWN]
    return report, [(_picture(context, one.row), names[one.suggested], one) for one in worst]


def _picture(context: ReportContext, row: int) -> Picture:
    dataset = context.dataset
    label, pixels = int(dataset.labels[row]), dataset.pixels[row]
    return Picture(
        name=dataset.names[row],
        split=SPLIT_NAMES[SPLITS[dataset.split[row]]],
        label=context.class_names[label] if label >= 0 else "unknown",
        uri=thumbnail(pixels),
        tiny=is_tiny(pixels),
    )
