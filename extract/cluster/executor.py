"""Shards computed by the workers of a cluster that are alike; this process plans, hands out, and consolidates.

Only plain values travel: what is to be computed, and which rows. Each worker opens the pixels by path and commits
its shards into the store, which all machines see at the same path.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onepass.cache.artifacts import from_json, to_json
from onepass.cache.cluster.crew import Part
from onepass.cache.cluster.workers import Workers
from onepass.cache.commandline.flags import sent
from onepass.cache.progress import Progress
from onepass.cache.rows import RowWriter
from onepass.cache.stopping import StopRequest
from onepass.data.dataset import ImageDataset
from onepass.extract.backbones.registry import weights_named
from onepass.extract.cluster.alike import VECTORS, AlikeCrew
from onepass.extract.cluster.messages import Trial, Unit, identity
from onepass.extract.config import ExtractConfig
from onepass.extract.jobs import ExtractionJob
from onepass.extract.stream.engine import PixelBatch
from onepass.extract.stream.executors import Outcome
from onepass.extract.stream.extractor import Extractor
from onepass.extract.stream.worker import ShardTask

TASKS = "onepass.extract.cluster.tasks"


class _Shard(NamedTuple):
    """Rows of the data set, and which of them each file misses."""

    rows: np.ndarray
    missing: tuple[np.ndarray, ...]


class ClusterExecutor(AlikeCrew):
    """See `onepass.extract.stream.executors.Executor`.

    Args:
        workers: Of the cluster.
        pixels: The data set's row file.
        stop: Asked several times a second.
    """

    def __init__(self, workers: Workers, pixels: Path, stop: StopRequest) -> None:
        self._pixels = pixels.resolve()
        super().__init__(workers, TASKS, str(self._pixels), identity(self._pixels), stop)

    def make_jobs(self, config: ExtractConfig, dataset: ImageDataset) -> list[ExtractionJob]:
        """Let a worker say what is asked for, which depends on its devices."""
        weights = weights_named(config.weights)
        absolute = replace(
            sent(config),
            weights=weights if isinstance(weights, str) else str(weights.resolve()),
            engine=config.chosen_engine,
        )
        return [
            from_json(ExtractionJob, job) for job in self.on_one("make jobs", to_json(absolute))
        ]

    def build(
        self, job: ExtractionJob, dataset: ImageDataset, batch: int, new: int
    ) -> tuple[ExtractionJob, Extractor]:
        """Let each worker build the model and measure it; it stays there, and the first one's measure holds."""
        trial = Trial(job, self._pixels, batch, new)
        found = self.on_one("measure", to_json(trial), others_too=True)
        job, size = from_json(ExtractionJob, found["job"]), found["batch"]

        def step(batch: PixelBatch) -> list[np.ndarray]:
            return self.on_one(VECTORS, to_json(self._unit(job, size, (), batch.rows)))

        def compiled(*_: Any) -> Any:
            raise NotImplementedError("the model is the workers'")

        devices = [
            f"{one.host} {device}" for one in self._there.values() for device in found["devices"]
        ]
        widths = tuple(found["widths"])
        return job, Extractor((step,), widths, size, devices, found["rate"], compiled)

    def run(
        self, task: ShardTask, extractor: Extractor, writers: list[RowWriter], progress: Progress
    ) -> Outcome:
        """Hand the shards out, two to a worker, and adopt what comes back."""
        bounds = Counter({"device": 0})
        probe = self._unit(task.job, task.batch, task.folders, np.empty(0, np.int64))
        progress.note = lambda: f"{self.at_work}, bound by {_most(bounds)}"

        def message(shard: _Shard) -> Any:
            return to_json(self._unit(task.job, task.batch, task.folders, *shard))

        def adopt(shard: _Shard, bound: str) -> None:
            for writer, positions in zip(writers, shard.missing, strict=True):
                if len(positions):
                    writer.adopt(positions)
            progress.advance(len(shard.rows))
            bounds[bound] += 1

        parts = (
            Part(
                _Shard(rows, tuple(writer.pool.unknown(rows) for writer in writers)),
                f"{task.job}: rows {rows.min():,} to {rows.max():,}",
            )
            for rows in task.shards
        )
        with self.alike(to_json(probe), task.job.precision):
            self.hand_out("compute", parts, message, adopt)
        return Outcome(_most(bounds))

    def _unit(
        self, job: ExtractionJob, batch: int, folders: Sequence[Path], rows: np.ndarray,
        missing: Sequence[np.ndarray] = (),
    ) -> Unit:  # fmt: skip
        places = tuple(folder.resolve() for folder in folders)
        return Unit(
            job,
            self._pixels,
            batch,
            places,
            tuple(rows.tolist()),
            tuple(tuple(m.tolist()) for m in missing),
        )


def _most(bounds: Counter) -> str:
    return bounds.most_common(1)[0][0]
