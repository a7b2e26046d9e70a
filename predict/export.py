"""A model as files: a folder for Onepass on another machine, or one network for other programs.

A network takes uint8 pixels and gives probabilities; resize, preprocessing and temperature are inside. Each
file is read back and compared with the model before it gets its name. Beside the files lie the class names
(`labels.json`, also inside each), `MODEL_CARD.md`, and for each network format an `example-FORMAT.py`, which
decodes picture files as `onepass data prepare` does and needs nothing of Onepass. A SavedModel takes JPEG and PNG
files as well.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from onepass.cache.errors import OnepassError
from onepass.cache.files import TEMPORARY, fsync, make_folder, write_atomic
from onepass.cache.locks import exclusive
from onepass.cache.provenance import digest_json
from onepass.extract.engines.engine import Engine
from onepass.finetune.session.runs import FinishedRun
from onepass.finetune.training.inference import WEIGHTS
from onepass.predict.config import ExportConfig
from onepass.predict.example import examples
from onepass.predict.facts import About, about, model_card
from onepass.predict.model_files import FORMATS, LABELS, Labels, ModelFormat, in_batches
from onepass.predict.model_folder import CARD, FolderWriter, load_folder
from onepass.predict.models import Model, make_predictor, open_models
from onepass.predict.network import check_exportable, whole_network
from onepass.predict.pixel_classifier import PictureGeometry, PixelClassifier
from onepass.predict.pixel_models import VectorSpec
from onepass.predict.predictor import Predictor

log = logging.getLogger(__name__)

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


def export_model(config: ExportConfig) -> ExportResult:
    """Write a model, or an average of several, in each format asked for, verified.

    Raises:
        UsageError: It cannot become a network: one of its heads is none.
        UnknownNameError: There is no such model.
        MissingFileError: It is not finished, or a format needs a package that is not installed.
        ExportError: A file's probabilities differ from the model's by more than TOLERANCE.
        LockedError: Another process exports to the same folder.
    """
    models = open_models(config.store, config.runs, config.models)
    folder, name = _place(config, models)
    kinds = [FORMATS[name] for name in config.formats if name != "folder"]
    for kind in kinds:
        kind.check_installed()
    predictor = make_predictor(models, config)
    pictures = predictor.on_pictures()
    if kinds:
        check_exportable(pictures.model)
    with exclusive(folder / LABELS, instead="name another folder with --out FOLDER"):
        return _export(config, models, predictor, folder, name, kinds)


def _export(
    config: ExportConfig,
    models: list[Model],
    predictor: Predictor,
    folder: Path,
    name: str,
    kinds: list[ModelFormat],
) -> ExportResult:
    """Write the files; whoever calls is the only writer of the folder."""
    pictures = predictor.on_pictures()
    pixels = np.ascontiguousarray(predictor.dataset.pixels[_checked_rows(predictor)])
    expected = _probabilities(pictures, pixels)
    labels = _labels(predictor)
    known = _about(predictor, models)
    written = []
    if "folder" in config.formats:
        place = folder / f"{name}-folder"
        written.append(_write_folder(place, pictures, models, known, pixels, expected))
    network = whole_network(pictures, predictor.prior) if kinds else None
    if kinds and any(Engine.of(spec.precision).name != "keras" for spec in _specs(pictures)):
        by_keras = _probabilities(pictures.by_keras(), pixels)
        apart = np.abs(by_keras - expected).max()
        log.info(
            f"{', '.join(kind.name for kind in kinds)}: compute in float32, and the model's vectors are of "
            f"OpenVINO: their probabilities are apart by {apart:.2g} at most, of {len(pixels)} images"
        )
        expected = by_keras
    expected = predictor.corrected(expected)
    for kind in kinds:
        path = folder / f"{name}{kind.ending}"
        written.append(
            write_checked(kind, network, path, labels, pictures.geometry, pixels, expected)
        )
        for file, program in examples(kind.name, path.name, pictures.geometry).items():
            write_atomic(folder / file, program.encode())
    labels.write(folder / LABELS)
    write_atomic(folder / CARD, model_card(known).encode())
    return ExportResult(predictor.name, tuple(written), folder / LABELS, len(pixels))


def _place(config: ExportConfig, models: Sequence[Model]) -> tuple[Path, str]:
    """Return the folder to write into, and how names in it begin."""
    first = models[0]
    dataset = first.dataset.name
    if len(models) > 1:
        short = "average-" + digest_json([sorted(m.name for m in models), config.weights])[:8]
    else:
        short = first.short if isinstance(first, FinishedRun) else first.result.id
    alone = len(models) == 1 and isinstance(first, FinishedRun)
    default = (first.folder if alone else config.runs / dataset) / "export"
    return config.out or default, f"{dataset}-{short}"


def _checked_rows(predictor: Predictor) -> np.ndarray:
    """Return rows to compare on: of the validation split, or of the training rows where it is empty."""
    rows = predictor.dataset.rows("val")
    return (rows if len(rows) else predictor.dataset.rows("train"))[:CHECKED]


def _about(predictor: Predictor, models: Sequence[Model]) -> About:
    specs = _specs(predictor.on_pictures())
    specs += [VectorSpec.of(run.identity.key) for run in models if isinstance(run, FinishedRun)]
    return about(predictor, specs)


def _specs(pictures: PixelClassifier) -> list[VectorSpec]:
    """Return the vectors of frozen backbones that a model is made of."""
    return [spec for specs in pictures.backbones() for spec in specs]


def _write_folder(
    path: Path,
    pictures: PixelClassifier,
    models: Sequence[Model],
    known: About,
    pixels: np.ndarray,
    expected: np.ndarray,
) -> ExportedModel:
    """Write a model folder, open it again, and compare what it says.

    Raises:
        ExportError: It differs; what was at `path` is still there.
    """
    runs = {
        run.name: (
            run.folder / WEIGHTS,
            VectorSpec.of(run.identity.key),
            run.identity.recipe,
            run.identity.unfreeze,
        )
        for run in models
        if isinstance(run, FinishedRun)
    }
    with _placed(path) as temporary:
        make_folder(temporary)
        FolderWriter(temporary, runs).write(known, pictures)
        again = load_folder(temporary, engine=pictures.engine).pictures
        found = _probabilities(again, pixels)
        difference = _compared(path, found, expected)
    return ExportedModel("folder", path, _megabytes(path), difference)


def _probabilities(pictures: PixelClassifier, pixels: np.ndarray) -> np.ndarray:
    """Return the probabilities (n, K) of uint8 (n, H, W, C)."""
    return in_batches(lambda some: pictures.model.probabilities(pictures.arrays(some)), pixels)


def _compared(path: Path, found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of a probability."""
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{path}: expected the model's probabilities within {TOLERANCE:g}, received a "
            f"difference of {difference:.2g}; nothing was written"
        )
    return difference


