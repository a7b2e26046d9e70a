"""What novelty is measured by, of models whose data set is at hand: vectors of its training rows."""

from collections.abc import Sequence

import numpy as np

from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.errors import OnepassError
from onepass.cache.features import open_features
from onepass.cache.files import write_atomic
from onepass.cache.progress import Progress
from onepass.classify.protocol.evaluate import selection_rows
from onepass.finetune.session.runs import FinishedRun
from onepass.predict.novelty import REFERENCE, Novelty, sample_rows
from onepass.predict.pixel_classifier import PixelClassifier
from onepass.predict.pixel_models import RunPass, VectorSpec, Wanted, side_by_side
from onepass.predict.predictor import SELECTION, Predictor
from onepass.predict.probes import Probe

# Training and selection rows that a network sees for it: it has no stored vectors.
RUN_ROWS = 2_048, 1_024
VECTORS = "vectors.npz"  # of these rows, in the folder of the run


def learn_novelty(
    predictor: Predictor, models: Sequence[Probe | FinishedRun], classifier: PixelClassifier
) -> Novelty | None:
    """Return what novelty is measured by; None where vectors that were stored are gone.

    Vectors of a probe are read from the store. A run's are computed once, of some of its training rows, and
    kept in its folder.

    Args:
        predictor: Gives the training rows, and probabilities of those held out.
        models: What it is made of.
        classifier: Computes what is not stored.
    """
    dataset, wanted = predictor.dataset, classifier.model.novelty_vectors
    train = dataset.rows("train")
    held_out = predictor.held_out
    if held_out is None:
        _, held_out = selection_rows(dataset, seed=0)
    fitted = np.setdiff1d(train, held_out)
    if not len(held_out) or not len(fitted):
        return None
    computed = any(isinstance(one, RunPass) for one in wanted)
    most = RUN_ROWS if computed else (REFERENCE, len(held_out))
    reference, selection = sample_rows(fitted, most[0]), sample_rows(held_out, most[1])
    rows = np.concatenate([reference, selection])
    try:
        vectors = (_of_run if computed else _stored)(wanted, rows, models, predictor, classifier)
    except OnepassError:
        return None
    confidences = np.zeros(0, np.float32)
    if predictor.held_out is not None:
        shares = predictor.compute(SELECTION).max(axis=1)
        confidences = shares[np.searchsorted(held_out, selection)]
    return Novelty.learn(wanted, vectors[: len(reference)], vectors[len(reference) :], confidences)


def _stored(
    wanted: Sequence[Wanted],
    rows: np.ndarray,
    models: Sequence[Probe | FinishedRun],
    predictor: Predictor,
    classifier: PixelClassifier,
) -> np.ndarray:
    """Return the vectors (n, D) of some rows, from feature files; those of shrunk pixels are made anew."""
    files = {}
    for probe in (model for model in models if isinstance(model, Probe)):
        for key in probe.feature_keys():
            name = probe.board.dataset
            files[VectorSpec.of(key)] = key.find(probe.store, name) or key.file(probe.store, name)
    found = {
        one: open_features(files[one]).X[rows] if one in files else None
        for one in wanted
        if isinstance(one, VectorSpec)
    }
    if any(vectors is None for vectors in found.values()):
        arrays = classifier.arrays(predictor.dataset.pixels[rows])
        found = {one: arrays[one] for one in found}
    return side_by_side([vectors for vectors in found.values() if vectors is not None])


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
    try:
        kept = unpack_arrays((folder / VECTORS).read_bytes())
        if np.array_equal(kept["content"], contents):
            return kept["vectors"]
    except (OSError, ValueError, KeyError):
        pass  # none yet, or of other images
    parts = []
    with Progress(len(rows), "images", "what is known, once for this run") as progress:
        for start in range(0, len(rows), classifier.batch):
            some = rows[start : start + classifier.batch]
            parts.append(classifier.arrays(predictor.dataset.pixels[some])[one])
            progress.advance(len(some))
    vectors = np.concatenate(parts)
    write_atomic(folder / VECTORS, pack_arrays({"vectors": vectors, "content": contents}))
    return vectors
