"""Which feature files are asked for, which of them share forward passes, and how they are laid out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.content import CONTENT_BYTES
from onepass.cache.features import FeatureKey, same_recipe
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
from onepass.extract.backbones import registry
from onepass.extract.backbones.spec import BackboneSpec
from onepass.extract.backend import default_precision
from onepass.extract.config import ExtractConfig
from onepass.extract.network.resize import FIVE_CROPS, view_matrices


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
    """

    spec: BackboneSpec
    size: int
    view: str
    outputs: tuple[tuple[str, str], ...]
    keys: tuple[FeatureKey, ...]
    precision: str
    weights: registry.WeightsChoice

    def __str__(self) -> str:
        more = f" and {len(self.keys) - 1} more" if len(self.keys) > 1 else ""
        return f"{self.keys[0]}{more}"

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
    views = [v for view in config.view for v in (FIVE_CROPS if view == "five-crop" else (view,))]
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
    weights = registry.WeightsChoice(config.weights_source, config.weights_sha256, config.seed)
    identity = registry.weights_identity(spec, weights.source, weights.seed)
    variant = (
        "" if identity == spec.weights else identity.replace("sha256:", "").replace(":", "")[:8]
    )
    precision = default_precision() if config.precision == "auto" else config.precision
    base = FeatureKey(
        backbone=spec.name, weights=identity, size=size,
        variant=variant, view=view, precision=precision, dtype=config.dtype,
    )  # fmt: skip
    outputs = (*product(config.layer, config.pooling), *([("", "logits")] if config.logits else []))
    keys = tuple(replace(base, layer=layer, pooling=pooling) for layer, pooling in outputs)
    return ExtractionJob(spec, size, view, outputs, keys, precision, weights)


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
