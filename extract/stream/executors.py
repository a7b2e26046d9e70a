"""Who plans and computes the shards: this process, or the workers of a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from onepass.cache.progress import Progress
from onepass.cache.rows import RowWriter
from onepass.cache.stopping import StopRequest
from onepass.data.dataset import ImageDataset
from onepass.extract.config import ExtractConfig
from onepass.extract.estimate import build_settled
from onepass.extract.jobs import ExtractionJob, make_jobs
from onepass.extract.stream.extractor import Extractor
from onepass.extract.stream.gpu_use import watch_gpus
from onepass.extract.stream.worker import ShardTask, compute_shards


class Outcome(NamedTuple):
    """What held a run up ("read", "device" or "write"), and the mean use of this machine's GPUs, 0 … 1, if known."""

    bound: str
    gpu_use: float | None = None


class Executor(Protocol):
    """Does all that needs the devices."""

    def make_jobs(self, config: ExtractConfig, dataset: ImageDataset) -> list[ExtractionJob]:
        """See `onepass.extract.jobs.make_jobs`."""

    def build(
        self, job: ExtractionJob, dataset: ImageDataset, batch: int, new: int
    ) -> tuple[ExtractionJob, Extractor]:
        """See `onepass.extract.estimate.build_settled`."""

    def run(
        self, task: ShardTask, extractor: Extractor, writers: list[RowWriter], progress: Progress
    ) -> Outcome:
        """Compute a task's shards and give them to the writers, until done or asked to stop."""


class LocalExecutor:
    """Computes on the devices of this process."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def make_jobs(self, config: ExtractConfig, dataset: ImageDataset) -> list[ExtractionJob]:
        """See `Executor`."""
        return make_jobs(config, dataset)

    def build(
        self, job: ExtractionJob, dataset: ImageDataset, batch: int, new: int
    ) -> tuple[ExtractionJob, Extractor]:
        """See `Executor`."""
        return build_settled(job, dataset.pixels, batch, new)

    def run(
        self, task: ShardTask, extractor: Extractor, writers: list[RowWriter], progress: Progress
    ) -> Outcome:
        """See `Executor`."""
        use = watch_gpus(len(extractor.devices))
        with use:
            bound = compute_shards(
                task,
                extractor,
                lambda file, rows, columns: writers[file].write(rows, columns),
                lambda: self._stop.reason,
                progress,
                use,
            )
        return Outcome(bound, use.mean)


@contextmanager
def open_executor(
    config: ExtractConfig, dataset: ImageDataset, stop: StopRequest
) -> Iterator[Executor]:
    """Give the executor that the configuration names.

    Raises:
        ClusterError: The cluster cannot be reached.
    """
    if config.executor == "local":
        yield LocalExecutor(stop)
        return
    from onepass.cache.cluster.workers import connect
    from onepass.extract.cluster.executor import ClusterExecutor

    workers = connect(config.executor, config.address)
    try:
        yield ClusterExecutor(workers, dataset.path, stop)
    finally:
        workers.close()
