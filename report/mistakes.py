"""The errors of a model on the reported rows: class by class, pair by pair, picture by picture."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from onepass.classify import metrics
from onepass.classify.metrics import confusion_matrix
from onepass.data.dataset import ImageDataset
from onepass.report.context import Judged

PICTURES, PAIRS, EXAMPLES = 24, 12, 3
SIDE = 128  # px, of a thumbnail
TINY = 32  # px, up to which pixels are shown as they are


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that was taken for another class.

    Attributes:
        row: Of the data set.
        name: Its file name.
        truth, taken: Its class and the one it was taken for.
        share: Probability of the latter, 0 … 1.
        uri: The image, small, as a data URI.
        tiny: Whether it has so few pixels that they should be shown as they are.
    """

    row: int
    name: str
    truth: int
    taken: int
    share: float
    uri: str
    tiny: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Images of class `truth` that were taken for class `taken`.

    Attributes:
        truth, taken: The classes.
        count: How many images.
        share: Of the images of the true class.
        back: How many of the other class were taken for this one.
        examples: Some of them, the most confident first.
    """

    truth: int
    taken: int
    count: int
    share: float
    back: int
    examples: list[Mistake]


@dataclass(frozen=True, slots=True)
class ClassLine:
    """How one class fares.

    Attributes:
        label: Which.
        count: Its reported images.
        found: Share of them that each model has right, in the order of the models.
        precision: Share of what the last model took for this class that is; None where it took nothing.
        taken: The class its images are mistaken for most; None where none is.
        times: How often.
    """

    label: int
    count: int
    found: list[float]
    precision: float | None
    taken: int | None
    times: int

    @property
    def gained(self) -> float:
        """What the last model has right more than the first, as a share."""
        return self.found[-1] - self.found[0]


def class_lines(judged: Sequence[Judged], classes: int) -> list[ClassLine]:
    """Return the classes that have reported images, the worst for the last model first."""
    tables = [confusion_matrix(model.truth, model.predicted, classes) for model in judged]
    last = tables[-1]
    lines = []
    for k in np.flatnonzero(last.sum(axis=1)):
        off = last[k].copy()
        off[k] = 0
        taken = int(last[:, k].sum())
        lines.append(
            ClassLine(
                label=int(k),
                count=int(last[k].sum()),
                found=[float(table[k, k] / table[k].sum()) for table in tables],
                precision=float(last[k, k] / taken) if taken else None,
                taken=int(off.argmax()) if off.any() else None,
                times=int(off.max()),
            )
        )
    return sorted(lines, key=lambda line: (line.found[-1], line.label))


def confident_mistakes(dataset: ImageDataset, model: Judged) -> list[Mistake]:
    """Return the mistakes that the model was surest of."""
    return [_mistake(dataset, model, i) for i in _surest(model)[:PICTURES]]


def confused_pairs(dataset: ImageDataset, model: Judged, counts: np.ndarray) -> list[Pair]:
    """Return the pairs of classes that are confused most, with examples.

    Args:
        dataset: Of the images.
        model: Whose mistakes they are.
        counts: (K, K), from `confusion_matrix`.
    """
    surest, pairs = _surest(model), []
    for i, j, count in metrics.confused_pairs(counts, PAIRS):
        which = surest[(model.truth[surest] == i) & (model.predicted[surest] == j)][:EXAMPLES]
        examples = [_mistake(dataset, model, n) for n in which]
        pairs.append(Pair(i, j, count, count / int(counts[i].sum()), int(counts[j, i]), examples))
    return pairs


def _surest(model: Judged) -> np.ndarray:
    """Return the positions of the mistakes, the most confident first."""
    return metrics.confident_mistakes(model.truth, model.predicted, model.probabilities)


def _mistake(dataset: ImageDataset, model: Judged, i: int) -> Mistake:
    row = int(dataset.rows("val")[i])
    truth, taken = int(model.truth[i]), int(model.predicted[i])
    pixels = dataset.pixels[row]
    share = float(model.probabilities[i, taken])
    return Mistake(
        row,
        dataset.names[row],
        truth,
        taken,
        share,
        thumbnail(pixels),
        max(pixels.shape[:2]) <= TINY,
    )


def thumbnail(pixels: np.ndarray) -> str:
    """Return an image, uint8 (H, W, 1 or 3), as a data URI: PNG where it is tiny, else a small JPEG."""
    array = np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image, buffer = Image.fromarray(array), io.BytesIO()
    kind = "png" if max(image.size) <= TINY else "jpeg"
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, kind, quality=86, optimize=True)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
