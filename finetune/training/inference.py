"""A trained network applied to rows of pixels."""

from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from onepass.cache.arrays import write_arrays
from onepass.cache.content import CONTENT_BYTES
from onepass.cache.errors import CorruptFileError
from onepass.cache.progress import Progress
from onepass.data.dataset import ImageDataset
from onepass.extract.backbones.registry import WeightsChoice, find_backbone
from onepass.extract.engines.keras_engine import compile_step
from onepass.extract.network.model import build_extractor
from onepass.extract.stream.engine import PixelBatch, Stream, cut_batches
from onepass.finetune.recipes import Recipe
from onepass.finetune.session.checkpoint import all_finite, load_variables, named_variables
from onepass.finetune.session.run_identity import RunIdentity
from onepass.finetune.training import hosts
from onepass.finetune.training.model import Classifier, assemble

BATCH = 64
WEIGHTS = "weights.npz"  # of a finished run, in its folder
TRAIN_AGAIN = "delete result.json beside it and run the finetune command of the run again"


def predict_logits(
    classifier: Classifier, pixels: np.ndarray, rows: np.ndarray, label: str
) -> np.ndarray:
    """Return the logits (n, K) float32 of some rows, in their order, by all processes; see `predict_rows`."""
    return hosts.by_shares(
        lambda share: predict_rows(classifier.predictor, pixels, share, label), rows
    )


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
    """Write logits and their rows as `.npz`, atomically; where several processes train, the first does."""
    if hosts.first():
        write_arrays(path, {"logits": logits, "rows": rows})


def restore(folder: Path, identity: RunIdentity, dataset: ImageDataset) -> Classifier:
    """Return the trained network of a finished run.

    Raises:
        CorruptFileError: Its weights are missing, damaged, not finite or of another network.
    """
    return restore_network(
        folder / WEIGHTS,
        identity.key,
        dataset.pixels.shape[1:],
        len(dataset.class_ids),
        identity.recipe,
        identity.unfreeze,
        TRAIN_AGAIN,
    )


class Start(Protocol):
    """The vectors that a network began with: fields of a `FeatureKey`, which is one."""

    @property
    def backbone(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def layer(self) -> str: ...
    @property
    def pooling(self) -> str: ...


def restore_network(
    path: Path,
    start: Start,
    pixel_shape: tuple[int, int, int],
    classes: int,
    recipe: Recipe,
    unfreeze: str,
    mend: str,
) -> Classifier:
    """Return a trained network.

    Args:
        path: Its weights.
        start: The vectors that it began with.
        pixel_shape: (H, W, C) of the pixels.
        classes: K.
        recipe: It was trained by.
        unfreeze: What was trained; weights of earlier versions lie in an order that depends on it.
        mend: What the user is to do about weights that cannot be read.

    Raises:
        CorruptFileError: The weights are missing, damaged, not finite or of another network.
    """
    extractor = build_extractor(
        find_backbone(start.backbone), start.size, pixel_shape,
        [(start.layer, start.pooling)], weights=WeightsChoice("none"),
    )  # fmt: skip
    classifier = assemble(extractor, classes, recipe, which=unfreeze)
    load_weights(classifier, path, mend)
    return classifier


def load_weights(classifier: Classifier, path: Path, mend: str = TRAIN_AGAIN) -> None:
    """Give a network the weights of a finished run of its shape.

    Args:
        classifier: As built.
        path: The weights.
        mend: What the user is to do about weights that cannot be read.

    Raises:
        CorruptFileError: The weights are missing, damaged, not finite or of another network.
    """
    named = named_variables(classifier.predictor)
    load_variables(path, {"model": named}, mend)
    if not all_finite(named):
        raise CorruptFileError(f"{path}: expected finite weights, received NaN or Inf; {mend}")
