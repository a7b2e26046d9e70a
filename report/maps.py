"""Class activation maps of the pictured mistakes; they are computed once and kept in the results' folder."""

from collections.abc import Sequence

import numpy as np

from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.errors import OnepassError
from onepass.cache.files import write_atomic
from onepass.cache.keras_settings import loading_keras
from onepass.cache.provenance import digest_array, digest_json
from onepass.predict.config import ModelsConfig
from onepass.predict.explain import activation_maps, evidence_for, overlay
from onepass.predict.models import make_predictor, open_models
from onepass.report.context import ReportContext
from onepass.report.mistakes import Mistake, thumbnail

MAPS = "activation_maps.npz"  # of the pictures of the last page, in `runs/<data set>`


def activation_thumbnails(
    context: ReportContext, mistakes: Sequence[Mistake]
) -> tuple[list[str], str]:
    """Return each mistake with what spoke for its predicted class laid over it, as data URIs.

    Args:
        context: Gives the model to use and its data set.
        mistakes: Its mistakes.

    Returns:
        The images, and why there are none: "" where there are, or no mistake is shown.
    """
    if not mistakes:
        return [], ""
    pixels = context.dataset.pixels[[m.row for m in mistakes]]
    columns = [m.predicted for m in mistakes]
    try:
        evidence = _evidence(context, pixels, columns)
    except OnepassError as error:
        return [], str(error)
    pairs = zip(pixels, evidence, strict=True)
    return [thumbnail(np.asarray(overlay(seen, one))) for seen, one in pairs], ""


def _evidence(context: ReportContext, pixels: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Return what speaks for a class at each place of some images, (n, h, w), kept or computed.

    Raises:
        OnepassError: The model has no such maps, or its weights are not at hand.
    """
    path, chosen = context.board.folder / MAPS, context.chosen
    parts = [digest_array(chosen.probabilities), digest_array(pixels), list(columns)]
    key = digest_json([context.chosen_name, *parts])
    try:
        kept = unpack_arrays(path.read_bytes())
        if kept["key"].tobytes().decode() == key:
            return kept["evidence"].astype(np.float32)
    except (OSError, ValueError, KeyError):
        pass  # none yet, or damaged
    with loading_keras():
        import onepass.extract.backend  # noqa: F401  (TensorFlow talks while it loads)
    name = context.chosen_name
    models = open_models(context.store, context.board.folder.parent, (name,))
    predictor = make_predictor(models, ModelsConfig(models=(name,), temperature=False))
    evidence = evidence_for(activation_maps(predictor.on_pictures()).maps(pixels), columns)
    evidence = evidence.astype(np.float16)  # what is stored, so that the page is the same each time
    name_of_these = np.frombuffer(key.encode(), np.uint8)
    kept = {"key": name_of_these, "evidence": evidence}
    write_atomic(path, pack_arrays(kept))
    return evidence.astype(np.float32)
