"""What is sent to a worker, as JSON, and what it says of itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from onepass.cache.artifacts import from_json, record
from onepass.cache.cluster.identity import Identity
from onepass.cache.rowfile import RowFile
from onepass.extract.jobs import ExtractionJob

ROOMS = ("onepass.cache", "onepass.data", "onepass.extract")  # all that an extraction runs


def identity(pixels: Path, device: str = "") -> Identity:
    """Return what this process is, which can open the pixels.

    Raises:
        OnepassError: It cannot.
    """
    return Identity.here(ROOMS, {f"the file {pixels}": RowFile.open(pixels).digest[:12]}, device)


@record
class Trial:
    """A job whose model is to be built and timed.

    Attributes:
        job: Its engine may be open.
        pixels: The data set's row file.
        batch: Images a step; 0: as many as are fastest.
        new: Images to be computed.
    """

    job: ExtractionJob
    pixels: Path
    batch: int
    new: int


@record
class Unit:
    """Some rows of a job's files.

    Attributes:
        job: What to compute.
        pixels: The data set's row file.
        batch: Images a step.
        folders: Where the shards of each file lie, beside their plan.
        rows: Of the data set; they make up one shard. None stand for a batch of noise.
        missing: For each file, which of them it misses.
    """

    job: ExtractionJob
    pixels: Path
    batch: int
    folders: tuple[Path, ...]
    rows: tuple[int, ...]
    missing: tuple[tuple[int, ...], ...] = ()


def read_job(value: Any) -> ExtractionJob:
    """Return a job that was sent as JSON.

    Raises:
        CorruptFileError: It is none.
    """
    return _restored(from_json(ExtractionJob, value))


def read_trial(value: Any) -> Trial:
    """Return a trial that was sent as JSON."""
    trial = from_json(Trial, value)
    return replace(trial, job=_restored(trial.job))


def read_unit(value: Any) -> Unit:
    """Return a unit that was sent as JSON."""
    unit = from_json(Unit, value)
    return replace(unit, job=_restored(unit.job))


def _restored(job: ExtractionJob) -> ExtractionJob:
    """Return a job whose weights are a word where they were one: JSON does not tell it from a path."""
    source = str(job.weights.source)
    named = source in ("imagenet", "none")
    return replace(job, weights=replace(job.weights, source=source)) if named else job
