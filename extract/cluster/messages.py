"""What is sent to a worker, as JSON, and what it says of itself."""

from pathlib import Path

from onepass.cache.artifacts import record
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
