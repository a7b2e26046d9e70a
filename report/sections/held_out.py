"""Pictures that were held out of the data set: what a model says of each, beside what it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.errors import InvalidInputError, MissingFileError, UnreadableFileError
from onepass.cache.files import read_bytes
from onepass.classify.metrics import Share, detection
from onepass.data.held_out import held_out_folder
from onepass.data.images import decode_image
from onepass.predict.pictures.held_out import HeldOutAnswer
from onepass.report.context import ReportContext
from onepass.report.mistakes import is_tiny, thumbnail
from onepass.report.sections.section import Section

SHOWN = 96  # pictures; their names say nothing of them, so that the first are as good as any


@dataclass(frozen=True, slots=True)
class HeldOutPicture:
    """A held-out picture with its answer.

    Attributes:
        name: Its file name in the source.
        truth: Its class.
        predicted: The class that it is given; None where the answer was left open, or it could not be read.
        confidence: Probability of that class, 0 … 1.
        uri: The picture, small, as a data URI; "" where its file is gone.
        tiny: As of `onepass.report.mistakes.Mistake`.
    """

    name: str
    truth: int
    predicted: int | None
    confidence: float
    uri: str
    tiny: bool


def build(context: ReportContext) -> Section | None:
    """Return the held-out pictures; None where no model was asked about them."""
    found = context.held_out
    if found is None:
        return None
    ids = context.dataset.class_ids
    answers = {answer.file: answer for answer in found.answers}
    images = [
        image
        for image in context.dataset.record.held_out
        if image.file in answers and image.class_id in ids
    ]
    if not images:
        return None
    truth = np.array([ids.index(image.class_id) for image in images])
    given = np.array([_column(answers[image.file], ids) for image in images])
    facts: dict[str, Any] = {
        "model": found.model,
        "point": found.point,
        "names": context.class_names,
        "right": Share(int((truth == given).sum()), len(images)),
        "detection": None,
        "pictures": [],
    }
    column = context.positive
    if column is not None:
        facts |= {"detection": detection(truth == column, given == column), "positive": column}
    folder = held_out_folder(context.store, context.dataset.name)
    for image, k, predicted in list(zip(images, truth, given, strict=True))[:SHOWN]:
        uri, tiny = _picture(folder / image.file)
        facts["pictures"].append(
            HeldOutPicture(
                image.name, int(k), None if predicted < 0 else int(predicted),
                answers[image.file].probability, uri, tiny,
            )
        )  # fmt: skip
    return Section("held_out", "Pictures that no model had seen", "Held out", facts)


def _column(answer: HeldOutAnswer, class_ids: list[str]) -> int:
    return class_ids.index(answer.class_id) if answer.class_id else -1


def _picture(path: Path) -> tuple[str, bool]:
    """Return a picture as a data URI, and whether it is tiny; "" where it cannot be read."""
    try:
        image = decode_image(read_bytes(path), path.name)
    except (InvalidInputError, UnreadableFileError, MissingFileError):
        return "", False
    pixels = np.atleast_3d(np.asarray(image))
    return thumbnail(pixels), is_tiny(pixels)
