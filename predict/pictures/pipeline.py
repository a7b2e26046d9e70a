"""`onepass predict MODEL IMAGES…`: found, decoded, classified and written, one batch after the other."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from onepass.cache.locks import exclusive
from onepass.cache.progress import Progress
from onepass.cache.provenance import digest_json
from onepass.data.pack import quiet_bombs
from onepass.predict.cluster.spread import spread
from onepass.predict.config import ESTIMATE, PredictConfig
from onepass.predict.explain import Explainer
from onepass.predict.models import load_predictor
from onepass.predict.pictures.answers import (
    Answer,
    answer_file,
    check_answer_file,
    margin,
    top_classes,
)
from onepass.predict.pictures.batches import (
    BAD_PICTURE,
    PictureBatch,
    Take,
    decoded_batches,
    forward_stream,
)
from onepass.predict.pictures.held_out import HeldOutAnswers, are_held_out
from onepass.predict.pictures.sorting import Sorter
from onepass.predict.pictures.sources import Picture, Pictures, find_pictures
from onepass.predict.pixel_classifier import Judgement, PixelClassifier
from onepass.predict.predictor import Predictor, decided

SHOWN = 20  # answers that a person is shown; more are written to a file


@dataclass(slots=True)
class PicturesResult:
    """What became of new pictures.

    Attributes:
        model: By what they were classified.
        point: By which their classes were decided, in a sentence; "" where the most probable class is the answer.
        prior: The mix of classes that the probabilities are for, in a sentence; "" where it is that of training.
        note: What else has to be known of it.
        pictures: How many there were.
        unread: How many of them could not be read.
        open: How many answers were left open.
        classes: How many were given each class, by its name.
        first: The first answers.
        path: The file of all of them; None where there were few and none was asked for.
        copied_to: The folder that they were sorted into.
        explained_in: The folder of the overlays.
        kept: What was kept for the report of the answers to held-out pictures; None where these are others.
    """

    model: str
    pictures: int = 0
    unread: int = 0
    open: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    first: list[Answer] = field(default_factory=list)
    path: Path | None = None
    copied_to: Path | None = None
    explained_in: Path | None = None
    point: str = ""
    prior: str = ""
    note: str = ""
    kept: Path | None = None

    @property
    def incomplete(self) -> bool:
        """Whether some pictures have no answer because they could not be read."""
        return self.unread > 0

    def count(self, answer: Answer) -> None:
        """Take an answer into account."""
        self.pictures += 1
        self.unread += answer.unread
        self.open += answer.is_open
        if answer.decided:
            self.classes[answer.decided.class_name] += 1
        if len(self.first) < SHOWN:
            self.first.append(answer)


def predict_pictures(config: PredictConfig, predictor: Predictor | None = None) -> PicturesResult:
    """Classify new pictures; one that cannot be used is named with its reason and ends nothing.

    Args:
        config: With `images`.
        predictor: Of its models, where they are loaded already.

    Raises:
        UsageError: The flags do not fit one another.
        OnepassError: The model is unknown, unfinished, stale or damaged, or the pictures cannot be found.
    """
    if config.out:
        check_answer_file(config.out)
    model = predictor or load_predictor(config)
    classifier = model.on_pictures()
    path = config.out or _default_path(config, model)
    result = PicturesResult(
        model.name,
        copied_to=config.copy_to,
        explained_in=config.explain,
        note=model.note,
    )
    _learn(classifier, model)
    sorter = Sorter(config.copy_to, config.link) if config.copy_to else None
    explainer = Explainer(config.explain, classifier) if config.explain else None
    with ExitStack() as stack:
        stack.enter_context(quiet_bombs())
        # the network has the cores: threads of BLAS that wait would spin on them
        stack.enter_context(threadpool_limits(1, "blas"))
        pictures = find_pictures(config.images, config.column, stack)
        held_out = are_held_out(config.images, model, config.store)
        written = _Written(path, config, stack, held_out)
        progress = stack.enter_context(Progress(pictures.total, "pictures", model.name))

        held: list[tuple[PictureBatch, Judgement | None]] = []  # until the mix of classes is known

        def take(batch: PictureBatch, arrays: list[np.ndarray]) -> None:
            judged = classifier.judge(classifier.named(arrays)) if len(batch.rows) else None
            if config.prior == ESTIMATE:
                held.append((replace(batch, pixels=batch.pixels[:0]), judged))
            else:
                give(batch, judged)
            progress.total = max(progress.total, progress.done + len(batch.pictures))
            progress.advance(len(batch.pictures))

        def give(batch: PictureBatch, judged: Judgement | None) -> None:
            answers = list(answers_of(model, batch, judged, config.top))
            if explainer and len(batch.rows):
                pairs = zip(batch.pictures, answers, strict=True)
                usable = [(picture, answer) for picture, answer in pairs if not answer.unread]
                explainer.write(batch.pixels[: len(usable)], usable, model.class_ids.index)
            for picture, answer in zip(batch.pictures, answers, strict=True):
                if sorter:
                    answer = sorted_in(sorter, picture, answer)
                result.count(answer)
                written.add(answer)

        _compute(config, model, pictures, take, progress)
        if held:
            none = np.zeros((0, len(model.class_ids)), np.float32)
            seen = [judged.probabilities for _, judged in held if judged]
            model = model.for_use_on(np.concatenate([none, *seen]))
        for batch, judged in held:
            give(batch, judged)
    result.point, result.prior = model.point_text, model.prior_text
    result.path = written.path
    result.kept = written.keep(model, config)
    return result


def _compute(
    config: PredictConfig, model: Predictor, pictures: Pictures, take: Take, progress: Progress
) -> None:
    """Decode the pictures and send them through the networks, here or on a cluster."""
    if config.executor != "local":
        spread(config, model, pictures.found, take, progress)
        return
    classifier = model.on_pictures()
    stream = forward_stream(classifier, take)
    progress.note = lambda: f"bound by {stream.bound()}"
    stream.run(decoded_batches(pictures.found, classifier.geometry, classifier.batch))


def _learn(classifier: PixelClassifier, model: Predictor) -> None:
    """Learn what is known before the pictures are read, where its progress is seen."""
    _ = classifier.novelty
    if model.prior is None or model.prior.used:
        classifier.abstention(model.prior)


def answers_of(
    predictor: Predictor, batch: PictureBatch, judged: Judgement | None, top: int
) -> Iterator[Answer]:
    """Yield the answer to each picture of a batch.

    Args:
        predictor: Gives model and classes.
        batch: The pictures.
        judged: What the model says of those that can be used; None where there are none.
        top: How many classes are named.
    """
    ids, names = predictor.class_ids, predictor.class_names
    probabilities = predictor.corrected(judged.probabilities) if judged else np.zeros((0, len(ids)))
    classes = decided(probabilities, ids, predictor.point)
    distances = judged.distances if judged else None
    left_open = predictor.on_pictures().open_because(distances, probabilities, predictor.prior)
    number = 0  # among those that can be used
    for picture, reason in zip(batch.pictures, batch.reasons, strict=True):
        if reason or judged is None:
            yield Answer(picture.name, (), reason=reason)
            continue
        row, why = probabilities[number], left_open[number]
        novelty = None if judged.novelty is None else float(judged.novelty[number])
        best = top_classes(row, classes[number], ids, names, top)
        prior = predictor.prior.used[classes[number]] if predictor.prior else None
        yield Answer(picture.name, best, margin(row), novelty, why, bool(why), prior)
        number += 1


def sorted_in(sorter: Sorter, picture: Picture, answer: Answer) -> Answer:
    """Sort a picture in; where it cannot be read a second time, the answer says so."""
    try:
        sorter.put(picture, answer)
    except BAD_PICTURE as error:
        return replace(answer, reason=f"not copied: {error}")
    return answer


class _Written:
    """The file of answers: begun at once where it was asked for, else when there are more than a person is shown."""

    def __init__(self, path: Path, config: PredictConfig, stack: ExitStack, held_out: bool) -> None:
        self.path: Path | None = None
        self._place, self._top, self._stack = path, config.top, stack
        self._waiting: list[Answer] = []
        self._all: list[Answer] | None = [] if held_out else None
        if config.out:
            self._begin()

    def _begin(self) -> None:
        self._stack.enter_context(exclusive(self._place, instead="name another with --out FILE"))
        self._write = self._stack.enter_context(answer_file(self._place, self._top))
        self.path = self._place

    def add(self, answer: Answer) -> None:
        if self._all is not None:
            self._all.append(answer)
        if self.path is None:
            self._waiting.append(answer)
            if len(self._waiting) <= SHOWN:
                return
            self._begin()
            for waiting in self._waiting:
                self._write(waiting)
            self._waiting.clear()
            return
        self._write(answer)

    def keep(self, model: Predictor, config: PredictConfig) -> Path | None:
        """Keep the answers to held-out pictures for the report, and return where; None where these are others."""
        if self._all is None:
            return None
        path = config.runs / model.dataset.name / HeldOutAnswers.NAME
        HeldOutAnswers.of(model, self._all).write(path)
        return path


def _default_path(config: PredictConfig, predictor: Predictor) -> Path:
    digest = digest_json([predictor.name, config.images])[:8]
    dataset = predictor.name.partition("/")[0]
    return config.runs / dataset / "predictions" / f"pictures-{digest}.csv"
