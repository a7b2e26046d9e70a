"""One look at each image of a source: what file it is, how large, and whether it is known already."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from onepass.cache.content import CONTENT_BYTES, find
from onepass.cache.errors import InvalidInputError
from onepass.cache.progress import Progress
from onepass.data.images import inspect_image
from onepass.data.manifest import GREY, IMAGE_SIZE, SOURCE, STAMP, Manifest
from onepass.data.pack import BAD_IMAGE, TASK_ROWS, USUAL, quiet_bombs, source_digest, threads
from onepass.data.sources.base import Item, Survey

if TYPE_CHECKING:
    from onepass.data.cluster.decoders import Decoders


# Seconds an image: two threads take longer than one where Python is at work, and half as long with large files
# (`benchmarks/threads.py`) or where a network is waited for.
QUICK = 0.0005


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of N images before any is decoded.

    Attributes:
        source: (N, 16) uint8, digest of the encoded file; zeros of a bad image.
        size: (N, 2) int32, width and height by the header (px).
        grey: (N,) bool.
        stamp: (N, 16) uint8, zeros where only reading tells whether the file is as it was.
        bad: What is wrong with those that cannot be used, by name.
        read: How many were read.
    """

    source: np.ndarray
    size: np.ndarray
    grey: np.ndarray
    stamp: np.ndarray
    bad: dict[str, str]
    read: int

    @property
    def square(self) -> np.ndarray:
        """(N,) bool, whether width and height are the same."""
        return self.size[:, 0] == self.size[:, 1]

    def survey(self, where: str) -> Survey:
        """Return what the images have in common.

        Raises:
            InvalidInputError: None of them can be used.
        """
        usable = np.any(self.size > 0, axis=1)
        if not usable.any():
            raise InvalidInputError(
                f"{where}: none of the {len(usable)} images can be used: "
                f"{next(iter(self.bad.values()), 'no image')}"
            )
        sizes = Counter(map(tuple, self.size[usable].tolist()))
        only = next(iter(sizes))
        longest = self.size[usable].max(axis=1)
        return Survey(
            largest=int(longest.max()),
            square=len(sizes) == 1 and only[0] == only[1],
            grey=bool(self.grey[usable].all()),
            usual=int(np.percentile(longest, 100 * USUAL, method="lower")),
        )


def look_at(
    items: Sequence[Item],
    before: Manifest | None,
    *,
    rehash: bool = False,
    alike: Survey | None = None,
    decoders: "Decoders | None" = None,
) -> Look:
    """Read each image that is not known to be as it was, and digest it.

    Args:
        items: The images.
        before: The data set as it was prepared before: a file whose stamp it has is not read.
        rehash: Read every file, whatever its stamp.
        alike: Of a source whose images are all alike; spares the look at their headers.
        decoders: The workers that read them; None: this process does.
    """
    stamps = [item.stamp or bytes(CONTENT_BYTES) for item in items]
    stamp = np.frombuffer(b"".join(stamps), np.uint8).reshape(-1, CONTENT_BYTES)
    look = Look(
        source=np.zeros((len(items), CONTENT_BYTES), np.uint8),
        size=np.zeros((len(items), 2), np.int32),
        grey=np.zeros(len(items), bool),
        stamp=stamp,
        bad={},
        read=0,
    )
    unread = np.ones(len(items), bool)
    if before and not rehash and {STAMP, SOURCE, IMAGE_SIZE, GREY} <= set(before.columns):
        known = before.columns
        row = find(known[STAMP], stamp)
        unread = (row < 0) | ~stamp.any(axis=1)
        seen = row[~unread]
        look.source[~unread], look.size[~unread] = known[SOURCE][seen], known[IMAGE_SIZE][seen]
        look.grey[~unread] = known[GREY][seen]
    _read(items, np.flatnonzero(unread), look, alike, decoders)
    return Look(look.source, look.size, look.grey, stamp, look.bad, int(unread.sum()))


Seen = (
    tuple[bytes, int, int, bool] | str
)  # digest, width, height (px), is it grey; or what is wrong


def read_images(
    items: Sequence[Item], alike: Survey | None, workers: int | None = None
) -> Iterator[Seen]:
    """Read images, and yield what each is.

    Args:
        items: The images.
        alike: As in `look_at`.
        workers: Threads; where none are named as many as there are cores, but one where files are small and at hand.
    """

    def read(item: Item) -> Seen:
        try:
            content = item.read()
            if alike:
                return source_digest(content).tobytes(), alike.largest, alike.largest, alike.grey
            return source_digest(content).tobytes(), *inspect_image(content, item.name)
        except BAD_IMAGE as error:
            return str(error)

    # To hand a small file to a thread costs as much as reading it.
    def read_some(low: int) -> list[Seen]:
        return [read(item) for item in items[low : low + TASK_ROWS]]

    with quiet_bombs():
        first = read_some(0)  # Pillow loads its formats now
        begin = time.perf_counter()
        first += read_some(TASK_ROWS)
        quick = time.perf_counter() - begin < QUICK * TASK_ROWS
        with ThreadPoolExecutor(workers or (1 if quick else threads())) as pool:
            rest = pool.map(read_some, range(2 * TASK_ROWS, len(items), TASK_ROWS))
            yield from chain(first, chain.from_iterable(rest))


def _read(
    items: Sequence[Item], positions: np.ndarray, look: Look, alike: Survey | None,
    decoders: "Decoders | None",
) -> None:  # fmt: skip
    if not len(positions):
        return
    bad: dict[int, str] = {}

    def keep(which: np.ndarray, seen: Iterable[Seen]) -> None:
        for position, one in zip(which.tolist(), seen, strict=True):
            if isinstance(one, str):
                bad[position] = one
            else:
                digest, width, height, look.grey[position] = one
                look.source[position] = np.frombuffer(digest, np.uint8)
                look.size[position] = width, height

    with Progress(len(positions), "images", "looking at files") as progress:
        if decoders and decoders.pay(len(positions)):
            decoders.look(positions, alike, progress, keep)
        else:
            some = [items[position] for position in positions]
            keep(positions, _counted(read_images(some, alike), progress))
    look.bad.update((items[position].name, bad[position]) for position in sorted(bad))


def _counted(seen: Iterable[Seen], progress: Progress) -> Iterator[Seen]:
    for one in seen:
        yield one
        progress.advance(1)
