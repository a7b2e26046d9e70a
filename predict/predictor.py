"""What a trained model predicts, whatever it is made of."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.notebook import as_html, table_html
from onepass.classify.operating_points import OperatingPoint
from onepass.classify.prior import Prior
from onepass.classify.text import operating_point_text, prior_text
from onepass.data.dataset import ImageDataset
from onepass.predict.pixel_classifier import PixelClassifier
from onepass.predict.pixel_models import PixelModel

SELECTION = "selection"  # the part that an early stage held out of the training rows

SHOWN = 20  # answers in a notebook


class _Answers:
    """What the probabilities of images say of each."""

    __slots__ = ()
    names: list[str]
    class_ids: list[str]
    class_names: list[str]
    probabilities: np.ndarray
    point: OperatingPoint | None

    def _repr_html_(self) -> str:
        """Return the first answers as a table."""
        rows = [("image", "class", "probability")]
        for name, k, row in zip(self.names[:SHOWN], self.classes, self.probabilities, strict=False):
            rows.append((name, self.class_names[k], f"{row[k]:.3f}"))
        more = len(self.names) - SHOWN
        return table_html(rows) + (as_html(f"… and {more:,} more") if more > 0 else "")

    @property
    def classes(self) -> np.ndarray:
        """Column of the class that each is given, (n,) int64."""
        return decided(self.probabilities, self.class_ids, self.point)


@dataclass(frozen=True, slots=True)
class Prediction(_Answers):
    """Probabilities of n images.

    Attributes:
        names: Their n file names.
        rows: (n,) int64, their rows in the data set.
        class_ids: Identity of the class of each of the K columns.
        class_names: Its name in words.
        probabilities: (n, K) float32; each row adds up to 1.
        point: By which the classes are decided; None: the most probable class is the answer.
        prior: The mix of classes that the probabilities are for; None: that of the training images.
    """

    names: list[str]
    rows: np.ndarray
    class_ids: list[str]
    class_names: list[str]
    probabilities: np.ndarray
    point: OperatingPoint | None = None
    prior: Prior | None = None


@dataclass(frozen=True, slots=True)
class PicturePrediction(_Answers):
    """Probabilities of n new pictures.

    Attributes:
        names: What each is called: a file's path, else `picture 0`, `picture 1`, …
        class_ids: Identity of the class of each of the K columns.
        class_names: Its name in words.
        probabilities: (n, K) float32; each row adds up to 1.
        novelty: (n,) float32: what share of known pictures is nearer to what was learnt, 0 … 1; None
            where that is not known.
        open_because: Why each answer is left open, where `abstain` was asked for; "" where it is not.
        point: By which the classes are decided; None: the most probable class is the answer.
        prior: The mix of classes that the probabilities are for; None: that of the training images.
    """

    names: list[str]
    class_ids: list[str]
    class_names: list[str]
    probabilities: np.ndarray
    novelty: np.ndarray | None
    open_because: list[str]
    point: OperatingPoint | None = None
    prior: Prior | None = None


def decided(
    probabilities: np.ndarray, class_ids: list[str], point: OperatingPoint | None
) -> np.ndarray:
    """Return the column that each row (n, K) is given: by an operating point, else the most probable one."""
    return probabilities.argmax(axis=1) if point is None else point.decide(probabilities, class_ids)


@dataclass(frozen=True, slots=True)
class Predictor:
    """A probe, an ensemble of probes, a fine-tuned run, or an average of several of them.

    They are made by `onepass.load_predictor`; here they are all alike. Called with new pictures it gives
    their probabilities:

        predictor = onepass.load_predictor("birds")
        found = predictor(["a.jpg", pixels, image])
        found.probabilities  # (3, K) float32
        found.class_names    # K names

    It may be kept in a server process and called from several threads at once. The networks are built and
    compiled at the first call, for `batch_size` images a step, and fewer images cost as much as that many:
    `load_predictor(…, batch_size=1)` answers a single picture soonest.

    Attributes:
        name: DATASET/PROBE or DATASET/RUN; of an average the names of its members, joined by " + ".
        description: What it is, in words.
        data: What it was trained on; None for a model folder.
        compute: Returns the probabilities (n, K) float32 of the rows of "val", of "test" or of
            `held_out` ("selection"), in their order, at its temperature.
        held_out: (s,) int64, the training rows of the selection split, ascending, where `compute` has
            an answer from before the model was trained on them; None where it has none.
        not_held_out: Why there are none; else "".
        precision: Floating-point type that its probabilities were stored in when weights are learnt; an
            average rounds to it.
        views: In what ways a network looks at each image; "" is the whole image; none for a probe,
            which has those of its features.
        members: What an average is made of.
        weights: Theirs, together 1.
        temperature: Divides the logarithms of the probabilities.
        learnt_on: Selection rows that temperature and weights were learnt on; 0 for none.
        selection: Returns what `compute` does of `held_out` but for its temperature, by weights that were learnt on other
            rows than each; None where none were learnt there.
        learnt_from: Digest of the state of the data set that a run learnt from; "" for today's.
        note: What else has to be known: that it learnt from another state of the data set, or why nothing was
            learnt where it was asked for; else "".
        model: What it makes of new pictures, at its temperature; None where it can say nothing of them.
        pictures: The same with its networks, ready to be called.
        labels: Ids and names of the classes, of a model folder.
        point: By which the classes of its answers are decided; None: the most probable class is the answer.
        prior: The mix of classes that answers are given for; None: that of the training images, which `compute` and
            `model` always give probabilities for.
    """

    name: str
    description: str
    data: ImageDataset | None
    compute: Callable[[str], np.ndarray]
    held_out: np.ndarray | None
    not_held_out: str = ""
    precision: str = "float32"
    views: tuple[str, ...] = ()
    members: tuple["Predictor", ...] = ()
    weights: tuple[float, ...] = ()
    temperature: float = 1.0
    learnt_on: int = 0
    selection: Callable[[], np.ndarray] | None = None
    learnt_from: str = ""
    note: str = ""
    model: PixelModel | None = None
    pictures: PixelClassifier | None = None
    labels: tuple[list[str], list[str]] = ([], [])
    point: OperatingPoint | None = None
    prior: Prior | None = None

    @property
    def dataset(self) -> ImageDataset:
        """The data set that it was trained on, which gives images, names and classes.

        Raises:
            UsageError: A model folder comes without it.
        """
        if self.data is None:
            raise UsageError(
                f"{self.name}: a model folder comes without its data set: expected new pictures"
            )
        return self.data

    def __call__(self, images: Iterable[Any]) -> PicturePrediction:
        """Return the probabilities of new pictures, in their order.

        Each is brought to the size, the channels and the fit of the rows that were learnt from, by the
        code that prepared them: EXIF orientation is applied, transparency is laid over white, 16 bits
        are scaled to 8, CMYK and palettes become RGB, of an animation the first frame is taken.

        Args:
            images: Each the path of a file, the bytes of an encoded file, a Pillow image, or an array
                (H, W), (H, W, 1), (H, W, 3: RGB) or (H, W, 4: RGBA) uint8.

        Raises:
            InvalidInputError: One cannot be decoded, or is larger than
                `onepass.data.images.MAX_PIXELS`; it is named.
            UsageError: One is of another type, or `images` is a single picture.
        """
        classifier = self.on_pictures()
        names, pictures = _named(images)
        with _decoded(pictures, names, classifier) as rows:
            parts = [
                classifier.judge(classifier.arrays(np.stack(batch)))
                for batch in _batches(rows, classifier.batch)
            ]
        novelty = [part.novelty for part in parts if part.novelty is not None]
        distances = [part.distances for part in parts if part.distances is not None]
        empty = np.zeros((0, len(self.class_ids)), np.float32)
        probabilities = np.concatenate([empty, *(part.probabilities for part in parts)])
        used = self.for_use_on(probabilities)
        probabilities = used.corrected(probabilities)
        far = np.concatenate(distances) if distances else None
        return PicturePrediction(
            names,
            self.class_ids,
            self.class_names,
            probabilities,
            np.concatenate(novelty) if novelty else None,
            classifier.open_because(far, probabilities, used.prior),
            used.point,
            used.prior,
        )

    def overlays(self, images: Iterable[Any]) -> list[Image.Image]:
        """Return each picture with what speaks for its class laid over it in colour, RGB.

        The colour is the class activation map of a linear head behind average pooling; of several models, of the
        one that counts most.

        Args:
            images: As for a call.

        Raises:
            InvalidInputError: One cannot be decoded; it is named.
            UsageError: The model has no linear head behind average pooling.
        """
        from onepass.predict.explain import activation_maps, evidence_for, overlay

        classifier = self.on_pictures()
        names, pictures = _named(images)
        if not pictures:
            return []
        classes, maps = self(pictures).classes, activation_maps(classifier)
        with _decoded(pictures, names, classifier) as rows:
            pixels = np.stack(list(rows))
        evidence = evidence_for(maps.maps(pixels), classes.tolist())
        return [overlay(seen, one) for seen, one in zip(pixels, evidence, strict=True)]

    def on_pictures(self) -> PixelClassifier:
        """Return what classifies new pictures.

        Raises:
            InvalidInputError: It is a baseline that looks at no picture.
        """
        if self.pictures is None:
            raise InvalidInputError(
                f"{self.name} ({self.description}): expected a model that looks at pictures; this one "
                "predicts the rows of its data set only"
            )
        return self.pictures

    @property
    def class_ids(self) -> list[str]:
        """Identity of the class of each of the K columns."""
        return self.data.class_ids if self.data else self.labels[0]

    @property
    def class_names(self) -> list[str]:
        """Name of the class of each of the K columns."""
        return self.data.class_names if self.data else self.labels[1]

    @property
    def point_text(self) -> str:
        """The operating point in a sentence; "" where there is none."""
        return operating_point_text(self.point) if self.point else ""

    @property
    def prior_text(self) -> str:
        """The mix of classes that answers are given for, in a sentence; "" where it is that of training."""
        return prior_text(self.prior, self.class_names) if self.prior else ""

    def for_use_on(self, probabilities: np.ndarray) -> "Predictor":
        """Return the same with the mix of classes known that was to be estimated.

        Args:
            probabilities: (n, K) of all images in use, for the training mix.

        Raises:
            InvalidInputError: They are too few to estimate it.
        """
        if self.prior is None or self.prior.used:
            return self
        prior, point = self.prior.settled(probabilities), self.point
        if point:
            odds = prior.odds(self.class_ids.index(point.positive))
            point = replace(point, prior_odds=odds)
        return replace(self, prior=prior, point=point)

    def corrected(self, probabilities: np.ndarray) -> np.ndarray:
        """Return probabilities (n, K) of the training mix for the mix of classes in use."""
        return self.prior.corrected(probabilities) if self.prior else probabilities

    def predict_split(self, split: str) -> Prediction:
        """Return the probabilities of every image of a split of the data set, in row order.

        Args:
            split: "val" or "test".

        Raises:
            InvalidInputError: The split has no rows.
            OnepassError: Feature files or weights are missing, damaged or others than they were.
        """
        rows = split_rows(self.dataset, split)
        probabilities = self.compute(split)
        used = self.for_use_on(probabilities)
        return Prediction(
            names=[self.dataset.names[row] for row in rows],
            rows=rows,
            class_ids=self.dataset.class_ids,
            class_names=self.dataset.class_names,
            probabilities=used.corrected(probabilities),
            point=used.point,
            prior=used.prior,
        )


def _named(images: Iterable[Any]) -> tuple[list[str], list[Any]]:
    """Return what each picture is called, and the pictures."""
    if isinstance(images, str | bytes | Path | np.ndarray | Image.Image):
        raise UsageError("expected a list of pictures, received a single one: put it in a list")
    pictures = list(images)
    return [
        str(p) if isinstance(p, str | Path) else f"picture {i}" for i, p in enumerate(pictures)
    ], pictures


@contextmanager
def _decoded(
    pictures: Sequence[Any], names: Sequence[str], classifier: PixelClassifier
) -> Iterator[Iterator[np.ndarray]]:
    """Give the pixels (H, W, C) uint8 of each picture in order, decoded side by side."""
    with ThreadPoolExecutor() as pool:
        yield pool.map(
            lambda one, name: classifier.geometry.pixels(_content(one, name), name), pictures, names
        )


def _content(picture: Any, name: str) -> Any:
    """Return what `decode_image` takes."""
    if isinstance(picture, str | Path):
        try:
            return Path(picture).read_bytes()
        except OSError as error:
            raise InvalidInputError(f"{name}: {error.strerror or error}") from error
    if isinstance(picture, bytes | Image.Image):
        return picture
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.size:
        channels = picture.shape[2:] if picture.ndim == 3 else ()
        if picture.ndim == 2 or channels in ((3,), (4,)):
            return picture
        if channels == (1,):
            return picture[:, :, 0]
    kind = type(picture).__name__
    if isinstance(picture, np.ndarray):
        kind = f"an array {picture.shape} {picture.dtype}"
    raise UsageError(
        f"{name}: expected a path, bytes, a Pillow image or an array (H, W), (H, W, 1), (H, W, 3) or "
        f"(H, W, 4) uint8, received {kind}"
    )


def _batches(rows: Iterable[np.ndarray], size: int) -> Iterable[Sequence[np.ndarray]]:
    batch: list[np.ndarray] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def split_rows(dataset: ImageDataset, split: str) -> np.ndarray:
    """Return the rows (n,) of a split, ascending.

    Raises:
        InvalidInputError: There are none.
    """
    rows = dataset.rows(split)
    if not len(rows):
        raise InvalidInputError(
            f"{dataset.name} has no {split} rows; name another split with --split"
        )
    return rows
