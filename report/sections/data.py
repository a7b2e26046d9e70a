"""What the features say about the data: likely label errors, images that are there twice, outliers."""

from dataclasses import dataclass
from typing import Any

from onepass.data.dataset import SPLITS, ImageDataset
from onepass.report.context import Material
from onepass.report.mistakes import TINY, thumbnail
from onepass.report.sections.section import Section

SHOWN = 16  # pictures of each kind


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of the data set.

    Attributes:
        name: Its file name.
        split: "train", "val" or "test".
        label: Its class in words.
        uri: The image, small, as a data URI.
        tiny: Whether it has so few pixels that they should be shown as they are.
    """

    name: str
    split: str
    label: str
    uri: str
    tiny: bool


def build(material: Material) -> Section | None:
    """Return what `onepass classify inspect` found; nothing where it was not run."""
    record = material.records.get("inspection")
    if record is None:
        return None
    names = material.class_names
    labels = [
        {**report, "worst": [_issue(material, issue) for issue in report["worst"][:SHOWN]]}
        for report in record["labels"]
    ]
    doubles = record["duplicates"]
    pairs = [
        {**pair, "pictures": [_picture(material.dataset, names, pair[one]) for one in ("row", "other")]}
        for pair in doubles["pairs"][:SHOWN]
    ]  # fmt: skip
    outliers = [
        (_picture(material.dataset, names, one["row"]), one["distance"])
        for one in record["outliers"][:SHOWN]
    ]
    facts = {
        "features": " & ".join(record["features"]), "labels": labels, "duplicates": doubles,
        "pairs": pairs, "outliers": outliers,
    }  # fmt: skip
    return Section("data", "What the features say about the data", "Data", facts)


def _issue(material: Material, issue: dict[str, Any]) -> dict[str, Any]:
    names = material.class_names
    picture = _picture(material.dataset, names, issue["row"])
    return {**issue, "picture": picture, "given": names[issue["given"]], "suggested": names[issue["suggested"]]}  # fmt: skip


def _picture(dataset: ImageDataset, names: list[str], row: int) -> Picture:
    label, pixels = int(dataset.labels[row]), dataset.pixels[row]
    return Picture(
        dataset.names[row],
        SPLITS[dataset.split[row]],
        names[label] if label >= 0 else "unknown",
        thumbnail(pixels),
        max(pixels.shape[:2]) <= TINY,
    )
