"""Who computes the shards: this process, processes of this machine, or a cluster.

Every worker opens the pixels by path and commits its own shards; only the plan travels. A cluster
needs the store on a file system that all of its machines see.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from onepass.cache.errors import MissingFileError
from onepass.cache.orphans import end_with_parent
from onepass.cache.progress import Progress
from onepass.cache.rows import RowWriter
from onepass.cache.stopping import StopRequest
from onepass.extract.config import ExtractConfig
from onepass.extract.stream.gpu_use import GpuUse
from onepass.extract.stream.worker import Extractor, ShardTask, compute_remote, compute_shards

LOCAL_WORKERS = 2  # processes, where neither the flag nor a cluster says how many
Shard = tuple[np.ndarray, tuple[np.ndarray, ...]]
Done = Iterable[tuple[Shard, str]]


def run_tasks(
    task: ShardTask,
    extractor: Extractor,
    writers: list[RowWriter],
    config: ExtractConfig,
    stop: StopRequest,
    use: GpuUse,
) -> str:
    """Compute a task's shards with the executor of the configuration.

    Args:
        task: The shards.
        extractor: Computes them, where that is this process.
        writers: Of each file.
        config: Names the executor.
        stop: Asked before each shard.
        use: Samples the GPUs of this process while it computes.

    Returns:
        What held the run up: "read", "device" or "write".
    """
    if config.executor != "local":
        return _run_elsewhere(task, writers, config, stop)

    def commit(file: int, rows: np.ndarray, columns: dict) -> None:
        writers[file].write(rows, columns)

    with use, _progress(task, writers) as progress:
        return compute_shards(task, extractor, commit, lambda: stop.reason, progress, use)


def _progress(task: ShardTask, writers: list[RowWriter]) -> Progress:
    total = writers[0].pool.distinct
    missing = sum(map(len, task.shards))
    return Progress(total, label=str(task.job), done=total - missing)


def _run_elsewhere(
    task: ShardTask, writers: list[RowWriter], config: ExtractConfig, stop: StopRequest
) -> str:
    """Hand out a shard at a time, so that a stop loses little and fast workers do more."""
    tasks = [
        replace(task, shards=(rows,), missing=tuple(w.pool.unknown(rows) for w in writers))
        for rows in task.shards
    ]
    submit = {"loky": _loky, "dask": _dask, "ray": _ray}[config.executor]
    bounds = Counter({"device": 0})
    with _progress(task, writers) as progress:
        for (rows, missing), bound in submit(_compute, tasks, config):
            for writer, positions in zip(writers, missing, strict=True):
                if len(positions):
                    writer.adopt(positions)
            progress.advance(len(rows))
            bounds[bound] += 1
            if stop.reason:
                break
    return bounds.most_common(1)[0][0]


def _compute(task: ShardTask) -> tuple[Shard, str]:
    """Do a task of one shard; return its rows, which of them each file missed, and what bound it."""
    return (task.shards[0], task.missing), compute_remote(task)


def _loky(work: Callable, tasks: list[ShardTask], config: ExtractConfig) -> Done:
    from joblib import Parallel, delayed

    return Parallel(
        n_jobs=config.workers or LOCAL_WORKERS,
        return_as="generator_unordered",
        initializer=end_with_parent,
    )(delayed(work)(p) for p in tasks)


def _dask(work: Callable, tasks: list[ShardTask], config: ExtractConfig) -> Done:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise MissingFileError(
            "--executor dask: install it with: pip install distributed"
        ) from error
    with Client(
        config.address,
        n_workers=None if config.address else config.workers or LOCAL_WORKERS,
        threads_per_worker=1,
    ) as client:
        for future in as_completed(client.map(work, tasks, pure=False)):
            yield future.result()


def _ray(work: Callable, tasks: list[ShardTask], config: ExtractConfig) -> Done:
    try:
        import ray
    except ImportError as error:
        raise MissingFileError("--executor ray: install it with: pip install ray") from error
    ray.init(address=config.address, ignore_reinit_error=True)
    waiting = [ray.remote(work).remote(task) for task in tasks]
    while waiting:
        ready, waiting = ray.wait(waiting)
        yield from ray.get(ready)
