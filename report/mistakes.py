"""The mistakes of a model on the validation rows: by class, by pair of classes, as pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onepass.classify import metrics
from onepass.classify.heads.neighbours.nearest import nearest, unit_length
from onepass.data.dataset import ImageDataset
from onepass.data.shown import as_image, data_uri
from onepass.report.context import EvaluatedModel

PICTURES, PAIRS, EXAMPLES, NEAREST = 24, 12, 3, 3
SIDE = 128  # px, of a thumbnail
TINY = 32  # px, up to which pixels are shown as they are


@dataclass(frozen=True, slots=True)
class Mistake:
    """A misclassified image.

    Attributes:
        row: Of the data set.
        name: Its file name.
        truth, predicted: Its true and its predicted class.
        confidence: Probability of the predicted class, 0 … 1.
        uri: The image, small, as a data URI.
        tiny: Whether it has so few pixels that they should be shown as they are.
    """

    row: int
    name: str
    truth: int
    predicted: int
    confidence: float
    uri: str
    tiny: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training image near a mistake.

    Attributes:
        name: Its file name.
        label: Its class.
        cosine: Between the vectors of both.
        uri: The image, small, as a data URI.
        tiny: As of `Mistake`.
    """

    name: str
    label: int
    cosine: float
    uri: str
    tiny: bool


def nearest_training_images(
    dataset: ImageDataset, vectors: np.ndarray, mistakes: Sequence[Mistake]
) -> list[list[Neighbour]]:
    """Return the training images nearest to each mistake, the nearest first.

    Args:
        dataset: Of the images.
        vectors: (N, D) of every image.
        mistakes: They.
    """
    train = dataset.rows("train")
    base = unit_length(vectors[train].astype(np.float32))
    queries = unit_length(vectors[[m.row for m in mistakes]].astype(np.float32))
    places, cosines = nearest(queries, base, min(NEAREST, len(train)))
    return [
        [_neighbour(dataset, int(train[i]), float(c)) for i, c in zip(*line, strict=True)]
        for line in zip(places, cosines, strict=True)
    ]


def _neighbour(dataset: ImageDataset, row: int, cosine: float) -> Neighbour:
    pixels = dataset.pixels[row]
    uri = thumbnail(pixels, SIDE // 2)
    return Neighbour(dataset.names[row], int(dataset.labels[row]), cosine, uri, is_tiny(pixels))


@dataclass(frozen=True, slots=True)
class Pair:
    """Images of class `truth` that were predicted as class `predicted`.

    Attributes:
        truth, predicted: The classes.
        count: How many images.
        share: Of the images of the true class.
        reverse: How many images of the predicted class were predicted as the true one.
        examples: Some of them, the most confident first.
    """

    truth: int
    predicted: int
    count: int
    share: float
    reverse: int
    examples: list[Mistake]


@dataclass(frozen=True, slots=True)
class ClassLine:
    """How the models do on one class.

    Attributes:
        label: The class.
        count: Its validation images.
        accuracies: Share of them that each model has right, in the order of the models.
        precision: Share of the images that the last model predicted as this class that are of it;
            None where there are none.
        confused_with: The class that its images are most often misclassified as; None where none is.
        confusions: How often.
    """

    label: int
    count: int
    accuracies: list[float]
    precision: float | None
    confused_with: int | None
    confusions: int

    @property
    def difference(self) -> float:
        """Accuracy of the last model less that of the first."""
        return self.accuracies[-1] - self.accuracies[0]


def class_lines(evaluated: Sequence[EvaluatedModel], classes: int) -> list[ClassLine]:
    """Return the classes that have validation images, the worst for the last model first."""
    tables = [metrics.confusion_matrix(m.truth, m.predicted, classes) for m in evaluated]
    accuracies = [metrics.class_accuracy(table) for table in tables]
    last = tables[-1]
    lines = []
    for k in metrics.worst_classes(last, classes):
        off = last[k].copy()
        off[k] = 0
        predicted = int(last[:, k].sum())
        lines.append(
            ClassLine(
                label=k,
                count=int(last[k].sum()),
                accuracies=[float(share[k]) for share in accuracies],
                precision=float(last[k, k] / predicted) if predicted else None,
                confused_with=int(off.argmax()) if off.any() else None,
                confusions=int(off.max()),
            )
        )
    return lines


def confident_mistakes(dataset: ImageDataset, model: EvaluatedModel) -> list[Mistake]:
    """Return the most confident mistakes, the most confident first."""
    return [_mistake(dataset, model, i) for i in _by_confidence(model)[:PICTURES]]


def pairs_with_examples(
    dataset: ImageDataset, model: EvaluatedModel, counts: np.ndarray
) -> list[Pair]:
    """Return the most confused pairs of classes, with examples.

    Args:
        dataset: Of the images.
        model: Whose mistakes they are.
        counts: (K, K), from `onepass.classify.metrics.confusion_matrix`.
    """
    order, pairs = _by_confidence(model), []
    for i, j, count in metrics.confused_pairs(counts, PAIRS):
        which = order[(model.truth[order] == i) & (model.predicted[order] == j)][:EXAMPLES]
        examples = [_mistake(dataset, model, n) for n in which]
        pairs.append(Pair(i, j, count, count / int(counts[i].sum()), int(counts[j, i]), examples))
    return pairs


def _by_confidence(model: EvaluatedModel) -> np.ndarray:
    """Return the positions of the mistakes, the most confident first."""
    return metrics.confident_mistakes(model.truth, model.predicted, model.probabilities)


def _mistake(dataset: ImageDataset, model: EvaluatedModel, i: int) -> Mistake:
    row = int(dataset.rows("val")[i])
    pixels, predicted = dataset.pixels[row], int(model.predicted[i])
    return Mistake(
        row=row,
        name=dataset.names[row],
        truth=int(model.truth[i]),
        predicted=predicted,
        confidence=float(model.probabilities[i, predicted]),
        uri=thumbnail(pixels),
        tiny=is_tiny(pixels),
    )


def is_tiny(pixels: np.ndarray) -> bool:
    """Return whether an image (H, W, C) has so few pixels that they should be shown as they are."""
    return max(pixels.shape[:2]) <= TINY


def thumbnail(pixels: np.ndarray, side: int = SIDE) -> str:
    """Return an image, uint8 (H, W, 1 or 3), as a data URI: PNG where it is tiny, else a JPEG of `side` px."""
    image = as_image(pixels)
    image.thumbnail((side, side))
    return data_uri(image, "png" if is_tiny(pixels) else "jpeg", quality=86, optimize=True)
