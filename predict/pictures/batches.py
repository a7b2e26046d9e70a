"""Pictures are decoded in threads, in order, a little ahead of the device."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from onepass.cache.content import CONTENT_BYTES
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.errors import UnreadableFileError as Unreadable
from onepass.extract.stream.engine import PixelBatch, Stream
from onepass.predict.pictures.addresses import is_address
from onepass.predict.pictures.sources import Picture
from onepass.predict.pixel_classifier import PictureGeometry, PixelClassifier

BAD_PICTURE = (InvalidInputError, CorruptFileError, MissingFileError, Unreadable)
# Pictures that a thread is given at a time: to hand over a small one alone costs half as much as to decode it. An
# address makes its thread wait, so that no other is to wait behind it.
TOGETHER = 8
AHEAD = 3  # times so many, per thread, that are decoded before they are asked for
NO_CONTENTS = np.empty(
    (0, CONTENT_BYTES), np.uint8
)  # a view that is drawn by them asks for them itself


@dataclass(frozen=True, slots=True)
class PictureBatch(PixelBatch):
    """Pictures in their order, those that cannot be used among them; `pixels` holds only the others.

    Attributes:
        pictures: They.
        reasons: Why each cannot be used; "" where it can.
    """

    pictures: tuple[Picture, ...] = ()
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, pictures: Sequence[Picture], reasons: tuple[str, ...], pixels: np.ndarray
    ) -> "PictureBatch":
        """Return some pictures as a batch."""
        usable = np.arange(reasons.count(""))
        return cls(0, usable, NO_CONTENTS, pixels, pictures=tuple(pictures), reasons=reasons)


def decoded_batches(
    pictures: Iterable[Picture], geometry: PictureGeometry, size: int
) -> Iterator[PictureBatch]:
    """Yield batches of `size` pictures; where some cannot be used, and the last, they are filled up with zeros.

    No more than a batch and a few dozen pictures per thread are held at a time, as pixels.
    """
    decoded = _decoded(pictures, geometry)
    while some := list(islice(decoded, size)):
        rows = [row for _, row in some if not isinstance(row, str)]
        pixels = np.zeros((size, *geometry.shape), np.uint8)
        for place, row in zip(pixels, rows, strict=False):
            place[:] = row
        reasons = tuple(row if isinstance(row, str) else "" for _, row in some)
        yield PictureBatch.of([picture for picture, _ in some], reasons, pixels)


# Given a batch, and what the networks give of those of its pictures that can be used; nothing where there are none.
Take = Callable[[PictureBatch, list[np.ndarray]], None]


def forward_stream(classifier: PixelClassifier, take: Take) -> Stream:
    """Return what sends batches through a model's networks, and what these give to `take`, in order."""

    def step(batch: PixelBatch) -> list[np.ndarray]:
        return classifier.forward(batch.pixels) if len(batch.rows) else []

    def sink(batch: PixelBatch, arrays: list[np.ndarray]) -> None:
        assert isinstance(batch, PictureBatch)
        take(batch, arrays)

    return Stream(step, sink)


def _decoded(
    pictures: Iterable[Picture], geometry: PictureGeometry
) -> Iterator[tuple[Picture, np.ndarray | str]]:
    """Yield each picture with its pixels, or the reason why it has none."""
    threads = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
    threads = min(32, (threads or 1) + 2)  # an address makes its thread wait
    with ThreadPoolExecutor(threads, "decoder") as pool:
        ahead: deque[tuple[list[Picture], Future]] = deque()
        try:
            for some in _parcels(pictures):
                ahead.append((some, pool.submit(_pixels, some, geometry)))
                if len(ahead) >= AHEAD * threads:
                    first, future = ahead.popleft()
                    yield from zip(first, future.result(), strict=True)
            while ahead:
                first, future = ahead.popleft()
                yield from zip(first, future.result(), strict=True)
        finally:
            for _, future in ahead:
                future.cancel()


def _parcels(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    some: list[Picture] = []
    for picture in pictures:
        some.append(picture)
        if len(some) == TOGETHER or is_address(picture.name):
            yield some
            some = []
    if some:
        yield some


def _pixels(pictures: list[Picture], geometry: PictureGeometry) -> list[np.ndarray | str]:
    return [pixels_of(picture, geometry) for picture in pictures]


def pixels_of(picture: Picture, geometry: PictureGeometry) -> np.ndarray | str:
    """Return a picture's pixels, or why it has none."""
    try:
        return geometry.pixels(picture.read(), picture.name)
    except BAD_PICTURE as error:
        return str(error).removeprefix(f"{picture.name}: ")
    except MemoryError:
        return "too large for the memory"
