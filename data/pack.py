"""Images of a source become rows of pixels: those that no file has are decoded, a few shards at a time."""

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from onepass.cache.content import CONTENT_BYTES, content_of, find, source_of
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.progress import Progress
from onepass.cache.rowfile import RowFile
from onepass.cache.rows import SHARD_BYTES, Column, RowWriter, ShardKind
from onepass.cache.stopping import StopRequest
from onepass.data.config import DEFAULT_FIT, MAX_SIDE, PrepareConfig
from onepass.data.images import decode_row
from onepass.data.sources.base import Item, Survey

# Raise when the same files would become other pixels: scaling, order, or decoding by more than a grey level changed.
RULES = 1
TASK_ROWS = 8  # images that a thread takes at a time: a shard of large ones holds few, which all threads share
SMALL = 128  # px: images that one thread decodes as fast as two
USUAL = 0.95  # of the images decide the size of all
# An image that the system refuses to read is none of these: it may be whole, so that it ends the work.
BAD_IMAGE = (InvalidInputError, CorruptFileError, MissingFileError)


@dataclass(frozen=True, slots=True)
class Geometry:
    """What every row will look like.

    Attributes:
        side: Height and width (px).
        channels: 1 (grey) or 3 (RGB).
        fit: As in `fit_image`, or "square" where all images are squares of one size.
        native: Size that every image has where `fit` is "square" (px); else 0.
    """

    side: int
    channels: int
    fit: str
    native: int

    @classmethod
    def choose(
        cls, survey: Survey, config: PrepareConfig, before: "Geometry | None" = None
    ) -> "Geometry":
        """Return the geometry for images as surveyed.

        The flags decide. What they leave open stays as it is where the data set was prepared before,
        and else follows the bulk of the images, so that one large image does not enlarge all others.
        Squares of one size are neither cut nor padded.
        """
        if before and config.max_side is None:
            side = before.side
        else:
            side = min(config.max_side or MAX_SIDE, survey.usual or survey.largest)
        channels = int(config.channels or (before.channels if before else 1 if survey.grey else 3))
        if survey.square:
            return cls(side, channels, "square", survey.largest)
        kept = before.fit if before and before.fit != "square" else DEFAULT_FIT
        return cls(side, channels, config.fit_and_pad or kept, 0)

    def __str__(self) -> str:
        kind = "RGB" if self.channels == 3 else "grey"
        return f"{self.side} x {self.side} px, {kind}" + (
            f", {self.fit}" if not self.native else ""
        )


def geometry_note(geometry: Geometry, survey: Survey, fresh: Geometry) -> str:
    """Say what a person would not expect of the geometry; "" for nothing.

    Args:
        geometry: That of the rows.
        survey: What the images have in common.
        fresh: What it would be had nothing been prepared before.
    """
    if geometry != fresh:
        return (
            f"{geometry}, as prepared before (by the images {fresh}); --max-side, --fit, --pad and "
            "--channels change it"
        )
    if geometry.side < survey.largest and geometry.side == survey.usual:
        return (
            f"{geometry.side} px, which {USUAL:.0%} of the images do not exceed; the others are scaled down, "
            f"the largest from {survey.largest:,} px"
        )
    return ""


def pixel_kind(geometry: Geometry) -> ShardKind:
    """Return what shards of pixel rows hold, and how they are made."""
    columns = {
        "pixels": Column((geometry.side, geometry.side, geometry.channels), "uint8"),
        "content": Column((CONTENT_BYTES,), "uint8"),
        "source": Column((CONTENT_BYTES,), "uint8"),
    }
    recipe = {"kind": "pixels", "geometry": asdict(geometry), "rules": RULES}
    return ShardKind(columns, "source", recipe)


