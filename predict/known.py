"""What novelty is measured by, of models whose data set is at hand: vectors and probabilities of its training rows."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from onepass.cache.arrays import remembered
from onepass.cache.errors import InvalidInputError, OnepassError
from onepass.cache.features import open_features
from onepass.cache.progress import Progress
from onepass.cache.provenance import digest_json
from onepass.classify.heads.base import Head
from onepass.classify.leaderboard.records import model_digest
from onepass.classify.protocol.evaluate import selection_rows
from onepass.classify.protocol.views import repeated, stacked
from onepass.data.splits import KEPT, belonging_together, fold_split
from onepass.finetune.session.runs import FinishedRun
from onepass.predict.novelty import REFERENCE, Novelty, sample_rows
from onepass.predict.pixel_classifier import PixelClassifier
from onepass.predict.pixel_models import (
    Arrays,
    ProbeModel,
    RunPass,
    VectorSpec,
    Wanted,
    side_by_side,
)
from onepass.predict.predictor import SELECTION, Predictor
from onepass.predict.probes import Probe

RUN_ROWS = 1_024  # known rows that a network sees for it: it has no stored vectors
ENOUGH = 1_000  # known rows: a rate of 5 % is then known to 0.7 points
FOLDS = 5
VECTORS = "vectors.npz"  # of the rows that a network saw, in the folder of the run
LEFT_OUT = (
    "left_out.npz"  # probabilities by heads that were not fitted on the rows, in that of the probe
)


def learn_novelty(
    predictor: Predictor, models: Sequence[Probe | FinishedRun], classifier: PixelClassifier
) -> Novelty | None:
    """Return what novelty is measured by; None where vectors that were stored are gone.

    Vectors of a probe are read from the store. A run's are computed once, of some of its training rows, and
    kept in its folder. The known rows are those that were held out; where these are few and the model is
    made of probes, its heads are fitted again in folds, so that every training row is one.

    Args:
        predictor: Gives the training rows, and probabilities of those held out.
        models: What it is made of.
        classifier: Computes what is not stored.
    """
    dataset, wanted = predictor.dataset, classifier.model.novelty_vectors
    train = dataset.rows("train")
    computed = any(isinstance(one, RunPass) for one in wanted)
    try:
        known, probabilities = _known_rows(predictor, models, classifier)
        some = sample_rows(np.arange(len(known)), RUN_ROWS if computed else len(known))
        known = known[some]
        probabilities = probabilities[some] if len(probabilities) else probabilities
        reference = sample_rows(train, REFERENCE)
        rows = np.union1d(reference, known)
        if computed:
            vectors = _of_run(wanted, rows, models, predictor, classifier)
        else:
            arrays = _stored(wanted, rows, models, predictor, classifier)
            vectors = side_by_side([arrays[one] for one in wanted])
    except OnepassError:
        return None
    if not len(known):
        return None
    groups = dataset.groups and [dataset.groups[row] for row in rows.tolist()]
    units = belonging_together(dataset.content[rows], groups)
    places = np.searchsorted(rows, reference), np.searchsorted(rows, known)
    return Novelty.learn(wanted, vectors, *places, units, probabilities, dataset.labels[known])


def _known_rows(
    predictor: Predictor, models: Sequence[Probe | FinishedRun], classifier: PixelClassifier
) -> tuple[np.ndarray, np.ndarray]:
    """Return training rows (s,), ascending, and the probabilities (s, K) of each by a model not fitted on it.

    Where no row was held out, the probabilities are of length 0.
    """
    dataset, held_out = predictor.dataset, predictor.held_out
    if held_out is None:
        return selection_rows(dataset, seed=0)[1], np.zeros((0, len(dataset.class_ids)), np.float32)
    probes = [model for model in models if isinstance(model, Probe)]
    few = len(held_out) < min(ENOUGH, len(dataset.rows("train")))
    if few and len(probes) == len(models):
        try:
            return _in_folds(predictor, probes, classifier)
        except InvalidInputError:
            pass  # too few different images for folds
    return held_out, predictor.compute(SELECTION)


def _in_folds(
    predictor: Predictor, probes: Sequence[Probe], classifier: PixelClassifier
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the heads again, each time without one of `FOLDS` parts of the training rows, which are then predicted.

    What is found is kept in the folder of the first probe.
    """
    dataset, model = predictor.dataset, classifier.model
    train = dataset.rows("train")
    fold = fold_split(dataset.labels, train, dataset.content, dataset.groups, folds=FOLDS)
    heads = [model_digest(head) for head in _heads(model)]
    weights = [predictor.temperature, *predictor.weights]
    key = np.frombuffer(digest_json([dataset.digest, heads, weights]).encode(), np.uint8)

    def predicted() -> np.ndarray:
        arrays = _stored(model.wanted, train, probes, predictor, classifier)
        found = left_out_probabilities(model, arrays, dataset.labels[train], fold)
        return found[fold != KEPT].astype(np.float16)

    path = probes[0].folder / LEFT_OUT
    return train[fold != KEPT], remembered(path, {"key": key}, "probabilities", predicted)


