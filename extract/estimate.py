"""What an extraction will cost: measured on a few batches before hours are spent on the others."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onepass.cache.progress import human_bytes, human_seconds
from onepass.cache.rows import RowLayout, parts_folder
from onepass.data.dataset import ImageDataset
from onepass.extract.config import ExtractConfig
from onepass.extract.jobs import ExtractionJob, begun_with, default_shard_rows, layouts
from onepass.extract.stream.extractor import Extractor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one feature file will cost.

    Attributes:
        key: As it is written on a command line.
        rows: Rows still to be computed.
        rate: Rows per second of all devices; files of one job share one pass.
        seconds: Until the job is done.
        bytes: Of the finished file; twice that is needed while it is made.
        batch: Images a step.
    """

    key: str
    rows: int
    rate: float
    seconds: float
    bytes: int
    batch: int


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job whose model is compiled and whose cost is known.

    Attributes:
        job: What to compute.
        extractor: Its model.
        layouts: Of each file.
        estimates: One for each file.
    """

    job: ExtractionJob
    extractor: Extractor
    layouts: list[RowLayout]
    estimates: list[Estimate]


def prepare_job(job: ExtractionJob, dataset: ImageDataset, config: ExtractConfig) -> PreparedJob:
    """Build and compile a job's model, time a few batches, and say what its files will cost."""
    begin = time.monotonic()
    begun = begun_with(job, config.store)
    total = len(dataset.labels)
    extractor = Extractor.build(job, dataset.pixels, begun[0] if begun else config.batch, total)
    kept = begun is not None and begun[0] == extractor.batch
    shard_rows = (
        begun[1]
        if begun and kept
        else default_shard_rows(job, extractor.widths, extractor.batch, config.shard_rows)
    )
    shapes = layouts(job, extractor.widths, total, shard_rows)
    took = human_seconds(time.monotonic() - begin)
    log.info(f"{job}: model built and compiled in {took}, {extractor.batch} images a step")
    rate = extractor.rate * len(extractor.devices)
    estimates = []
    for key, layout in zip(job.keys, shapes, strict=True):
        rows = total - _stored_rows(key.file(config.store), layout)
        estimates.append(
            Estimate(str(key), rows, rate, rows / rate, layout.total_bytes, extractor.batch)
        )
    return PreparedJob(job, extractor, shapes, estimates)


def plan_table(estimates: Sequence[Estimate]) -> str:
    """Return the plan as a table: what will be computed, how fast, how long, how large."""
    lines = [("key", "rows", "rows/s", "time", "size", "batch")]
    for e in estimates:
        lines.append(
            (
                e.key,
                f"{e.rows:,}",
                f"{e.rate:,.0f}",
                human_seconds(e.seconds),
                human_bytes(e.bytes),
                str(e.batch),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in lines
    ]
    return "\n".join(rows)


def _stored_rows(path: Path, layout: RowLayout) -> int:
    """Return the rows of the committed shards, without opening them."""
    numbers = [int(shard.stem.split("-")[1]) for shard in parts_folder(path).glob("shard-*.h5")]
    return sum(stop - start for start, stop in map(layout.shard_range, numbers))
