"""New pictures decoded, and sent through the networks, by the workers of a cluster; this process says what they show.

Only plain values travel: which model, where the pictures lie, and what the networks give. Each worker opens the model
in the store and the runs folder, and the pictures, which all machines see at the same path.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onepass.cache.artifacts import to_json
from onepass.cache.cluster.crew import Part
from onepass.cache.cluster.identity import Identity
from onepass.cache.cluster.workers import connect
from onepass.cache.commandline.flags import sent
from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.progress import Progress, counted
from onepass.cache.provenance import digest_json
from onepass.cache.stopping import StopRequest
from onepass.extract.cluster.alike import AlikeCrew
from onepass.extract.stream.worker import TOLERANCE
from onepass.predict.config import ModelsConfig, PredictConfig, is_model_folder
from onepass.predict.pictures.batches import PictureBatch, Take, pixels_of
from onepass.predict.pictures.sources import Picture
from onepass.predict.pixel_classifier import PictureGeometry
from onepass.predict.predictor import Predictor

TASKS = "onepass.predict.cluster.tasks"
ROOMS = tuple(f"onepass.{r}" for r in ("cache", "data", "extract", "classify", "finetune", "predict"))  # fmt: skip
BATCHES = 4  # of a unit: one is decoded while another is computed
KEPT = 8  # units of each worker whose answers may wait for those before them

Place = tuple[str, str]  # file or archive, and the name in the archive
Given = list[tuple[tuple[str, ...], list[np.ndarray]]]  # of each batch: reasons, arrays
Batches = list[tuple[PictureBatch, list[np.ndarray]]]


class _Unit(NamedTuple):
    """Pictures that a worker is given together, by their number among such units."""

    number: int
    pictures: tuple[Picture, ...]


def spread(
    config: PredictConfig,
    model: Predictor,
    pictures: Iterable[Picture],
    take: Take,
    progress: Progress,
) -> None:
    """Let the workers decode pictures and compute what the networks give, in the batches of one machine.

    Args:
        config: Names the cluster and the models.
        model: They, opened here.
        pictures: Files, and members of archives.
        take: Given each batch and its arrays, in the order of the pictures.
        progress: Of the pictures.

    Raises:
        UsageError: A picture is an address.
        ClusterError: A unit failed too often, the cluster has gone, or nobody there can take part.
    """
    classifier = model.on_pictures()
    units = _units(pictures, BATCHES * classifier.batch)
    if (first := next(units, None)) is None:
        return
    models, picture = json.dumps(to_json(_models(config))), _place(first.what.pictures[0])[0]
    precision = max((one.precision for one in classifier.wanted), key=TOLERANCE.__getitem__)
    found: dict[int, Batches] = {}  # of units that wait for those before them
    taken = 0  # units

    def message(unit: _Unit) -> Any:
        return {"models": models, "pictures": [_place(one) for one in unit.pictures]}

    def accept(unit: _Unit, given: Given) -> None:
        found[unit.number] = list(_batches(unit.pictures, given, classifier.geometry))

    def full() -> bool:
        return len(found) >= KEPT * max(1, len(crew.ready))

    with closing(connect(config.executor, config.address)) as workers:
        looked_at, here = {"models": models, "picture": picture}, identity(model, Path(picture))
        crew = AlikeCrew(workers, TASKS, looked_at, here, StopRequest())
        progress.note = lambda: f"{crew.at_work} ({crew.device})"
        with crew.alike({"models": models}, precision):
            for _ in crew.accepted("compute", chain([first], units), message, accept, full):
                while taken in found:
                    for batch, arrays in found.pop(taken):
                        take(batch, arrays)
                    taken += 1


def identity(model: Predictor, picture: Path, device: str = "") -> Identity:
    """Return what this process is, which has opened the model and sees the first picture."""
    pictures = model.on_pictures()
    known = [
        model.name,
        model.class_ids,
        repr((pictures.geometry, pictures.wanted, pictures.batch)),
    ]
    learnt = [f"{number:.3g}" for number in (model.temperature, *model.weights)]
    try:
        seen = f"{picture.stat().st_size:,} bytes"
    except (OSError, ValueError):  # ValueError: a NUL in the name
        seen = "not there"
    same = {
        f"the model {model.name}": digest_json([known, learnt])[:12],
        f"the file {picture}": seen,
    }
    return Identity.here(ROOMS, same, device)


def _models(config: PredictConfig) -> ModelsConfig:
    """Return which models a worker is to open."""
    absolute = sent(config)
    models = [str(Path(m).resolve()) if is_model_folder(m) else m for m in config.models]
    file = config.backbone_weights
    chosen = {
        "models": tuple(models),
        "backbone_weights": file.resolve() if file else None,
        "engine": config.chosen_engine,
    }
    named = {field.name: getattr(absolute, field.name) for field in fields(ModelsConfig)}
    return ModelsConfig(**{**named, **chosen})


def _units(pictures: Iterable[Picture], size: int) -> Iterator[Part]:
    pictures = iter(pictures)
    for number in count():
        if not (some := tuple(islice(pictures, size))):
            return
        name = f"{counted(len(some), 'picture')} from {some[0].name} on"
        yield Part(_Unit(number, some), name)


def _place(picture: Picture) -> Place:
    """Return where a worker finds a picture.

    Raises:
        UsageError: It is an address.
    """
    if picture.path is None:
        raise UsageError(
            f"{picture.name}: expected files and archives, which the workers of a cluster read, received an address; "
            "leave --executor out, or fetch it first"
        )
    return str(picture.path.absolute()), picture.member


def _batches(
    pictures: Sequence[Picture], given: Given, geometry: PictureGeometry
) -> Iterator[tuple[PictureBatch, list[np.ndarray]]]:
    """Yield the batches that a worker has computed, with the reasons of this machine.

    Raises:
        InvalidInputError: It could not use a picture that can be used here.
    """
    rest = iter(pictures)
    for theirs, arrays in given:
        some = list(islice(rest, len(theirs)))
        pairs = zip(some, theirs, strict=True)
        reasons = tuple(reason and _reason(picture, reason, geometry) for picture, reason in pairs)
        yield PictureBatch.of(some, reasons, np.empty((0, *geometry.shape), np.uint8)), arrays


def _reason(picture: Picture, theirs: str, geometry: PictureGeometry) -> str:
    row = pixels_of(picture, geometry)
    if isinstance(row, str):
        return row
    raise InvalidInputError(
        f"{picture.name}: {theirs}, but it can be read here; expected a file that every machine sees at the same path"
    )
