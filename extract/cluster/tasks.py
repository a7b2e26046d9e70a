"""What a worker does, in its own process: show itself, plan, and compute shards."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.artifacts import from_json, to_json
from onepass.cache.errors import OnepassError
from onepass.cache.keras_settings import load_keras
from onepass.cache.rowfile import RowFile
from onepass.cache.rows import RowFilePlan
from onepass.cache.shards import ShardKind, write_shard_once
from onepass.data.dataset import open_dataset
from onepass.extract.backend import device_kind
from onepass.extract.cluster.alike import noise
from onepass.extract.cluster.messages import Trial, Unit, identity
from onepass.extract.config import ExtractConfig
from onepass.extract.estimate import build_settled
from onepass.extract.jobs import ExtractionJob, make_jobs
from onepass.extract.stream.engine import cut_batches
from onepass.extract.stream.extractor import Extractor
from onepass.extract.stream.worker import ShardTask, compute_shards

load_keras()


def _look(pixels: str) -> Any:
    return to_json(identity(Path(pixels), device_kind()))


def _make_jobs(message: Any) -> Any:
    config = from_json(ExtractConfig, message)
    return to_json(make_jobs(config, open_dataset(config.store, config.dataset)))


def _measure(message: Any) -> Any:
    trial = from_json(Trial, message)
    _kept.clear()  # two models may not fit into the memory
    pixels = _columns(trial.pixels)["pixels"]
    job, extractor = build_settled(trial.job, pixels, trial.batch, trial.new)
    _kept[:] = [(_key(job, extractor.batch, pixels), extractor)]
    return {
        "job": to_json(job),
        **{name: getattr(extractor, name) for name in ("widths", "batch", "devices", "rate")},
    }


def _vectors(message: Any) -> list[np.ndarray]:
    """Return the vectors of some rows, or of a batch of noise where there are none."""
    unit = from_json(Unit, message)
    _kinds(unit)  # the store is seen, as a whole
    extractor, columns = _extractor(unit), _columns(unit.pixels)
    rows = np.array(unit.rows, np.int64)
    if not len(rows):
        columns = noise(unit.batch, columns["pixels"].shape[1:])
        rows = np.arange(unit.batch)
    (batch,) = cut_batches(columns, [(0, rows)], extractor.batch)
    return [np.asarray(array)[: len(rows)] for array in extractor.steps[0](batch)]


def _compute(message: Any) -> str:
    unit = from_json(Unit, message)
    kinds, extractor = _kinds(unit), _extractor(unit)
    missing = tuple(np.array(rows, np.int64) for rows in unit.missing)
    shards = (np.array(unit.rows),)
    task = ShardTask(unit.job, unit.pixels, kinds, unit.folders, unit.batch, shards, missing)

    def commit(file: int, rows: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        new = np.isin(rows, missing[file])
        if new.any():
            arrays = {name: array[new] for name, array in columns.items()}
            write_shard_once(unit.folders[file], kinds[file], arrays)

    return compute_shards(task, extractor, commit, columns=_columns(unit.pixels))


TASKS: dict[str, Callable[[Any], Any]] = {
    "look": _look,
    "make jobs": _make_jobs,
    "measure": _measure,
    "vectors": _vectors,
    "compute": _compute,
}


def _kinds(unit: Unit) -> tuple[ShardKind, ...]:
    return tuple(RowFilePlan.read(folder / "plan.json").kind for folder in unit.folders)


def _columns(pixels: Path) -> dict[str, np.ndarray]:
    """Return the rows of the data set, opened once in this process."""
    stat = pixels.stat()
    return _opened(pixels, stat.st_ino, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def _opened(pixels: Path, inode: int, changed: int) -> dict[str, np.ndarray]:
    return RowFile.open(pixels).columns


_Key = tuple[ExtractionJob, int, tuple[int, ...]]  # job, batch, shape of an image
_kept: list[tuple[_Key, Extractor]] = []  # of the last job


def _key(job: ExtractionJob, batch: int, pixels: np.ndarray) -> _Key:
    """Return what a model is known by; why its engine was chosen, each worker says in figures of its own."""
    return replace(job, why=""), batch, pixels.shape[1:]


def _extractor(unit: Unit) -> Extractor:
    """Return the model, which is built once in this process."""
    pixels = _columns(unit.pixels)["pixels"]
    key = _key(unit.job, unit.batch, pixels)
    if not _kept or _kept[0][0] != key:
        _kept.clear()
        extractor = Extractor.build(unit.job, pixels, unit.batch)
        if extractor.batch != unit.batch:
            raise OnepassError(
                f"its memory holds {extractor.batch} images a step, where {unit.batch} are needed: the bits depend "
                "on it. Choose a smaller --batch"
            )
        _kept.append((key, extractor))
    return _kept[0][1]
