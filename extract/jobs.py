"""Which feature files are asked for, which of them share forward passes, and how they are laid out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.content import CONTENT_BYTES
from onepass.cache.errors import UsageError
from onepass.cache.features import FeatureKey, same_recipe, stored_precisions
from onepass.cache.pool import RowPool
from onepass.cache.rows import (
    SHARD_BYTES,
    Column,
    RowFile,
    RowFilePlan,
    finished,
    inputs_of,
    parts_folder,
    read_plan,
)
from onepass.cache.shards import shard_keys
from onepass.cache.stores import AnyStore
from onepass.data.dataset import ImageDataset
from onepass.data.views import expand_views
from onepass.extract.backbones import registry
from onepass.extract.backbones.spec import BackboneSpec
from onepass.extract.backend import default_precision, on_accelerator
from onepass.extract.config import PRECISIONS_OF, ExtractConfig
from onepass.extract.engines.engine import ON_CPU, Engine
from onepass.extract.network.resize import view_matrices


@dataclass(frozen=True, slots=True)
class ExtractionJob:
    """Feature files that come out of the same forward passes.

    Attributes:
        spec: The backbone.
        size: Height and width that it sees (px).
        view: How the images are looked at.
        outputs: (layer, pooling) of each file.
        keys: One key for each output.
        precision: Arithmetic of the backbone.
        weights: Of the backbone.
        why: What speaks for its engine.
        open: Whether a faster engine may take its place: nothing is stored yet, and none was asked for.
    """

    spec: BackboneSpec
    size: int
    view: str
    outputs: tuple[tuple[str, str], ...]
    keys: tuple[FeatureKey, ...]
    precision: str
    weights: registry.WeightsChoice
    why: str
    open: bool = False

    def __str__(self) -> str:
        more = f" and {len(self.keys) - 1} more" if len(self.keys) > 1 else ""
        return f"{self.keys[0]}{more}"

    def computed_by(self, precision: str, why: str) -> "ExtractionJob":
        """Return the same job with another arithmetic, or other words for it; both are settled then."""
        keys = tuple(replace(key, precision=precision) for key in self.keys)
        return replace(self, keys=keys, precision=precision, why=why, open=False)

    def model_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `onepass.extract.network.model.build_extractor`."""
        names = ("view", "weights", "precision")
        return {name: getattr(self, name) for name in names}


def make_jobs(config: ExtractConfig, dataset: ImageDataset) -> list[ExtractionJob]:
    """Return a job for every backbone, size and view asked for, whether it is done or not.

    Raises:
        UnknownNameError: There is no such backbone.
        InvalidInputError: A size is below the backbone's minimum, or there is no such view.
    """
    jobs = []
    views = expand_views(config.view, dataset.record.symmetries)
    for name in config.backbone:
        spec = registry.find_backbone(name)
        for size, view in product(config.size or (spec.native_size,), views):
            registry.check_size(spec, size)
            view_matrices(dataset.pixels.shape[1], dataset.pixels.shape[2], size, view)
            jobs.append(_job(config, dataset, spec, size, view))
    return jobs


def _job(
    config: ExtractConfig, dataset: ImageDataset, spec: BackboneSpec, size: int, view: str
) -> ExtractionJob:
    weights = registry.WeightsChoice(
        registry.weights_named(config.weights), config.weights_sha256, config.seed
    )
    identity = registry.weights_identity(spec, weights.source, weights.seed)
    variant = (
        "" if identity == spec.weights else identity.replace("sha256:", "").replace(":", "")[:8]
    )
    base = FeatureKey(
        backbone=spec.name, weights=identity, size=size,
        variant=variant, view=view, precision=default_precision(), dtype=config.dtype,
    )  # fmt: skip
    outputs = (*product(config.layer, config.pooling), *([("", "logits")] if config.logits else []))
    keys = tuple(replace(base, layer=layer, pooling=pooling) for layer, pooling in outputs)
    job = ExtractionJob(spec, size, view, outputs, keys, base.precision, weights, "")
    asked = asked_precision(config)
    return (
        job.computed_by(asked, "as asked for") if asked else _as_stored(job, config.store, dataset)
    )


