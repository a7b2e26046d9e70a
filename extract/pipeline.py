"""extract_features: pixel rows → batches → vectors → rows, once."""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from onepass.cache.features import ExtractionRecord, FeatureKey
from onepass.cache.keras_settings import load_keras
from onepass.cache.progress import Progress
from onepass.cache.rows import RowFile, RowWriter, ShardKind, clear_away, cut_shards
from onepass.cache.stopping import StoppedError, StopRequest
from onepass.cache.stores import AnyStore
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.extract.config import ExtractConfig
from onepass.extract.estimate import Estimate, PreparedJob, plan_table, prepare_job
from onepass.extract.jobs import unfinished
from onepass.extract.stream.executors import Executor, Outcome, open_executor
from onepass.extract.stream.extractor import Extractor
from onepass.extract.stream.worker import ShardTask, check_sentinel

log = logging.getLogger(__name__)


FileState = Literal["computed", "carried over", "cached", "unfinished"]


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one feature file.

    Attributes:
        key: As it is written on a command line.
        path: Where it lies, or will.
        state: "computed" by this run, in part at least; "carried over" from other files as a whole; "cached"
            by an earlier run; or "unfinished".
        rows: Rows that are stored now.
        dim: Length of a vector.
        computed: Rows computed by this run.
        carried: Rows whose vectors were copied from other files.
        equal: Rows that are equal to another one.
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
    carried: int = 0
    equal: int = 0
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
        stopped: Why the run ended early; "" if it did not, even where it was asked to.
        plan: With --dry-run, the estimate of each file; else empty.
        plan_seconds: What all of them take together; files of one job share their time.
        labelled: Whether the data set has classes, which heads can learn.
    """

    dataset: str
    total_rows: int
    files: list[FileReport]
    stopped: str
    plan: list[Estimate]
    plan_seconds: float
    labelled: bool = True


def extract_features(config: ExtractConfig, stop: StopRequest | None = None) -> ExtractResult:
    """Store one vector per image for every backbone, size, layer, view and pooling asked for.

    Row i of every file is row i of the data set. What is finished is reused; a vector that any file of
    the store has, made in the same way from the same pixels, is copied; what was interrupted resumes.

    Args:
        config: What to extract, from what, and how.
        stop: Asked after each shard; a reason to stop ends the run there. `config.time_limit` is
            counted from now.

    Raises:
        StaleError: Stored rows differ from what this machine computes now.
        OutOfSpaceError: Fewer bytes free than the run needs; what was committed is intact.
        OnepassError: Data set, backbone, size, weights or view do not exist or do not fit.
    """
    if config.executor == "local":  # else it is the workers' that compute
        load_keras()
    dataset = open_dataset(config.store, config.dataset)
    stop = (stop or StopRequest()).limit(config.time_limit)
    try:
        with open_executor(config, dataset, stop) as executor:
            return _extract(dataset, config, executor, stop)
    except StoppedError as stopped:  # before it was known what is to be done
        return ExtractResult(config.dataset, len(dataset.labels), [], str(stopped), [], 0.0)


def _extract(
    dataset: ImageDataset, config: ExtractConfig, executor: Executor, stop: StopRequest
) -> ExtractResult:
    jobs = executor.make_jobs(config, dataset)
    todo = [job for job in (unfinished(job, config.store, dataset) for job in jobs) if job]
    left = {key for job in todo for key in job.keys}
    files = [
        _cached_file(key, config.store, dataset)
        for job in jobs
        for key in job.keys
        if key not in left
    ]
    prepared = [prepare_job(job, dataset, config, executor.build) for job in todo]
    plan = [estimate for job in prepared for estimate in job.estimates]
    if prepared and not config.dry_run:
        log.info(plan_table(plan))
        for job in prepared:
            files += _run_job(job, dataset, config, executor)
    dry = plan if config.dry_run else []
    seconds = sum(job.estimates[0].seconds for job in prepared)
    return ExtractResult(
        config.dataset,
        len(dataset.labels),
        files,
        stop.reason if any(file.state == "unfinished" for file in files) else "",
        dry,
        seconds,
        bool(dataset.class_ids),
    )


def _cached_file(key: FeatureKey, store: AnyStore, dataset: ImageDataset) -> FileReport:
    own = key.file(store, dataset.name)
    rows = RowFile.open(key.find(store, dataset.name) or own)
    if rows.path == own:
        clear_away(rows, "content")
    dim = rows.columns["features"].shape[1]
    return FileReport(str(key), rows.path, "cached", rows.layout.rows, dim)


def _run_job(
    prepared: PreparedJob, dataset: ImageDataset, config: ExtractConfig, executor: Executor
) -> list[FileReport]:
    """Compute the rows that one job's files miss, and finish those files that miss none."""
    job, extractor = prepared.job, prepared.extractor
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                RowWriter(
                    key.file(config.store, dataset.name),
                    ShardKind(columns, "content", key.recipe()),
                    dataset.content,
                    shard_rows=prepared.shard_rows,
                    how=prepared.how,
                    donors=existing.donors,
                    begun=existing.begun,
                )
            )
            for key, columns, existing in zip(
                job.keys, prepared.columns, prepared.existing, strict=True
            )
        ]
        before = [len(writer.pool.known) for writer in writers]
        new = np.unique(np.concatenate([writer.pool.unknown() for writer in writers]))
        run = _Run(0.0, [], Outcome(""))
        if len(new):
            run = _compute(prepared, extractor, writers, new, dataset, config, executor)
        return [
            _close(writer, key, had, run)
            for writer, key, had in zip(writers, job.keys, before, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Run:
    """What the files of one job share: seconds it took, devices, and what came of it."""

    seconds: float
    devices: list[str]
    outcome: Outcome


def _compute(
    prepared: PreparedJob,
    extractor: Extractor | None,
    writers: list[RowWriter],
    new: np.ndarray,
    dataset: ImageDataset,
    config: ExtractConfig,
    executor: Executor,
) -> _Run:
    """Compute the vectors of some rows and commit them, a shard at a time."""
    if extractor is None:  # a shard that the plan counted on turned out to be damaged
        _, extractor = executor.build(prepared.job, dataset, config.batch, len(new))
    check_sentinel(extractor, writers, dataset)
    task = ShardTask(
        job=prepared.job,
        pixels=dataset.path,
        kinds=tuple(writer.plan.kind for writer in writers),
        folders=tuple(writer.folder for writer in writers),
        batch=extractor.batch,
        shards=tuple(cut_shards(new, prepared.shard_rows)),
        missing=tuple(writer.pool.unknown() for writer in writers),
    )
    begin = time.monotonic()
    total = writers[0].pool.distinct
    with Progress(total, label=str(task.job), done=total - len(new)) as progress:
        outcome = executor.run(task, extractor, writers, progress)
    return _Run(time.monotonic() - begin, extractor.devices, outcome)


def _close(writer: RowWriter, key: FeatureKey, had: int, run: _Run) -> FileReport:
    """Finish a file whose rows are all there; report either way."""
    pool, total = writer.pool, len(writer.wanted)
    stored, equal = len(pool.known), total - pool.distinct
    computed = stored - had
    complete = stored == pool.distinct
    state: FileState = "computed" if computed or writer.stored else "carried over"
    if complete:
        rate = computed / max(run.seconds, 1e-9)
        extraction = ExtractionRecord(rate, computed, run.devices, *run.outcome, writer.carried)
        writer.finish(attributes={"extraction": extraction})
    return FileReport(
        key=str(key),
        path=writer.path,
        state=state if complete else "unfinished",
        rows=total if complete else stored,
        dim=writer.plan.kind.columns["features"].shape[0],
        computed=computed,
        carried=writer.carried,
        equal=equal,
        seconds=run.seconds,
        bound=run.outcome.bound if computed else "",
        gpu_use=run.outcome.gpu_use,
    )
