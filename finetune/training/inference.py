"""A trained network applied to rows of pixels."""

from pathlib import Path

import keras
import numpy as np

from onepass.cache.arrays import pack_arrays
from onepass.cache.content import CONTENT_BYTES
from onepass.cache.errors import CorruptFileError
from onepass.cache.files import write_atomic
from onepass.cache.progress import Progress
from onepass.data.dataset import ImageDataset
from onepass.extract.backbones.registry import WeightsChoice, find_backbone
from onepass.extract.backend import compile_step
from onepass.extract.network.model import build_extractor
from onepass.extract.stream.engine import PixelBatch, Stream, cut_batches
from onepass.finetune.session.checkpoint import all_finite, load_variables, named_variables
from onepass.finetune.session.run_identity import RunIdentity
from onepass.finetune.training.model import Classifier, assemble

BATCH = 64


def predict_logits(
    classifier: Classifier, pixels: np.ndarray, rows: np.ndarray, label: str
) -> np.ndarray:
    """Return the logits (n, K) float32 of some rows, in their order; see `predict_rows`."""
    return predict_rows(classifier.predictor, pixels, rows, label)


def predict_rows(
    model: keras.Model, pixels: np.ndarray, rows: np.ndarray, label: str
) -> np.ndarray:
    """Return what a network says of some rows, float32 (n, K), in their order.

    Args:
        model: uint8 (B, H, W, C) → (B, K).
        pixels: All rows of the data set, uint8 (N, H, W, C).
        rows: (n,) which of them.
        label: What the progress line says.
    """
    unknown = np.broadcast_to(np.zeros(CONTENT_BYTES, np.uint8), (len(pixels), CONTENT_BYTES))
    columns = {"pixels": pixels, "content": unknown}  # no view of a network looks at it
    step = compile_step(model, BATCH)
    parts: list[np.ndarray] = []
    with Progress(len(rows), "images", label) as progress:

        def take(batch: PixelBatch, arrays: list[np.ndarray]) -> None:
            parts.append(np.array(arrays[0]))
            progress.advance(len(batch.rows))

        Stream(lambda batch: step(batch.pixels), take).run(cut_batches(columns, [(0, rows)], BATCH))
    return np.concatenate(parts)


def save_logits(path: Path, logits: np.ndarray, rows: np.ndarray) -> None:
    """Write logits and their rows as `.npz`, atomically."""
    write_atomic(path, pack_arrays({"logits": logits, "rows": rows}))


def restore(folder: Path, identity: RunIdentity, dataset: ImageDataset) -> Classifier:
    """Return the trained network of a finished run.

    Raises:
        CorruptFileError: Its weights are missing, damaged, not finite or of another network.
    """
    key = identity.key
    extractor = build_extractor(
        find_backbone(key.backbone), key.size, dataset.pixels.shape[1:],
        [(key.layer, key.pooling)], weights=WeightsChoice("none"),
    )  # fmt: skip
    classifier = assemble(
        extractor, len(dataset.class_ids), identity.recipe,
        which=identity.unfreeze,  # weights of earlier versions lie in an order that depends on it
    )  # fmt: skip
    path, named = folder / "weights.npz", named_variables(classifier.predictor)
    mend = "delete result.json beside it and run the finetune command of the run again"
    load_variables(path, {"model": named}, mend)
    if not all_finite(named):
        raise CorruptFileError(f"{path}: expected finite weights, received NaN or Inf; {mend}")
    return classifier
