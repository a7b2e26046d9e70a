"""extract_features: pixel rows → batches → vectors → rows, once."""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onepass.cache.features import ExtractionRecord, FeatureKey
from onepass.cache.rows import RowFile, RowWriter
from onepass.cache.stopping import StopRequest
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.extract.config import ExtractConfig
from onepass.extract.estimate import Estimate, PreparedJob, plan_table, prepare_job
from onepass.extract.jobs import make_jobs, unfinished
from onepass.extract.stream.executors import run_tasks
from onepass.extract.stream.gpu_use import watch_gpus
from onepass.extract.stream.worker import ShardTask, check_sentinel

log = logging.getLogger(__name__)


FileState = Literal["computed", "cached", "unfinished"]


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one feature file.

    Attributes:
        key: As it is written on a command line.
        path: Where it lies, or will.
        state: "computed" by this run, "cached" by an earlier one, or "unfinished".
        rows: Rows that are stored now.
        dim: Length of a vector; 0 where no run got far enough to know.
        computed: Rows computed by this run.
        seconds: What they took.
        bound: What held it up: "read", "device" or "write"; "" if nothing was computed.
        gpu_use: Mean use of the GPUs meanwhile, 0 … 1; None where it is not known.
    """

    key: str
    path: Path
    state: FileState
    rows: int
    dim: int
    computed: int = 0
    seconds: float = 0.0
    bound: str = ""
    gpu_use: float | None = None


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """What `onepass extract` did.

    Attributes:
        dataset: Name of the data set.
        total_rows: Its images.
        files: One report for each key asked for.
        stopped: Why the run ended early; "" if it did not.
        plan: With --dry-run, the estimate of each file; else empty.
        plan_seconds: What all of them take together; files of one job share their time.
    """

    dataset: str
    total_rows: int
    files: list[FileReport]
    stopped: str
    plan: list[Estimate]
    plan_seconds: float


def extract_features(config: ExtractConfig, stop: StopRequest | None = None) -> ExtractResult:
    """Store one vector per image for every backbone, size, layer, view and pooling asked for.

    Row i of every file is row i of the data set. What is finished is reused; what was interrupted
    resumes at its first missing shard.

    Args:
        config: What to extract, from what, and how.
        stop: Asked after each shard; a reason to stop ends the run there. `config.time_limit` is
            counted from now.

    Raises:
        StaleError: Stored rows differ from what this machine computes now.
        OutOfSpaceError: Fewer bytes free than the run needs; what was committed is intact.
        OnepassError: Data set, backbone, size, weights or view do not exist or do not fit.
    """
    dataset = open_dataset(config.store, config.dataset)
    jobs = make_jobs(config, dataset)
    todo = [job for job in (unfinished(job, config.store) for job in jobs) if job]
    left = {key for job in todo for key in job.keys}
    files = [_cached_file(key, config.store) for job in jobs for key in job.keys if key not in left]
    stop = (stop or StopRequest()).limit(config.time_limit)
    prepared = [prepare_job(job, dataset, config) for job in todo]
    plan = [estimate for job in prepared for estimate in job.estimates]
    if prepared and not config.dry_run:
        log.info(plan_table(plan))
        for job in prepared:
            files += _run_job(job, dataset, config, stop)
    dry = plan if config.dry_run else []
    seconds = sum(job.estimates[0].seconds for job in prepared)
    return ExtractResult(config.dataset, len(dataset.labels), files, stop.reason, dry, seconds)


def _cached_file(key: FeatureKey, store: Path) -> FileReport:
    rows = RowFile.open(key.file(store))
    dim = rows.columns["features"].shape[1]
    return FileReport(str(key), rows.path, "cached", rows.layout.rows, dim)


def _run_job(
    prepared: PreparedJob, dataset: ImageDataset, config: ExtractConfig, stop: StopRequest
) -> list[FileReport]:
    """Compute the missing shards of one job's files and join those that are complete."""
    job, extractor = prepared.job, prepared.extractor
    how = {"batch": extractor.batch}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(RowWriter(key.file(config.store), layout, key.inputs(), how))
            for key, layout in zip(job.keys, prepared.layouts, strict=True)
        ]
        check_sentinel(extractor, writers, dataset.pixels)
        missing = tuple(sorted({index for writer in writers for index in writer.missing}))
        plans, paths = tuple(w.plan for w in writers), tuple(w.path for w in writers)
        task = ShardTask(job, dataset.path, plans, paths, extractor.batch, missing)
        before = [_stored_rows(writer) for writer in writers]
        begin = time.monotonic()
        use = watch_gpus(len(extractor.devices))
        bound = run_tasks(task, extractor, writers, config, stop, use)
        run = _Run(time.monotonic() - begin, extractor.devices, bound, use.mean)
        return [
            _close(writer, dataset, key, had, run)
            for writer, key, had in zip(writers, job.keys, before, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Run:
    """What the files of one job share: seconds it took, devices, what bounded it, use of the GPUs."""

    seconds: float
    devices: list[str]
    bound: str
    gpu_use: float | None


def _stored_rows(writer: RowWriter) -> int:
    return sum(stop - start for start, stop in map(writer.shard_range, writer.digests))


def _close(
    writer: RowWriter, dataset: ImageDataset, key: FeatureKey, had: int, run: _Run
) -> FileReport:
    """Join a file whose shards are all there; report either way."""
    rows = _stored_rows(writer)
    computed = rows - had
    state: FileState = "unfinished" if writer.missing else "computed"
    if not writer.missing:
        side = {"labels": dataset.labels, "split": dataset.split, "names": dataset.names}
        rate = computed / max(run.seconds, 1e-9)
        attributes = {
            "class_ids": dataset.class_ids,
            "class_names": dataset.class_names,
            "record": dataset.record,
            "extraction": ExtractionRecord(rate, computed, run.devices, run.bound, run.gpu_use),
        }
        writer.finish(side, attributes)
    dim = writer.layout.columns["features"].shape[0]
    return FileReport(
        str(key), writer.path, state, rows, dim, computed, run.seconds, run.bound, run.gpu_use
    )
