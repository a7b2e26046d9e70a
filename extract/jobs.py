"""Which feature files are asked for, which of them share forward passes, and how they are laid out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from onepass.cache.features import FeatureKey
from onepass.cache.rows import SHARD_BYTES, Column, RowLayout, finished, read_plan
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
        dataset=dataset.name, dataset_digest=dataset.digest, backbone=spec.name, weights=identity, size=size,
        variant=variant, view=view, precision=precision, dtype=config.dtype,
    )  # fmt: skip
    outputs = (*product(config.layer, config.pooling), *([("", "logits")] if config.logits else []))
    keys = tuple(replace(base, layer=layer, pooling=pooling) for layer, pooling in outputs)
    return ExtractionJob(spec, size, view, outputs, keys, precision, weights)


def unfinished(job: ExtractionJob, store: Path) -> ExtractionJob | None:
    """Return the job with only the files that are not finished; None where all are."""
    left = [i for i, key in enumerate(job.keys) if finished(key.file(store), key.inputs()) is None]
    outputs, keys = tuple(job.outputs[i] for i in left), tuple(job.keys[i] for i in left)
    return replace(job, outputs=outputs, keys=keys) if left else None


def begun_with(job: ExtractionJob, store: Path) -> tuple[int, int] | None:
    """Return batch size and shard rows of an unfinished file of the job, which a resumed run keeps."""
    for key in job.keys:
        begun = read_plan(key.file(store))
        if begun and begun.inputs == key.inputs():
            return int(begun.how["batch"]), begun.layout.shard_rows
    return None


def default_shard_rows(job: ExtractionJob, widths: Sequence[int], batch: int, most: int) -> int:
    """Return the rows of a shard: whole batches, about 16 MB of the widest file, `most` at the most."""
    widest = max(Column((w,), key.dtype).row_bytes for w, key in zip(widths, job.keys, strict=True))
    return max(1, min(SHARD_BYTES // widest, most) // batch) * batch


def layouts(
    job: ExtractionJob, widths: Sequence[int], rows: int, shard_rows: int
) -> list[RowLayout]:
    """Return the layout of each file; all share one map from rows to shards.

    Args:
        job: The files.
        widths: Length of each output's vectors.
        rows: Images of the data set.
        shard_rows: Rows of a shard.
    """
    columns = [Column((width,), key.dtype) for width, key in zip(widths, job.keys, strict=True)]
    return [RowLayout({"features": column}, rows, shard_rows) for column in columns]
