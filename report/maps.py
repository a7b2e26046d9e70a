"""Class activation maps of the pictured mistakes; they are computed once and kept in the results' folder."""

from collections.abc import Sequence

import numpy as np

from onepass.cache.arrays import remembered
from onepass.cache.errors import OnepassError
from onepass.cache.keras_settings import load_keras
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
    path, chosen, name = context.board.folder / MAPS, context.chosen, context.chosen_name
    parts = [digest_array(chosen.probabilities), digest_array(pixels), list(columns)]
    key = np.frombuffer(digest_json([name, *parts]).encode(), np.uint8)

    def computed() -> np.ndarray:
        load_keras()
        models = open_models(context.store, context.board.folder.parent, (name,))
        predictor = make_predictor(models, ModelsConfig(models=(name,), temperature=False))
        evidence = evidence_for(activation_maps(predictor.on_pictures()).maps(pixels), columns)
        return evidence.astype(np.float16)  # what is stored, so that the page is the same each time

    return remembered(path, {"key": key}, "evidence", computed).astype(np.float32)
