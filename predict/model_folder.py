"""A model folder: all that `load_predictor` needs on a machine without store and results.

`model.json` says what the model is made of and holds the SHA-256 of every other file, which are compared
before a byte of them is used. The others are arrays: heads, weights, novelty. Nothing in it is code; the
networks are built by Onepass and take the arrays as their weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.cache.files import make_folder, read_bytes, write_atomic
from onepass.cache.names import check_name
from onepass.cache.provenance import digest_bytes
from onepass.classify.heads.base import Head
from onepass.classify.heads.storage import load_head, save_head
from onepass.finetune.recipes import Recipe
from onepass.predict.config import MODEL_FILE
from onepass.predict.facts import About, model_card
from onepass.predict.novelty import Novelty
from onepass.predict.pixel_classifier import PixelClassifier
from onepass.predict.pixel_models import (
    EnsembleModel,
    MeanModel,
    PixelModel,
    ProbeModel,
    RunModel,
    VectorSpec,
    pass_of,
)

if TYPE_CHECKING:
    import keras

CARD = "MODEL_CARD.md"
NOVELTY = "novelty.npz"
MEND = "get the folder again from whoever exported it"


@record
class ProbePart:
    """A `ProbeModel`; its head lies in the folder `head`."""

    kind: Literal["probe"]
    views: tuple[tuple[VectorSpec, ...], ...]
    head: str
    temperature: float


@record
class EnsemblePart:
    """An `EnsembleModel`; its head lies in the folder `head`."""

    kind: Literal["ensemble"]
    members: tuple[ProbePart, ...]
    head: str
    temperature: float


@record
class RunPart:
    """A `RunModel`; its weights lie in the file `weights`."""

    kind: Literal["run"]
    run: str
    start: VectorSpec
    recipe: Recipe
    unfreeze: str
    views: tuple[str, ...]
    weights: str
    temperature: float


@record
class MeanPart:
    """A `MeanModel`."""

    kind: Literal["mean"]
    members: tuple[ProbePart | EnsemblePart | RunPart, ...]
    weights: tuple[float, ...]
    temperature: float


@record
class BackbonePart:
    """The network of some vectors of one pass; its weights lie in the file `weights`.

    Attributes:
        specs: The vectors.
        weights: The file.
        batch: Images a step when the vectors were computed that the head was fitted on.
    """

    specs: tuple[VectorSpec, ...]
    weights: str
    batch: int


@record
class ModelRecord(Artifact):
    """`model.json`.

    Attributes:
        about: What has to be known to use it.
        model: What it is made of.
        backbones: The frozen networks.
        files: SHA-256 (hex) of every other file, by its name in the folder.
    """

    FORMAT: ClassVar[int] = 3
    SAME_SINCE: ClassVar[int] = 0  # format 2: no mix of classes; format 1: no operating point

    about: About
    model: ProbePart | EnsemblePart | RunPart | MeanPart
    backbones: tuple[BackbonePart, ...]
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoadedFolder:
    """A model folder, checked and ready.

    Attributes:
        record: Its `model.json`.
        pictures: The model with its networks.
    """

    record: ModelRecord
    pictures: PixelClassifier


@dataclass(slots=True)
class FolderWriter:
    """Writes the files that a model needs, each once.

    Attributes:
        folder: An empty folder.
        runs: Of each fine-tuned network its weights, first vectors, recipe and what was trained, by
            DATASET/RUN.
        files: What was written, with its SHA-256.
    """

    folder: Path
    runs: dict[str, tuple[Path, VectorSpec, Recipe, str]]
    files: dict[str, str] = field(default_factory=dict)

    def write(self, about: About, pictures: PixelClassifier) -> None:
        """Write a model."""
        part, backbones = self._part(pictures.model), self._backbones(pictures)
        if novelty := pictures.novelty:
            reference = novelty.reference.astype(np.float16)  # to which it is rounded
            arrays = {"reference": reference, "distances": novelty.distances}
            arrays |= {"probabilities": novelty.probabilities.astype(np.float16)}
            self._put(NOVELTY, pack_arrays({**arrays, "truth": novelty.truth}))
        self._put(CARD, model_card(about).encode())
        ModelRecord(about, part, backbones, self.files).write(self.folder / MODEL_FILE)

    def _put(self, name: str, content: bytes) -> str:
        path = self.folder / name
        make_folder(path.parent)
        write_atomic(path, content)
        self.files[name] = digest_bytes(content)
        return name

    def _head(self, head: Head) -> str:
        name = f"heads/{sum(one.endswith('head.json') for one in self.files)}"
        make_folder(self.folder / name)
        save_head(head, self.folder / name)
        for file in sorted((self.folder / name).iterdir()):
            self.files[f"{name}/{file.name}"] = digest_bytes(file.read_bytes())
        return name

    def _part(self, model: PixelModel) -> Any:
        if isinstance(model, ProbeModel):
            return ProbePart("probe", model.views, self._head(model.head), model.temperature)
        if isinstance(model, EnsembleModel):
            members = tuple(map(self._part, model.members))
            return EnsemblePart("ensemble", members, self._head(model.head), model.temperature)
        if isinstance(model, RunModel):
            path, start, recipe, unfreeze = self.runs[model.run]
            weights = self._weights(path.read_bytes())
            return RunPart(
                "run", model.run, start, recipe, unfreeze, model.views, weights, model.temperature
            )
        assert isinstance(model, MeanModel)
        members = tuple(map(self._part, model.members))
        return MeanPart("mean", members, model.weights, model.temperature)

    def _weights(self, content: bytes) -> str:
        """Write weights; equal ones, such as those of two views, once."""
        return self._put(f"weights/{digest_bytes(content)[:12]}.npz", content)

    def _backbones(self, pictures: PixelClassifier) -> tuple[BackbonePart, ...]:
        from onepass.finetune.session.checkpoint import named_variables, packed_variables

        parts = []
        for specs in pictures.backbones():
            network = pictures.build_extractor(specs, pictures.geometry.shape)
            content = packed_variables({"model": named_variables(network)}, {})
            parts.append(BackbonePart(specs, self._weights(content), pictures.batch_of(specs[0])))
        return tuple(parts)


def load_folder(
    folder: Path, batch: int = 0, abstain: float = 0.0, engine: str = "auto"
) -> LoadedFolder:
    """Open a model folder after comparing every file with its checksum; networks are built when needed.

    Args:
        folder: It.
        batch: Images a step; 0 takes those that the vectors were computed with.
        abstain: Share of known pictures whose answer may be left open.
        engine: See `PixelClassifier`.

    Raises:
        MissingFileError: It is no model folder.
        CorruptFileError: A file is missing, or not what was written.
    """
    made = ModelRecord.read(folder / MODEL_FILE)
    _check(folder, made)
    model = _model_of(folder, made)
    backbones = {pass_of(part.specs[0]): part for part in made.backbones}

    def build(specs: Sequence[VectorSpec], shape: tuple[int, int, int]) -> "keras.Model":
        from onepass.finetune.session.checkpoint import load_variables, named_variables
        from onepass.predict.extractors import random_extractor

        part = backbones[pass_of(specs[0])]
        network = random_extractor(part.specs, shape)
        load_variables(folder / part.weights, {"model": named_variables(network)}, MEND)
        return network

    pictures = PixelClassifier(
        model,
        made.about.geometry,
        build,
        {spec: part.batch for part in made.backbones for spec in part.specs},
        batch,
        (lambda _: _novelty(folder, model)) if NOVELTY in made.files else None,
        abstain,
        engine,
    )
    return LoadedFolder(made, pictures)


def _check(folder: Path, made: ModelRecord) -> None:
    """Compare the files with their checksums, and the names in the record with what names may be."""
    try:
        for name in made.about.name.split(" + "):
            for part in name.split("/"):
                check_name("model", part, InvalidInputError)
    except InvalidInputError as error:
        raise CorruptFileError(f"{folder / MODEL_FILE}: {error}; {MEND}") from error
    if len(made.about.class_ids) != len(made.about.class_names) or len(made.about.class_ids) < 2:
        raise CorruptFileError(
            f"{folder / MODEL_FILE}: expected a name for each of two classes or more, received "
            f"{len(made.about.class_ids)} ids and {len(made.about.class_names)} names; {MEND}"
        )
    for name, expected in made.files.items():
        pure, path = PurePosixPath(name), folder / name
        if pure.is_absolute() or ".." in pure.parts or "\\" in name:
            raise CorruptFileError(f"{folder / MODEL_FILE}: {name!a} leads out of the folder")
        try:
            found = digest_bytes(read_bytes(path))
        except OSError as error:
            raise CorruptFileError(f"{error}; {MEND}") from error
        if found != expected:
            raise CorruptFileError(
                f"{path}: expected the SHA-256 {expected[:12]}…, received {found[:12]}…; {MEND}"
            )


def _listed(folder: Path, made: ModelRecord, name: str) -> Path:
    """Return the path of a file that was compared with its checksum."""
    if name not in made.files:
        raise CorruptFileError(f"{folder / MODEL_FILE}: {name!a} is not among its files; {MEND}")
    return folder / name


def _model_of(folder: Path, made: ModelRecord) -> PixelModel:
    count = len(made.about.class_ids)

    def head_of(name: str) -> Head:
        _listed(folder, made, f"{name}/head.json")
        _listed(folder, made, f"{name}/arrays.npz")
        head = load_head(folder / name)
        if not np.array_equal(head.classes_, np.arange(count)):
            raise CorruptFileError(f"{folder / name}: expected a head of {count} classes; {MEND}")
        return head

    def model_of(part: Any) -> Any:
        if isinstance(part, ProbePart):
            return ProbeModel(part.views, head_of(part.head), part.temperature)
        if isinstance(part, EnsemblePart):
            members = tuple(map(model_of, part.members))
            return EnsembleModel(members, head_of(part.head), part.temperature)
        if isinstance(part, RunPart):
            path = _listed(folder, made, part.weights)
            network = partial(_network, path, part, made.about.geometry.shape, count)
            return RunModel(part.run, network, part.views, part.temperature)
        return MeanModel(tuple(map(model_of, part.members)), part.weights, part.temperature)

    for part in made.backbones:
        _listed(folder, made, part.weights)
    return model_of(made.model)


def _network(path: Path, part: RunPart, shape: tuple[int, int, int], classes: int) -> "keras.Model":
    from onepass.finetune.training.inference import restore_network

    restored = restore_network(path, part.start, shape, classes, part.recipe, part.unfreeze, MEND)
    return restored.predictor


def _novelty(folder: Path, model: PixelModel) -> Novelty:
    try:
        arrays = unpack_arrays(read_bytes(folder / NOVELTY))
        if "confidences" in arrays:  # as an earlier Onepass wrote it
            highest = arrays.pop("confidences")[:, None]
            arrays |= {"probabilities": highest, "truth": np.zeros(len(highest), np.int64)}
        return Novelty(model.novelty_vectors, **arrays, place=str(folder / NOVELTY))
    except (OSError, ValueError, TypeError) as error:
        raise CorruptFileError(
            f"{folder / NOVELTY}: expected arrays, but they cannot be read ({error}); {MEND}"
        ) from error