def asked_precision(config: ExtractConfig) -> str:
    """Return the arithmetic that engine and precision ask for; "" where both leave it open.

    Raises:
        UsageError: This machine does not have it.
    """
    engine, numbers = config.chosen_engine, config.precision
    if engine == "keras":
        return default_precision() if numbers == "auto" else numbers
    if engine == "auto" and numbers != "bfloat16":
        return "" if numbers == "auto" else numbers
    name = "openvino" if engine == "auto" else engine
    asked = PRECISIONS_OF[name] if numbers == "auto" else (numbers,)
    for one in (Engine(name, numbers) for numbers in asked):
        if not one.obstacle:
            return one.precision
    raise UsageError(f"--engine {name} --precision {one.numbers}: {one.obstacle}")


def _as_stored(job: ExtractionJob, store: AnyStore, dataset: ImageDataset) -> ExtractionJob:
    """Return a job with the arithmetic that most of its vectors are stored in; open where none are.

    Other vectors of this backbone and size count as well: they stand side by side with the job's.
    """
    if on_accelerator():
        return job.computed_by(job.precision, "the accelerator's own")
    own = stored_precisions(store, dataset.name, job.keys[0])

    def rank(precision: str) -> tuple[int, bool, bool]:
        keys = job.computed_by(precision, "").keys
        looks = [Existing.look(store, dataset, key) for key in keys]
        able = not any(len(one.new) for one in looks) or not Engine.of(precision).obstacle
        have = sum(one.carried + one.stored for one in looks)
        return (have if able else -1), able and precision in own, precision == job.precision

    ranks = {precision: rank(precision) for precision in ON_CPU}
    best = max(ranks, key=lambda precision: ranks[precision])
    if ranks[best] > (0, False, True):
        return job.computed_by(best, "as the vectors that are stored")
    return replace(job, open=True)


@dataclass(frozen=True, slots=True)
class Existing:
    """What there is of one feature file before a run.

    Attributes:
        donors: Finished files of the same recipe, of any data set of the store.
        begun: Folders of shards of the same recipe; the file's own among them.
        plan: Of the file's own unfinished run; None where there is none.
        carried: How many different images other files have.
        stored: How many an unfinished run of this file has besides.
        new: Rows of the data set still to be computed, of equal images the first; int64.
        equal: How many images are equal to an earlier one.
    """

    donors: list[RowFile]
    begun: list[Path]
    plan: RowFilePlan | None
    carried: int
    stored: int
    new: np.ndarray
    equal: int

    @classmethod
    def look(cls, store: AnyStore, dataset: ImageDataset, key: FeatureKey) -> "Existing":
        """Look what there is, without reading a vector."""
        donors, begun = same_recipe(store, key)
        path = key.file(store, dataset.name)
        plan, own = read_plan(path), parts_folder(path)
        if plan and plan.kind.recipe != key.recipe():
            plan = None
        pool = RowPool(dataset.content)
        for donor in donors:
            pool.count(donor.path, donor.columns["content"])
        others = [folder for folder in begun if folder != own]
        _count(pool, others)
        carried = len(pool.known)
        if plan:
            _count(pool, [own])
        stored = len(pool.known) - carried
        equal = len(dataset.content) - pool.distinct
        return cls(donors, others, plan, carried, stored, pool.unknown(), equal)

    @property
    def width(self) -> int:
        """Length of a vector, 0 where no finished file says it."""
        return self.donors[0].columns["features"].shape[1] if self.donors else 0


def _count(pool: RowPool, folders: list[Path]) -> None:
    for shard in (shard for folder in folders for shard in sorted(folder.glob("shard-*.h5"))):
        pool.count(shard, shard_keys(shard, "content"))


def unfinished(job: ExtractionJob, store: AnyStore, dataset: ImageDataset) -> ExtractionJob | None:
    """Return the job with only the files that are not finished; None where all are."""
    left = [
        i
        for i, key in enumerate(job.keys)
        if finished(key.find(store, dataset.name), inputs_of(key.recipe(), dataset.content)) is None
    ]
    outputs, keys = tuple(job.outputs[i] for i in left), tuple(job.keys[i] for i in left)
    return replace(job, outputs=outputs, keys=keys) if left else None


def columns_of(key: FeatureKey, width: int) -> dict[str, Column]:
    """Return the columns of a feature file whose vectors have `width` numbers."""
    return {
        "features": Column((width,), key.dtype),
        "content": Column((CONTENT_BYTES,), "uint8"),
    }


def default_shard_rows(job: ExtractionJob, widths: Sequence[int], batch: int, most: int) -> int:
    """Return the rows of a shard: whole batches, about 16 MB of the widest file, `most` at the most."""
    widest = max(Column((w,), key.dtype).row_bytes for w, key in zip(widths, job.keys, strict=True))
    return max(1, min(SHARD_BYTES // widest, most) // batch) * batch
