"""Predictions of a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import InvalidInputError, MissingFileError, StaleError
from cache.features import FeatureKey
from cache.files import read_json, write_atomic
from cache.progress import Progress
from classify.config import PredictConfig as FormatConfig
from classify.heads.base import softmax
from classify.heads.storage import pack_arrays
from classify.predict import file_ending, render
from data.dataset import ImageDataset, open_dataset
from extract.backbones.registry import find_backbone
from extract.backend import compile_step
from extract.engine import Batch, Stream, cut_batches
from finetune.checkpoint import load_arrays, model_variables
from finetune.config import PredictConfig
from finetune.model import Classifier, build_classifier
from finetune.recipes import Recipe

BATCH = 64


@dataclass(frozen=True, slots=True)
class PredictResult:
    """Where predictions were written.

    Attributes:
        path: The file.
        rows: Lines in it, a header apart.
        split: Which rows were predicted.
        run: By which run.
    """

    path: Path
    rows: int
    split: str
    run: str


def predict_logits(
    classifier: Classifier, pixels: np.ndarray, rows: np.ndarray, label: str
) -> np.ndarray:
    """Return the logits (n, K) float32 of some rows, in their order.

    Args:
        classifier: Trained.
        pixels: All rows of the data set, uint8 (N, H, W, C).
        rows: (n,) which of them.
        label: What the progress line says.
    """
    wanted = pixels[rows[0] : rows[-1] + 1] if len(rows) == rows[-1] + 1 - rows[0] else pixels[rows]
    step = compile_step(classifier.predictor, BATCH)
    parts: list[np.ndarray] = []
    with Progress(len(rows), "images", label) as progress:

        def take(batch: Batch, arrays: list[np.ndarray]) -> None:
            parts.append(np.array(arrays[0]))
            progress.advance(batch.stop - batch.start)

        Stream(lambda batch: step(batch.pixels), take).run(
            cut_batches(wanted, [(0, 0, len(rows))], BATCH)
        )
    return np.concatenate(parts)


def save_logits(path: Path, logits: np.ndarray, rows: np.ndarray) -> None:
    """Write logits and their rows as `.npz`, atomically."""
    write_atomic(path, pack_arrays({"logits": logits, "rows": rows}))


def predict_run(config: PredictConfig) -> PredictResult:
    """Write the class of every row of a split, in row order, by a finished run.

    Raises:
        MissingFileError: There is no such run, or it is not finished.
        StaleError: The data set has changed since.
    """
    name, run = config.run.split("/")
    folder = config.runs / name / "finetune" / run
    if not (folder / "result.json").exists():
        known = sorted(path.parent.name for path in folder.parent.glob("*/result.json"))
        raise MissingFileError(
            f"{folder}: no finished run; finished ones: {', '.join(known) or 'none'}"
        )
    identity = read_json(folder / "config.json")["identity"]
    dataset = open_dataset(config.store, name)
    if dataset.digest != identity["dataset_digest"]:
        raise StaleError(
            f"{folder}: trained on data set {identity['dataset_digest'][:8]}, but {name} is now {dataset.digest[:8]}"
        )
    rows = dataset.rows(config.split)
    if not len(rows):
        raise InvalidInputError(
            f"{name} has no {config.split} rows; name another split with --split"
        )
    classifier = restore(folder, identity, dataset)
    logits = predict_logits(classifier, dataset.pixels, rows, f"predicting {config.split}")
    save_logits(folder / f"{config.split}_logits.npz", logits, rows)
    form = FormatConfig(
        dataset=name, split=config.split, format=config.format, header=config.header
    )
    text = render(dataset, rows, np.arange(len(dataset.class_ids)), softmax(logits), form)
    path = config.out or folder / f"{config.split}{file_ending(config.format)}"
    write_atomic(path, text.encode())
    return PredictResult(path, len(rows), config.split, config.run)


def restore(folder: Path, identity: dict[str, Any], dataset: ImageDataset) -> Classifier:
    """Return the trained network of a finished run."""
    key = FeatureKey(**{k: v for k, v in identity["features"].items() if k != "kind"})
    classifier = build_classifier(
        find_backbone(key.backbone), key.size, dataset.pixels.shape[1:], len(dataset.class_ids),
        Recipe.from_json(identity["recipe"]), output=(key.layer, key.pooling), weights="none",
    )  # fmt: skip
    load_arrays(folder / "weights.npz", {"model": model_variables(classifier.predictor)})
    return classifier