def shard_rows(geometry: Geometry) -> int:
    """Return how many rows of pixels a shard of about 16 MB has."""
    return max(1, SHARD_BYTES // (geometry.side * geometry.side * geometry.channels))


def may_give(rows: RowFile, geometry: Geometry, source: np.ndarray, square: np.ndarray) -> bool:
    """Tell whether a file's pixel rows are those that decoding the same images would give.

    Images that are no squares are so only where they were fitted in the same way.

    Args:
        rows: A finished file of pixel rows.
        geometry: What the rows are to look like.
        source: (N, 16) uint8, digests of the encoded images.
        square: (N,) bool, whether each is a square.
    """
    theirs = rows.inputs.get("geometry", {})
    alike = all(theirs.get(key) == getattr(geometry, key) for key in ("side", "channels"))
    if not alike or rows.inputs.get("rules") != RULES or "source" not in rows.columns:
        return False
    return theirs.get("fit") == geometry.fit or bool(
        square[find(rows.columns["source"], source) >= 0].all()
    )


def decode_missing(
    items: Sequence[Item], geometry: Geometry, writer: RowWriter, stop: StopRequest, workers: int
) -> dict[str, str]:
    """Decode every image whose row exists nowhere yet and commit the rows, a shard at a time.

    Args:
        items: The images; item i is the writer's position i.
        geometry: What they are to look like.
        writer: Takes the rows.
        stop: Asked before each shard; a reason to stop ends the work there.
        workers: Threads.

    Returns:
        What is wrong with the images that cannot be used, by name. The others are kept.
    """
    bad: dict[str, str] = {}
    missing = writer.missing
    total = sum(map(len, missing))
    with quiet_bombs(), Progress(total, "images", "packing") as progress:
        parts = [[items[position] for position in part] for part in missing]
        for positions, part, rows in zip(
            missing, parts, decoded(parts, geometry, workers), strict=True
        ):
            pixels, source, found = rows
            good = np.array([item.name not in found for item in part])
            bad.update(found)
            if good.any():
                pixels, source = pixels[good], source[good]
                arrays = {"pixels": pixels, "content": content_of(pixels), "source": source}
                writer.write(positions[good], arrays)
            progress.advance(len(positions))
            if stop.reason:
                break
    return bad


def refused(where: str, total: int, bad: dict[str, str]) -> InvalidInputError:
    """Return the error that names the images that cannot be used."""
    first = "; ".join(
        why if why.startswith(name) else f"{name}: {why}" for name, why in list(bad.items())[:3]
    )
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    return InvalidInputError(
        f"{where}: {len(bad)} of {total:,} images cannot be used: {first}{more}. Nothing was prepared; "
        "repair or remove them, or leave them out with --on-bad skip"
    )


def source_digest(content: bytes | np.ndarray) -> np.ndarray:
    """Return the digest of an encoded file, or of pixels that come without one, (16,) uint8."""
    if isinstance(content, np.ndarray):
        return source_of(f"{content.shape} ".encode() + np.ascontiguousarray(content).tobytes())
    return source_of(content)


def cores() -> int:
    """Return how many cores this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def threads(longest: int = MAX_SIDE) -> int:
    """Return how many threads of this process read, or decode images of a size (px): a core each, at most 8.

    Two that decode small images wait for one another wherever Python is at work: at 64 px they take 1.4 times as long as
    one, at 128 px as long (`benchmarks/threads.py`).
    """
    return min(8, cores()) if longest > SMALL else 1


Decoded = tuple[np.ndarray, np.ndarray, dict[str, str]]  # pixels, sources, what is wrong with which


def decoded(
    parts: Sequence[Sequence[Item]], geometry: Geometry, workers: int | None = None
) -> Iterator[Decoded]:
    """Yield what each part's images became; the next part is decoded while one is in use.

    Args:
        parts: Images that are decoded together.
        geometry: Of their rows.
        workers: Threads; as many as there are cores, but one for small squares, where none are named.
    """
    with ThreadPoolExecutor(workers or threads(geometry.native or MAX_SIDE)) as pool:
        ahead: deque[tuple[np.ndarray, np.ndarray, list[Future]]] = deque()
        for items in parts:
            ahead.append(_begin(pool, items, geometry))
            if len(ahead) > 1:
                yield _collect(*ahead.popleft())
        while ahead:
            yield _collect(*ahead.popleft())


def _begin(
    pool: ThreadPoolExecutor, items: Sequence[Item], geometry: Geometry
) -> tuple[np.ndarray, np.ndarray, list[Future]]:
    """Start decoding; the arrays are filled once all tasks are done."""
    pixels = np.zeros((len(items), geometry.side, geometry.side, geometry.channels), np.uint8)
    source = np.zeros((len(items), CONTENT_BYTES), np.uint8)
    cuts = [slice(low, low + TASK_ROWS) for low in range(0, len(items), TASK_ROWS)]
    tasks = [pool.submit(_decode_into, pixels[c], source[c], items[c], geometry) for c in cuts]
    return pixels, source, tasks


def _collect(pixels: np.ndarray, source: np.ndarray, tasks: list[Future]) -> Decoded:
    bad: dict[str, str] = {}
    for task in tasks:
        bad.update(task.result())
    return pixels, source, bad


def _decode_into(
    pixels: np.ndarray, source: np.ndarray, items: Sequence[Item], geometry: Geometry
) -> dict[str, str]:
    """Decode images into rows (n, side, side, channels) and digest their files into (n, 16).

    Returns:
        What is wrong with the bad ones, by name.
    """
    bad = {}
    for row, item in enumerate(items):
        try:
            content = item.read()
            source[row] = source_digest(content)
            pixels[row] = _pixels(content, item.name, geometry)
        except BAD_IMAGE as error:
            bad[item.name] = str(error)
    return bad


def _pixels(content: bytes | np.ndarray, name: str, geometry: Geometry) -> np.ndarray:
    g = geometry
    return decode_row(content, name, g.side, g.channels, g.fit, native=g.native)


@contextmanager
def quiet_bombs() -> Iterator[None]:
    """Silence Pillow's warning of large images: ours is an error, and comes at fewer pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