def write_checked(
    kind: ModelFormat,
    model: keras.Model,
    path: Path,
    labels: Labels,
    geometry: PictureGeometry,
    pixels: np.ndarray,
    expected: np.ndarray,
) -> ExportedModel:
    """Write a model in one format, read it back, and compare what it says of some pixels.

    Args:
        kind: The format.
        model: As `plain_model` returns it.
        path: Of the file or folder.
        labels: What is put inside.
        geometry: What a picture becomes before the network sees it.
        pixels: uint8 (n, H, W, C).
        expected: (n, K) the run's own probabilities of them.

    Raises:
        ExportError: It differs by more than TOLERANCE; what was at `path` is still there.
    """
    with _placed(path) as temporary:
        kind.write(model, temporary, labels, geometry)
        difference = _compared(path, kind.run(temporary, pixels), expected)
    return ExportedModel(kind.name, path, _megabytes(path), difference)


def _labels(predictor: Predictor) -> Labels:
    height, width, channels = predictor.on_pictures().geometry.shape
    colours = "RGB" if channels == 3 else "grey"
    return Labels(
        class_ids=tuple(predictor.class_ids),
        class_names=tuple(predictor.class_names),
        input=f"uint8 (batch, {height}, {width}, {channels}), 0 to 255, {colours}",
        output="float32 (batch, classes): probabilities in the order of the class ids",
        run=predictor.name,
    )


@contextmanager
def _placed(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; on success it takes its place, whole.

    What libraries write meanwhile for themselves lies in the same folder. Those that killed processes left are
    deleted; whoever calls is the only writer.
    """
    make_folder(path.parent)
    for left in path.parent.glob(f"{TEMPORARY}????????"):
        shutil.rmtree(left)
    workshop = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    elsewhere, tempfile.tempdir = tempfile.tempdir, str(workshop)
    try:
        yield workshop / path.name
        for file in workshop.rglob("*"):
            fsync(file)
        if path.exists():
            path.rename(workshop / "before")  # a folder cannot be renamed over another
        (workshop / path.name).rename(path)
        fsync(path.parent)
    finally:
        tempfile.tempdir = elsewhere
        shutil.rmtree(workshop)


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
