"""A finished run as a model file for other programs: uint8 pixels in, probabilities out.

Resize and preprocessing are inside, written out in plain operations, so that no file needs Onepass
to be loaded. Each is read back and compared with the model before it gets its name. The class names
lie beside the files in `labels.json` and inside each; see `onepass.predict.model_files.Labels`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from onepass.cache.errors import OnepassError, Remedy, UsageError
from onepass.cache.files import TEMPORARY, fsync_folder, make_folder
from onepass.cache.locks import exclusive
from onepass.classify.metrics import softmax
from onepass.extract.backend import as_list
from onepass.extract.network.model import Preprocess
from onepass.finetune.session.runs import FinishedRun
from onepass.finetune.training.inference import restore
from onepass.predict.config import ExportConfig
from onepass.predict.model_files import FORMATS, LABELS, Labels, ModelFormat
from onepass.predict.models import open_models
from onepass.predict.predictor import split_rows

CHECKED = 100  # rows on which a file is compared with the model
TOLERANCE = 1e-3  # of a probability: another library may round a pixel to the next grey level


class ExportError(OnepassError, ValueError):
    """A file does not say what the model says."""


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """One model file.

    Attributes:
        format: Its kind.
        path: File, or folder for a SavedModel.
        megabytes: Its size, 10^6 bytes.
        difference: Largest difference of a probability from the model's, over the checked rows.
    """

    format: str
    path: Path
    megabytes: float
    difference: float


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was exported.

    Attributes:
        run: DATASET/RUN.
        models: One for each format asked for.
        labels: The file of class names.
        checked: Rows that each was compared on.
    """

    run: str
    models: tuple[ExportedModel, ...]
    labels: Path
    checked: int


def export_run(config: ExportConfig) -> ExportResult:
    """Write a finished run in each format asked for, verified.

    Raises:
        UsageError: The model is no fine-tuned run.
        UnknownNameError: There is no such model.
        MissingFileError: The run is not finished, or a format needs a package that is not installed.
        ExportError: A file's probabilities differ from the model's by more than TOLERANCE.
        LockedError: Another process exports to the same folder.
    """
    (run,) = open_models(config.store, config.runs, (config.model,))
    if not isinstance(run, FinishedRun):
        raise UsageError(
            f"{config.model}: expected a fine-tuned run, DATASET/RUN, received the probe {run.name}; with "
            "--epochs 0 finetune makes a probe a network",
            remedy=Remedy("finetune", run.dataset.name),
        )
    kinds = [FORMATS[name] for name in config.formats]
    for kind in kinds:
        kind.check_installed()
    predictor = restore(run.folder, run.identity, run.dataset).predictor
    model = plain_model(predictor)
    pixels = np.ascontiguousarray(run.dataset.pixels[split_rows(run.dataset, "val")[:CHECKED]])
    expected = softmax(np.asarray(predictor(pixels, training=False)))
    folder = config.out or run.folder / "export"
    labels = _labels(run)
    name = f"{run.dataset.name}-{run.short}"
    with exclusive(folder / LABELS, instead="name another folder with --out FOLDER"):
        models = [
            write_checked(kind, model, folder / f"{name}{kind.ending}", labels, pixels, expected)
            for kind in kinds
        ]
        labels.write(folder / LABELS)
    return ExportResult(run.name, tuple(models), folder / LABELS, len(pixels))


def write_checked(
    kind: ModelFormat,
    model: keras.Model,
    path: Path,
    labels: Labels,
    pixels: np.ndarray,
    expected: np.ndarray,
) -> ExportedModel:
    """Write a model in one format, read it back, and compare what it says of some pixels.

    Args:
        kind: The format.
        model: As `plain_model` returns it.
        path: Of the file or folder.
        labels: What is put inside.
        pixels: uint8 (n, H, W, C).
        expected: (n, K) the run's own probabilities of them.

    Raises:
        ExportError: It differs by more than TOLERANCE; what was at `path` is still there.
    """
    with _placed(path) as temporary:
        kind.write(model, temporary, labels)
        difference = float(np.abs(kind.run(temporary, pixels) - expected).max())
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{path}: expected the model's probabilities within {TOLERANCE:g}, received a "
                f"difference of {difference:.2g}; nothing was written"
            )
    return ExportedModel(kind.name, path, _megabytes(path), difference)


def plain_model(predictor: keras.Model) -> keras.Model:
    """Return the network with everything of ours written out in operations of Keras itself.

    Args:
        predictor: uint8 (B, H, W, C) → logits (B, K): layers "extractor" and "top", as
            `onepass.finetune.training.model.assemble` makes it.

    Returns:
        uint8 (B, H, W, C) named "pixels" → probabilities (B, K), with the same variables.
    """
    pixels = keras.Input(predictor.input_shape[1:], dtype="uint8", name="pixels")
    x: Any = pixels
    extractor = predictor.get_layer("extractor")
    parts = [extractor.get_layer(n) for n in ("resize", "preprocess", "backbone", "pool_0")]
    for layer in [*parts, predictor.get_layer("top")]:
        if isinstance(layer, Preprocess):
            p = layer.preprocessing
            x = ops.flip(x, axis=-1) if p.bgr else x
            x = keras.layers.Rescaling(list(p.scale), list(p.offset), dtype="float32")(x)
        elif _ours(layer):
            x = layer.call(x)  # not the layer itself: its operations become part of the graph
        else:
            x = as_list(layer(x))[0]
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(pixels, probabilities, name="onepass")


def _ours(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.startswith("onepass.")


def _labels(run: FinishedRun) -> Labels:
    height, width, channels = run.dataset.pixels.shape[1:]
    colours = "RGB" if channels == 3 else "grey"
    return Labels(
        class_ids=tuple(run.dataset.class_ids),
        class_names=tuple(run.dataset.class_names),
        input=f"uint8 (batch, {height}, {width}, {channels}), 0 to 255, {colours}",
        output="float32 (batch, classes): probabilities in the order of the class ids",
        run=run.name,
    )


@contextmanager
def _placed(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; on success it takes its place, whole."""
    make_folder(path.parent)
    workshop = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    try:
        yield workshop / path.name
        for file in workshop.rglob("*"):
            (fsync_folder if file.is_dir() else _fsync)(file)
        if path.exists():
            path.rename(workshop / "before")  # a folder cannot be renamed over another
        (workshop / path.name).rename(path)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(workshop)


def _fsync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
