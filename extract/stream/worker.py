"""One process's share of a job: stream its shards through the devices and commit them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from onepass.cache.errors import InvalidInputError, Remedy, StaleError
from onepass.cache.progress import Progress
from onepass.cache.rows import RowFile, RowFilePlan, RowWriter, parts_folder
from onepass.cache.shards import read_shard, write_shard
from onepass.extract.jobs import ExtractionJob
from onepass.extract.stream.engine import PixelBatch, Stream, cut_batches
from onepass.extract.stream.extractor import Extractor
from onepass.extract.stream.gpu_use import GpuUse

# How far stored and recomputed vectors may lie apart, as a share of the largest value: the last
# bits vary with device and driver; a changed weight file or preprocessing is far beyond this.
TOLERANCE = {"float32": 0.005, "mixed_bfloat16": 0.05, "mixed_float16": 0.02}

Commit = Callable[[int, int, dict[str, np.ndarray]], None]  # file, shard, columns


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Some shards of a job's files; small enough to be sent to another process.

    Attributes:
        job: What to compute.
        pixels: The data set's row file.
        plans: Of each file under construction.
        paths: Of each file.
        batch: Images a step.
        shards: Which shards; a file that has one already is left as it is.
    """

    job: ExtractionJob
    pixels: Path
    plans: tuple[RowFilePlan, ...]
    paths: tuple[Path, ...]
    batch: int
    shards: tuple[int, ...]


def compute_shards(
    task: ShardTask,
    extractor: Extractor,
    commit: Commit,
    stop: Callable[[], str] = lambda: "",
    progress: Progress | None = None,
    use: GpuUse | None = None,
) -> str:
    """Compute the task's shards in order, until done or `stop()` gives a reason.

    Args:
        task: The shards.
        extractor: Computes them.
        commit: Called with each finished shard.
        stop: Asked before each shard.
        progress: Told of every batch.
        use: Of the GPUs; shown with the progress where it is known.

    Returns:
        What held the run up: "read", "device" or "write".

    Raises:
        InvalidInputError: A vector is not finite, or too large for the stored type.
    """
    layout = task.plans[0].layout
    pixels = RowFile.open(task.pixels).columns["pixels"]
    shards = iter(task.shards)
    turn = threading.Lock()

    def wanted() -> Iterator[tuple[int, int, int]]:
        """Hand each shard to the device that asks first."""
        while not stop():
            with turn:
                index = next(shards, None)
            if index is None:
                return
            yield index, *layout.shard_range(index)

    streams = [Stream(step, _Sink(task, commit, progress).take) for step in extractor.steps]
    if progress:
        progress.note = lambda: " · ".join(
            filter(None, [f"bound by {streams[0].bound()}", str(use or "")])
        )
    with ThreadPoolExecutor(len(streams), "device") as pool:
        runs = [pool.submit(s.run, cut_batches(pixels, wanted(), extractor.batch)) for s in streams]
        for run in as_completed(runs):
            if run.exception():
                for stream in streams:
                    stream.end()
    for run in runs:
        run.result()
    return streams[0].bound()


def compute_remote(task: ShardTask) -> tuple[tuple[int, ...], str]:
    """Do a task in a process of its own, without the writers; return its shards and what bound it."""
    extractor = _extractor(task.job, task.pixels, task.batch)

    def commit(file: int, index: int, columns: dict[str, np.ndarray]) -> None:
        plan = task.plans[file]
        write_shard(parts_folder(task.paths[file]), plan.layout, plan.digest, index, columns)

    return task.shards, compute_shards(task, extractor, commit)


@lru_cache(maxsize=1)
def _extractor(job: ExtractionJob, pixels: Path, batch: int) -> Extractor:
    """Keep the model of the last job: a worker gets many tasks of the same one."""
    return Extractor.build(job, RowFile.open(pixels).columns["pixels"], batch)


def check_sentinel(extractor: Extractor, writers: list[RowWriter], pixels: np.ndarray) -> None:
    """Compute a batch of rows that are stored already again, before hours are spent on the others.

    Raises:
        StaleError: They differ by more than the last bits may.
    """
    for position, writer in enumerate(writers):
        if not writer.digests:
            continue
        index = min(writer.digests)
        start, stop = writer.shard_range(index)
        batch = next(cut_batches(pixels, [(index, start, stop)], extractor.batch))
        stored = read_shard(writer.folder, writer.layout, writer.plan.digest, index)["features"]
        count = batch.stop - batch.start
        again = np.asarray(extractor.steps[0](batch)[position])[:count]
        apart = float(
            np.abs(stored[:count].astype(np.float32) - again).max() / max(np.abs(again).max(), 1e-6)
        )
        allowed = TOLERANCE[str(writer.plan.inputs["precision"])]
        if not apart <= allowed:
            raise StaleError(
                f"{writer.path}: rows {start} to {batch.stop - 1} were stored by an earlier run and come out "
                f"{apart:.1%} different now (allowed {allowed:.1%}): driver, weights or code changed. "
                "Resume it where it was begun",
                remedy=Remedy("delete", f"{writer.path.parts[-3]}/{writer.path.stem}"),
            )


class _Sink:
    """Gathers a shard's vectors, in the stored type, and commits it when it is complete."""

    def __init__(self, task: ShardTask, commit: Commit, progress: Progress | None) -> None:
        self.task, self.commit, self.progress = task, commit, progress
        self.gathered: list[list[np.ndarray]] = [[] for _ in task.plans]

    def take(self, batch: PixelBatch, arrays: list[np.ndarray]) -> None:
        for gathered, array, key in zip(self.gathered, arrays, self.task.job.keys, strict=True):
            gathered.append(_to_storage(array, key.dtype, batch.start, str(key)))
        if batch.stop == self.task.plans[0].layout.shard_range(batch.shard)[1]:
            for file, gathered in enumerate(self.gathered):
                self.commit(file, batch.shard, {"features": np.concatenate(gathered)})
                gathered.clear()
        if self.progress:
            self.progress.advance(batch.stop - batch.start)


def _to_storage(vectors: np.ndarray, dtype: str, first_row: int, key: str) -> np.ndarray:
    """Return (n, D) vectors in the stored type, refusing what it cannot hold."""
    largest = np.abs(vectors).max(axis=1)
    bad = ~(largest <= np.finfo(dtype).max)  # also true for NaN
    if bad.any():
        row, value = first_row + int(np.argmax(bad)), largest[np.argmax(bad)]
        cure = (
            "store it with --dtype float32"
            if np.isfinite(value)
            else "check its image and the weights"
        )
        raise InvalidInputError(
            f"{key}: row {row}: {dtype} cannot hold a feature of {value:g}; {cure}"
        )
    return vectors.astype(dtype)
