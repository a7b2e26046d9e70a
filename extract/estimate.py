"""What an extraction will cost: measured on a few batches before hours are spent on the others."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onepass.cache.commandline.table import table
from onepass.cache.made_by import How
from onepass.cache.progress import human_bytes, human_seconds
from onepass.cache.rows import Column
from onepass.data.dataset import ImageDataset
from onepass.extract.config import ExtractConfig
from onepass.extract.engines.engine import Engine
from onepass.extract.jobs import Existing, ExtractionJob, columns_of, default_shard_rows
from onepass.extract.stream.extractor import Extractor, settle_engine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one feature file will cost.

    Attributes:
        key: As it is written on a command line.
        rows: Images that are new: still to be computed.
        carried: Images whose vectors are copied from other files.
        stored: Images that an unfinished run has computed.
        equal: Images that are equal to another one, and cost nothing.
        rate: Rows per second of all devices; files of one job share one pass. 0 where nothing is new.
        seconds: Until the job is done.
        bytes: Of the finished file; up to twice that is needed while it is made.
        batch: Images a step; 0 where nothing is new.
        engine: What computes the backbone, and in which numbers.
        why: What speaks for it; "" where nothing is new.
    """

    key: str
    rows: int
    carried: int
    stored: int
    equal: int
    rate: float
    seconds: float
    bytes: int
    batch: int
    engine: str
    why: str


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job whose model is compiled and whose cost is known.

    Attributes:
        job: What to compute.
        extractor: Its model; None where every vector can be copied.
        existing: What there is of each file.
        columns: Of each file.
        shard_rows: Rows of a shard.
        estimates: One for each file.
    """

    job: ExtractionJob
    extractor: Extractor | None
    existing: list[Existing]
    columns: list[dict[str, Column]]
    shard_rows: int
    estimates: list[Estimate]

    @property
    def how(self) -> How:
        """What the bits depend on besides the recipe."""
        return How(batch=self.extractor.batch if self.extractor else None)


Build = Callable[[ExtractionJob, ImageDataset, int, int], tuple[ExtractionJob, Extractor]]


def prepare_job(
    job: ExtractionJob, dataset: ImageDataset, config: ExtractConfig, build: Build
) -> PreparedJob:
    """Look what there is of a job's files, and what the rest will cost.

    Where anything is left to be computed, the model is built and compiled, and a few batches are timed.

    Args:
        job: Its precision may be open.
        dataset: The images.
        config: What else was asked for.
        build: As `build_settled`, here or elsewhere.
    """
    existing = [Existing.look(config.store, dataset, key) for key in job.keys]
    new = len(np.unique(np.concatenate([one.new for one in existing])))  # one pass for all files
    begun = next((one.plan for one in existing if one.plan), None)
    begun_with = (begun.how.batch or 0) if begun else 0
    extractor, rate, batch = None, 0.0, 0
    widths: tuple[int, ...] = tuple(one.width for one in existing)
    if new or not all(widths):
        job, extractor = build(job, dataset, begun_with or config.batch, new)
        widths, batch = extractor.widths, extractor.batch
        rate = extractor.rate * len(extractor.devices)
    if begun and begun.how.batch == batch:
        shard_rows = begun.shard_rows
    else:
        shard_rows = default_shard_rows(job, widths, max(batch, 1), config.shard_rows)
    columns = [columns_of(key, width) for key, width in zip(job.keys, widths, strict=True)]
    estimates = [
        Estimate(
            key=str(key),
            rows=len(one.new),
            carried=one.carried,
            stored=one.stored,
            equal=one.equal,
            rate=rate,
            seconds=new / rate if rate else 0.0,
            bytes=len(dataset.content) * sum(c.row_bytes for c in own.values()),
            batch=batch,
            engine=str(Engine.of(job.precision)),
            why=job.why if batch else "",
        )
        for key, one, own in zip(job.keys, existing, columns, strict=True)
    ]
    return PreparedJob(job, extractor, existing, columns, shard_rows, estimates)


def build_settled(
    job: ExtractionJob, pixels: np.ndarray, batch: int, new: int
) -> tuple[ExtractionJob, Extractor]:
    """Build and time the model, by the engine that the job's precision names or, where that is open, the best.

    Args:
        job: Its precision may be open.
        pixels: All rows of the data set, uint8 (N, H, W, C).
        batch: Images of a step; 0: as many as are fastest.
        new: Images to be computed.
    """
    begin = time.monotonic()
    extractor = Extractor.build(job, pixels, batch)
    if job.open:
        job, extractor = settle_engine(job, extractor, pixels, new)
    if not batch and Engine.of(job.precision).name == "keras":
        extractor = extractor.tuned(new)
    took = human_seconds(time.monotonic() - begin)
    log.info(f"{job}: model built and compiled in {took}, {extractor.batch} images a step")
    return job, extractor


def plan_table(estimates: Sequence[Estimate]) -> str:
    """Return the plan as a table: what will be computed, how fast, how long, how large."""
    lines = [("key", "new", "carried over", "equal", "rows/s", "time", "size", "batch")]
    for e in estimates:
        lines.append(
            (
                e.key,
                f"{e.rows:,}",
                f"{e.carried + e.stored:,}",
                f"{e.equal:,}",
                f"{e.rate:,.0f}" if e.batch else "-",
                human_seconds(e.seconds),
                human_bytes(e.bytes),
                str(e.batch or "-"),
            )
        )
    engines = dict.fromkeys(f"{e.engine}: {e.why}" for e in estimates if e.why)
    return "\n".join([*table(lines, right=range(1, len(lines[0]))), *engines])