def left_out_probabilities(
    model: Any, arrays: Arrays, labels: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Return the probabilities of each row by heads that were fitted on the other folds, (n, K) float32.

    Args:
        model: Of probes.
        arrays: What it wants, of n rows.
        labels: (n,).
        fold: (n,), from 0; a row of none is always fitted on, and has zeros.
    """
    probabilities = np.zeros((len(labels), int(labels.max()) + 1), np.float32)
    numbers = range(fold.max() + 1)
    with (
        Progress(len(numbers), "folds", "what is known, once for this model") as progress,
        threadpool_limits(1),  # the problem is small
    ):
        for number in numbers:
            held = np.flatnonzero(fold == number)
            again = _fitted_again(model, arrays, labels, np.flatnonzero(fold != number))
            left_out = {one: array[held] for one, array in arrays.items()}
            probabilities[held] = again.probabilities(left_out)
            progress.advance(1)
    return probabilities


def _heads(model: Any) -> list[Head]:
    """Return the heads of a model of probes, those of its members first."""
    members = [head for member in getattr(model, "members", ()) for head in _heads(member)]
    return [*members, model.head] if hasattr(model, "head") else members


def _fitted_again(model: Any, arrays: Arrays, labels: np.ndarray, rows: np.ndarray) -> Any:
    """Return a model of probes with heads that are fitted on some rows only; how they are put together stays.

    Args:
        model: It.
        arrays: What it wants, (n, …) each.
        labels: (n,).
        rows: Those, ascending.
    """
    if not isinstance(model, ProbeModel):
        members = tuple(_fitted_again(one, arrays, labels, rows) for one in model.members)
        return replace(model, members=members)
    views = tuple(side_by_side([arrays[spec] for spec in view]) for view in model.views)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # the probe's record says it of its settings
        head = clone(model.head).fit(stacked(views, rows), repeated(labels[rows], views))
    return replace(model, head=head)


def _stored(
    wanted: Sequence[Wanted],
    rows: np.ndarray,
    models: Sequence[Probe | FinishedRun],
    predictor: Predictor,
    classifier: PixelClassifier,
) -> Arrays:
    """Return the vectors (n, D) of some rows, from feature files; those of shrunk pixels are made anew."""
    files = {}
    for probe in (model for model in models if isinstance(model, Probe)):
        for key in probe.feature_keys():
            name = probe.board.dataset
            files[VectorSpec.of(key)] = key.find(probe.store, name) or key.file(probe.store, name)
    if any(one not in files for one in wanted):
        return classifier.arrays(predictor.dataset.pixels[rows])
    return {one: open_features(files[one]).X[rows] for one in wanted}  # type: ignore[index]


def _of_run(
    wanted: Sequence[Wanted],
    rows: np.ndarray,
    models: Sequence[Probe | FinishedRun],
    predictor: Predictor,
    classifier: PixelClassifier,
) -> np.ndarray:
    """Return the vectors (n, D) of some rows by a fine-tuned network, float32."""
    (one,) = wanted
    (folder,) = [m.folder for m in models if isinstance(m, FinishedRun) and m.name == one.run]  # type: ignore[union-attr]
    contents = predictor.dataset.content[rows]

    def computed() -> np.ndarray:
        parts = []
        with Progress(len(rows), "images", "what is known, once for this run") as progress:
            for start in range(0, len(rows), classifier.batch):
                some = rows[start : start + classifier.batch]
                parts.append(classifier.arrays(predictor.dataset.pixels[some])[one])
                progress.advance(len(some))
        return np.concatenate(parts)

    return remembered(folder / VECTORS, {"content": contents}, "vectors", computed)
