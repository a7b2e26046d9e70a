"""What frozen layers make of images: computed once an image, kept as rows, and read in every epoch.

Where only the upper layers are trained, the outputs of the lower ones never change: they are features like
any other, of a layer's whole map. They lie in the store under a key of their own, known by the image's
content, as shards: which of them a run needs shows as its epochs draw mirrorings and turns.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from onepass.cache.errors import LockedError, OutOfSpaceError
from onepass.cache.features import WHOLE_MAP, FeatureKey, features_folder, same_recipe
from onepass.cache.files import make_folder
from onepass.cache.made_by import How
from onepass.cache.progress import Progress, human_bytes
from onepass.cache.rows import RowWriter, ShardKind, cut_shards
from onepass.cache.stores import AnyStore
from onepass.data.dataset import ImageDataset
from onepass.extract.backbones.registry import WeightsChoice, find_backbone
from onepass.extract.backend import default_precision, on_accelerator
from onepass.extract.engines.keras_engine import compile_step
from onepass.extract.jobs import ExtractionJob, columns_of, default_shard_rows
from onepass.extract.stream.engine import BatchStep
from onepass.extract.stream.worker import ShardTask, check_sentinel, compute_shards
from onepass.finetune.augmentation import ORIENTATIONS, draw, orientation_draws, orientations_of
from onepass.finetune.recipes import Augmentation, Recipe
from onepass.finetune.session.start import Start
from onepass.finetune.training import hosts
from onepass.finetune.training.model import Trainer

log = logging.getLogger(__name__)

BATCH = 64  # images a forward pass
SHARD_ROWS = 2048  # at most
SAMPLE = 1000  # draws, in which every orientation that may be drawn is certain to be


@dataclass(frozen=True, slots=True)
class _View:
    """The frozen layers' outputs for images in one orientation.

    Attributes:
        writer: Entered; row i is that of image i.
        job: What it takes.
        steps: The frozen layers, compiled; with `batch` as `onepass.extract.stream.worker.Compiled` has them.
        batch: Images a step.
    """

    writer: RowWriter
    job: ExtractionJob
    steps: tuple[BatchStep, ...]
    batch: int = BATCH


class FrozenRows:
    """What frozen layers make of the images of a data set, in every orientation that may be drawn.

    Args:
        views: By orientation.
        dataset: The images.
        trainer: Whose frozen layers these are.

    Attributes:
        network: Their outputs (B, …) float32 → logits (B, K); its variables are the trainer's.

    Raises:
        StaleError: Rows of earlier runs differ from what is computed now.
    """

    def __init__(self, views: dict[int, _View], dataset: ImageDataset, trainer: Trainer) -> None:
        self._views, self._dataset = views, dataset
        maps = keras.Input(trainer.network.input.shape[1:], name="maps")
        self.network = keras.Model(maps, trainer.logits_of_maps(maps), name="above_frozen")
        for view in views.values():
            check_sentinel(view, [view.writer], dataset)

    def compute(
        self, rows: np.ndarray, orientations: np.ndarray, stop: Callable[[], str] = lambda: ""
    ) -> str:
        """Compute and commit the maps that are not there yet, a shard at a time.

        Args:
            rows: (n,) of the data set.
            orientations: (n,) of each; see `onepass.finetune.augmentation.ORIENTATIONS`.
            stop: Asked before each shard.

        Returns:
            Why it stopped before its end; "" if it did not.
        """
        wanted = {o: rows[orientations == o] for o in np.unique(orientations).tolist()}
        missing = {o: self._views[o].writer.pool.unknown(of) for o, of in wanted.items()}
        total = sum(map(len, missing.values()))
        if not total:
            return ""
        with Progress(total, "images", "frozen layers") as progress:
            for orientation, new in missing.items():
                self._compute(self._views[orientation], new, stop, progress)
                if reason := stop():
                    return reason
        return ""

    def _compute(
        self, view: _View, rows: np.ndarray, stop: Callable[[], str], progress: Progress
    ) -> None:
        writer = view.writer
        shards = tuple(cut_shards(rows, writer.plan.shard_rows))
        task = ShardTask(
            view.job, self._dataset.path, (writer.plan.kind,), (writer.folder,), view.batch, shards, (rows,)
        )  # fmt: skip
        compute_shards(
            task, view, lambda _, rows, columns: writer.write(rows, columns), stop, progress
        )

    def maps(self, rows: np.ndarray, orientations: np.ndarray | int = 0) -> np.ndarray:
        """Return the maps (n, …) float32 of some rows, all of which were computed."""
        orientations = np.broadcast_to(orientations, rows.shape)
        found = np.empty((len(rows), *self.network.input.shape[1:]), np.float32)
        for orientation in np.unique(orientations).tolist():
            here = orientations == orientation
            column = self._views[orientation].writer.column("features", rows[here])
            found[here] = column.reshape(-1, *found.shape[1:])
        return found


@contextmanager
def open_frozen_rows(
    trainer: Trainer, recipe: Recipe, start: Start, store: AnyStore, dataset: ImageDataset, count: int
) -> Iterator[FrozenRows | None]:  # fmt: skip
    """Open the rows of a network's frozen layers for one training; no other may write them meanwhile.

    Args:
        trainer: The network, with the weights that its frozen layers keep.
        recipe: It is to be trained by.
        start: The vectors that it begins with.
        store: Where rows are kept.
        dataset: The images.
        count: How many of them are trained on, or evaluated.

    Yields:
        The rows; None where the frozen layers are to be computed in each step, and one line has said why.
    """
    why = _obstacle(trainer, recipe, start)
    with ExitStack() as stack:
        rows = None
        if not why:
            try:
                rows = _opened(stack, trainer, recipe, start.key, store, dataset, count)
            except LockedError:
                why = "another process writes their outputs"
            except OutOfSpaceError as error:
                why = str(error)
        if why:
            stack.close()
            log.info(f"the frozen layers are computed in each step: {why}")
        yield rows


def _obstacle(trainer: Trainer, recipe: Recipe, start: Start) -> str:
    """Return why the outputs of the frozen layers cannot be kept, or are not worth it; "" where they can."""
    if recipe.batchnorm == "train":
        return "batchnorm=train takes its statistics from each batch, and nothing is constant"
    if endless := recipe.augmentation.beyond_orientations:
        return f"{', '.join(endless)} of the augmentation make another image of each every time"
    if recipe.first_size < 1:
        return "first_size: the images grow from epoch to epoch"
    if start.random:
        return "their weights are random"
    if start.run:
        return f"{start.run.full_name} trained their weights"
    if trainer.frozen is None:
        return "there is no layer below the trained ones through which everything passes"
    if on_accelerator():
        return "their outputs are kept on a CPU only"
    if hosts.count() > 1:
        return "their outputs are kept by one process only"
    if np.prod(trainer.network.input.shape[1:]) > np.prod(trainer.frozen.input.shape[1:]):
        return "their output is larger than the image that it is made of"
    return ""


def _opened(
    stack: ExitStack, trainer: Trainer, recipe: Recipe, key: FeatureKey, store: AnyStore,
    dataset: ImageDataset, count: int,
) -> FrozenRows:  # fmt: skip
    """Open a writer for each orientation that may be drawn.

    Raises:
        LockedError: Another process writes one of them.
        OutOfSpaceError: There is no room for what may be drawn.
    """
    shape = tuple(dataset.pixels.shape[1:])
    drawn = orientations_of(draw(recipe.augmentation, shape, 0, 0, 0, SAMPLE), SAMPLE)
    possible = np.unique([0, *drawn]).tolist()  # 0: of evaluation
    assert trainer.frozen is not None
    width, layer = int(np.prod(trainer.network.input.shape[1:])), trainer.frozen.name
    rows = count * min(len(possible), recipe.epochs)
    _check_room(features_folder(store, dataset.name), layer, rows, 4 * width)
    step_of = _compiled(trainer, recipe.augmentation, shape)
    views = {}
    for orientation in possible:
        own = replace(
            key, layer=layer, view=ORIENTATIONS[orientation], pooling=WHOLE_MAP,
            precision=default_precision(), dtype="float32",
        )  # fmt: skip
        job = ExtractionJob(
            find_backbone(own.backbone), own.size, own.view, ((layer, WHOLE_MAP),), (own,), own.precision,
            WeightsChoice(), "",
        )  # fmt: skip
        donors, begun = same_recipe(store, own)
        writer = RowWriter(
            own.file(store, dataset.name),
            ShardKind(columns_of(own, width), "content", own.recipe()),
            dataset.content,
            shard_rows=default_shard_rows(job, [width], BATCH, SHARD_ROWS),
            how=How(batch=BATCH),
            donors=donors,
            begun=begun,
        )
        views[orientation] = _View(stack.enter_context(writer), job, (step_of(orientation),))
    return FrozenRows(views, dataset, trainer)


def _check_room(folder: Path, layer: str, rows: int, row_bytes: int) -> None:
    """Say how much may be kept, and refuse what the disk does not hold."""
    make_folder(folder)
    free = shutil.disk_usage(folder).free
    need = f"up to {rows:,} rows of {human_bytes(row_bytes)}, {human_bytes(rows * row_bytes)}, in {folder}"
    if free < rows * row_bytes:
        raise OutOfSpaceError(f"{need}, which has {human_bytes(free)} free")
    log.info(f"outputs of the frozen layers, up to {layer}, are computed once and kept: {need}")


def _compiled(
    trainer: Trainer, augmentation: Augmentation, shape: tuple[int, ...]
) -> Callable[[int], BatchStep]:
    """Compile the frozen layers as the training step has them; return what gives the step of an orientation."""
    pixels = keras.Input(shape, dtype="uint8", name="pixels")
    draws = {
        name: keras.Input(drawn.shape[1:], dtype="bool", name=name)
        for name, drawn in draw(augmentation, shape, 0, 0, 0, 1).items()
    }
    assert trainer.frozen is not None
    maps = trainer.frozen(trainer.augment([pixels, draws]))
    flat = keras.layers.Flatten(dtype="float32")(maps)
    step = compile_step(keras.Model([pixels, *draws.values()], flat), BATCH)

    def step_of(orientation: int) -> BatchStep:
        given = orientation_draws(orientation, BATCH)
        return lambda batch: step(batch.pixels, *(given[name] for name in draws))

    return step_of
