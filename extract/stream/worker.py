"""One process's share of a job: stream its shards through the devices and commit them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from onepass.cache.errors import InvalidInputError, Remedy, StaleError
from onepass.cache.progress import Progress
from onepass.cache.rows import RowFile, RowWriter
from onepass.cache.shards import ShardKind
from onepass.data.dataset import ImageDataset
from onepass.extract.jobs import ExtractionJob
from onepass.extract.stream.engine import BatchStep, PixelBatch, Stream, cut_batches
from onepass.extract.stream.gpu_use import GpuUse

# How far stored and recomputed vectors may lie apart, as a share of the largest value: the last
# bits vary with device and driver; a changed weight file or preprocessing is far beyond this.
TOLERANCE = {
    "float32": 0.005,
    "mixed_bfloat16": 0.05,
    "mixed_float16": 0.02,
    "openvino_float32": 0.005,
    "openvino_bfloat16": 0.15,
}

Commit = Callable[[int, np.ndarray, dict[str, np.ndarray]], None]  # file, rows, columns


class Compiled(Protocol):
    """A compiled model: fields of an `Extractor`, which is one."""

    @property
    def steps(self) -> tuple[BatchStep, ...]: ...
    @property
    def batch(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Some shards of a job's files; small enough to be sent to another process.

    Attributes:
        job: What to compute.
        pixels: The data set's row file.
        kinds: What the shards of each file hold.
        folders: Where the shards of each file lie.
        batch: Images a step.
        shards: Rows of the data set, (n,) int64, that make up each shard.
        missing: For each file, which of them it misses; others may have more.
    """

    job: ExtractionJob
    pixels: Path
    kinds: tuple[ShardKind, ...]
    folders: tuple[Path, ...]
    batch: int
    shards: tuple[np.ndarray, ...]
    missing: tuple[np.ndarray, ...]


def compute_shards(
    task: ShardTask,
    extractor: Compiled,
    commit: Commit,
    stop: Callable[[], str] = lambda: "",
    progress: Progress | None = None,
    use: GpuUse | None = None,
    columns: dict[str, np.ndarray] | None = None,
) -> str:
    """Compute the task's shards in order, until done or `stop()` gives a reason.

    Args:
        task: The shards.
        extractor: Computes them.
        commit: Called with each finished shard.
        stop: Asked before each shard.
        progress: Told of every batch.
        use: Of the GPUs; shown with the progress where it is known.
        columns: Of the data set, where they are open already.

    Returns:
        What held the run up: "read", "device" or "write".

    Raises:
        InvalidInputError: A vector is not finite, or too large for the stored type.
        StaleError: The data set was prepared again meanwhile, from fewer images.
    """
    columns = columns or RowFile.open(task.pixels).columns
    shards = iter(enumerate(task.shards))
    turn = threading.Lock()

    def wanted() -> Iterator[tuple[int, np.ndarray]]:
        """Hand each shard to the device that asks first."""
        while not stop():
            with turn:
                index, rows = next(shards, (-1, np.empty(0)))
            if index < 0:
                return
            if rows.max() >= len(columns["content"]):
                raise StaleError(
                    f"{task.pixels}: was prepared again meanwhile, from fewer images; run the same command again"
                )
            yield index, rows

    streams = [Stream(step, _Sink(task, commit, progress).take) for step in extractor.steps]
    if progress:
        progress.note = lambda: " · ".join(
            filter(None, [f"bound by {streams[0].bound()}", str(use or "")])
        )
    with ThreadPoolExecutor(len(streams), "device") as pool:
        runs = [
            pool.submit(s.run, cut_batches(columns, wanted(), extractor.batch)) for s in streams
        ]
        for run in as_completed(runs):
            if run.exception():
                for stream in streams:
                    stream.end()
    for run in runs:
        run.result()
    return streams[0].bound()


def check_sentinel(extractor: Compiled, writers: list[RowWriter], dataset: ImageDataset) -> None:
    """Compute a batch of rows that are stored already again, before hours are spent on the others.

    They are taken from all over the rows that earlier runs, or other files, have.

    Raises:
        StaleError: They differ by more than the last bits may.
    """
    columns = {"pixels": dataset.pixels, "content": dataset.content}
    for position, writer in enumerate(writers):
        rows = writer.pool.sample(extractor.batch)
        if not len(rows):
            continue
        (batch,) = cut_batches(columns, [(0, rows)], extractor.batch)
        again = np.asarray(extractor.steps[0](batch)[position])[: len(rows)]
        apart = np.abs(writer.column("features", rows).astype(np.float32) - again).max(axis=1)
        share = float(apart.max() / max(np.abs(again).max(), 1e-6))
        allowed = TOLERANCE[str(writer.plan.kind.recipe["precision"])]
        if not share <= allowed:
            worst = int(rows[np.argmax(apart)])
            file = writer.pool.file_of(worst)
            raise StaleError(
                f"{file}: its vector of image {dataset.names[worst]} was stored by an earlier run and comes out "
                f"{share:.1%} different now (allowed {allowed:.1%}): driver, weights or code changed. "
                "Go on where it was begun",
                remedy=Remedy("delete", f"{file.parts[-3]}/{file.stem}"),
            )


class _Sink:
    """Gathers a shard's vectors, in the stored type, and commits it when it is complete."""

    def __init__(self, task: ShardTask, commit: Commit, progress: Progress | None) -> None:
        self.task, self.commit, self.progress = task, commit, progress
        self.contents: list[np.ndarray] = []
        self.gathered: list[list[np.ndarray]] = [[] for _ in task.kinds]

    def take(self, batch: PixelBatch, arrays: list[np.ndarray]) -> None:
        self.contents.append(batch.contents)
        for gathered, array, key in zip(self.gathered, arrays, self.task.job.keys, strict=True):
            gathered.append(_to_storage(array, key.dtype, batch.rows, str(key)))
        if batch.last:
            content = np.concatenate(self.contents)
            self.contents.clear()
            for file, gathered in enumerate(self.gathered):
                columns = {"features": np.concatenate(gathered), "content": content}
                self.commit(file, self.task.shards[batch.shard], columns)
                gathered.clear()
        if self.progress:
            self.progress.advance(len(batch.rows))


def _to_storage(vectors: np.ndarray, dtype: str, rows: np.ndarray, key: str) -> np.ndarray:
    """Return (n, D) vectors in the stored type, refusing what it cannot hold."""
    largest = np.abs(vectors).max(axis=1)
    bad = ~(largest <= np.finfo(dtype).max)  # also true for NaN
    if bad.any():
        row, value = int(rows[np.argmax(bad)]), largest[np.argmax(bad)]
        cure = (
            "store it with --dtype float32"
            if np.isfinite(value)
            else "check its image and the weights"
        )
        raise InvalidInputError(
            f"{key}: row {row}: {dtype} cannot hold a feature of {value:g}; {cure}"
        )
    return vectors.astype(dtype)
