"""Images of a source become rows of pixels: decoded once, in order, a few shards at a time."""

import os
import shutil
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.progress import Progress
from onepass.cache.rows import SHARD_BYTES, Column, RowLayout, RowWriter
from onepass.cache.stopping import StopRequest
from onepass.data.config import DEFAULT_FIT, MAX_SIDE, PrepareConfig
from onepass.data.images import decode_row, inspect_image
from onepass.data.sources.base import Item, Survey

RULES = 1  # raise when the same files would become other pixels: decoding, scaling or order changed
TASK_ROWS = 64  # images that a thread takes at a time
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


def survey_images(where: str, items: Sequence[Item]) -> tuple[Survey, dict[str, str]]:
    """Look at the header of every image.

    Args:
        where: What an error calls their source.
        items: The images.

    Returns:
        What they have in common, and what is wrong with those that cannot be used, by name.

    Raises:
        InvalidInputError: None can be used.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    bad: dict[str, str] = {}
    grey = True
    with (
        quiet_bombs(),
        ThreadPoolExecutor(_threads()) as pool,
        Progress(len(items), "images", "looking at headers") as progress,
    ):
        for item, seen in zip(items, pool.map(_inspect, items), strict=True):
            if isinstance(seen, str):
                bad[item.name] = seen
            else:
                sizes[seen[:2]] += 1
                grey = grey and seen[2]
            progress.advance(1)
    if not sizes:
        raise InvalidInputError(
            f"{where}: none of the {len(items)} images can be used: {next(iter(bad.values()), 'no image')}"
        )
    only = next(iter(sizes))
    longest = np.repeat([max(size) for size in sizes], list(sizes.values()))
    return Survey(
        largest=int(longest.max()),
        square=len(sizes) == 1 and only[0] == only[1],
        grey=grey,
        usual=int(np.percentile(longest, 100 * USUAL, method="lower")),
    ), bad


def row_layout(rows: int, geometry: Geometry) -> RowLayout:
    """Return the layout of a file of pixel rows, in shards of about 16 MB."""
    column = Column((geometry.side, geometry.side, geometry.channels), "uint8")
    return RowLayout({"pixels": column}, rows, max(1, SHARD_BYTES // column.row_bytes))


def pixel_inputs(
    identity: dict[str, Any], geometry: Geometry, skipped: Iterable[str]
) -> dict[str, Any]:
    """Return what pixel rows depend on, for the row store."""
    return {
        "kind": "pixels",
        "source": identity,
        "geometry": asdict(geometry),
        "skipped": sorted(skipped),
        "rules": RULES,
    }


def pack_rows(
    items: Sequence[Item],
    geometry: Geometry,
    writer: RowWriter,
    stop: StopRequest,
    *,
    check_only: bool,
) -> dict[str, str]:
    """Decode every image whose shard is missing and commit the shards, in order.

    From the first image that cannot be used, nothing more is written; the others are still
    decoded, so that all bad ones are known in the end.

    Args:
        items: The images; item i is row i.
        geometry: What they are to look like.
        writer: Takes the shards; its rows are the items.
        stop: Asked before each shard; a reason to stop ends the work there.
        check_only: Write nothing.

    Returns:
        What is wrong with the images that cannot be used, by name.
    """
    bad: dict[str, str] = {}
    missing = writer.missing
    ranges = [writer.shard_range(index) for index in missing]
    done = len(items) - sum(end - start for start, end in ranges)
    with quiet_bombs(), Progress(len(items), "images", "packing", done=done) as progress:
        for index, (array, found) in zip(missing, _decoded(items, ranges, geometry), strict=True):
            bad.update(found)
            if not bad and not check_only:
                writer.write(index, {"pixels": array})
            progress.advance(len(array))
            if stop.reason:
                break
    return bad


def drop_parts(writer: RowWriter) -> None:
    """Delete the shards of a run whose rows cannot be finished."""
    shutil.rmtree(writer.folder, ignore_errors=True)


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


def _threads() -> int:
    return min(
        8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def _inspect(item: Item) -> tuple[int, int, bool] | str:
    try:
        return inspect_image(item.read(), item.name)
    except BAD_IMAGE as error:
        return str(error)


def _decoded(
    items: Sequence[Item], ranges: Sequence[tuple[int, int]], geometry: Geometry
) -> Iterator[tuple[np.ndarray, dict[str, str]]]:
    """Yield each range's pixels and bad images; the next range is decoded while one is in use."""
    with ThreadPoolExecutor(_threads()) as pool:
        ahead: deque[tuple[np.ndarray, list[Future]]] = deque()
        for start, stop in ranges:
            ahead.append(_begin(pool, items[start:stop], geometry))
            if len(ahead) > 1:
                yield _collect(*ahead.popleft())
        while ahead:
            yield _collect(*ahead.popleft())


def _begin(
    pool: ThreadPoolExecutor, items: Sequence[Item], geometry: Geometry
) -> tuple[np.ndarray, list[Future]]:
    """Start decoding; the array is filled once all tasks are done."""
    array = np.zeros((len(items), geometry.side, geometry.side, geometry.channels), np.uint8)
    cuts = [slice(low, low + TASK_ROWS) for low in range(0, len(items), TASK_ROWS)]
    return array, [pool.submit(_decode_into, array[cut], items[cut], geometry) for cut in cuts]


def _collect(array: np.ndarray, tasks: list[Future]) -> tuple[np.ndarray, dict[str, str]]:
    bad: dict[str, str] = {}
    for task in tasks:
        bad.update(task.result())
    return array, bad


def _decode_into(rows: np.ndarray, items: Sequence[Item], geometry: Geometry) -> dict[str, str]:
    """Decode images into rows (n, side, side, channels); return what is wrong with the bad ones."""
    bad = {}
    for row, item in zip(rows, items, strict=True):
        try:
            row[:] = _pixels(item, geometry)
        except BAD_IMAGE as error:
            bad[item.name] = str(error)
    return bad


def _pixels(item: Item, geometry: Geometry) -> np.ndarray:
    g = geometry
    return decode_row(item.read(), item.name, g.side, g.channels, g.fit, native=g.native)


@contextmanager
def quiet_bombs() -> Iterator[None]:
    """Silence Pillow's warning of large images: ours is an error, and comes at fewer pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
