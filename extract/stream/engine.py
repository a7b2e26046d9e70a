"""Reader thread → compiled step → writer thread, with bounded channels between them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onepass.cache.memory_map import release
from onepass.extract.backend import device_failures

DEPTH = 3  # batches read ahead, and results not yet written
# Batches on the device at once: transfer overlaps compute, and each of OpenVINO's two streams has a next one.
IN_FLIGHT = 3
NOTICEABLE = 0.1  # share of the time spent waiting from which a neighbour is what bounds the run


class Channel:
    """A bounded queue between two threads that either of them can end, with or without an error."""

    def __init__(self, depth: int = DEPTH) -> None:
        self.depth = depth
        self.waited_to_put = self.waited_to_get = 0.0  # seconds
        self._items: deque = deque()
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        """Add an item, waiting for room; raises the error the channel failed with."""
        begin = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self.depth or self._error)
            if self._error:
                raise self._error
            self._items.append(item)
            self._changed.notify_all()
        self.waited_to_put += time.monotonic() - begin

    def __iter__(self) -> Iterator[Any]:
        """Yield the items until the channel is closed; raises the error it failed with."""
        while True:
            begin = time.monotonic()
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed or self._error)
                if self._error:
                    raise self._error
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            self.waited_to_get += time.monotonic() - begin
            yield item

    def close(self) -> None:
        """Say that no more items come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Raise this error, or the first one, at both ends; what is still in the queue is dropped."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class PixelBatch:
    """Some rows of one shard.

    Attributes:
        shard: Which of the shards wanted.
        rows: Their numbers in the data set, (n,) int64.
        contents: Their contents, (n, 16) uint8, as they lie beside the pixels.
        pixels: (batch, H, W, C) uint8: n images, padded to the compiled shape with the last of them.
        last: Whether they end the shard.
    """

    shard: int
    rows: np.ndarray
    contents: np.ndarray
    pixels: np.ndarray
    last: bool = True


def cut_batches(
    columns: dict[str, np.ndarray], shards: Iterable[tuple[int, np.ndarray]], batch: int
) -> Iterator[PixelBatch]:
    """Yield the fixed-size batches of some shards, reading each row once.

    A batch never spans two shards, and its place in its shard is fixed, so that the bits of a row
    do not depend on where a run was interrupted.

    Args:
        columns: `pixels` (N, H, W, C) uint8 and `content` (N, 16) uint8.
        shards: Number and rows of each shard wanted.
        batch: Images a batch.
    """
    for number, shard in shards:
        for first in range(0, len(shard), batch):
            rows = shard[first : first + batch]
            pixels = columns["pixels"][rows]
            release(columns["pixels"][rows.min() : rows.max() + 1])
            padding = np.repeat(pixels[-1:], batch - len(rows), axis=0)
            yield PixelBatch(
                number,
                rows,
                columns["content"][rows],
                np.concatenate([pixels, padding]) if len(padding) else pixels,
                first + batch >= len(shard),
            )


BatchStep = Callable[[PixelBatch], list[Any]]


class Stream:
    """Sends batches through the step and hands the results to a sink, in order.

    Args:
        step: The compiled model; what it returns may still be being computed.
        sink: Called in a thread of its own with a batch and its arrays, cut to the real rows.
    """

    def __init__(
        self, step: BatchStep, sink: Callable[[PixelBatch, list[np.ndarray]], None]
    ) -> None:
        self.step, self.sink = step, sink
        self.read, self.results = Channel(), Channel()
        self.started = time.monotonic()

    def run(self, batches: Iterable[PixelBatch]) -> None:
        """Read the batches in a thread of its own, compute, write, and return when all is written.

        Raises:
            DeviceError: The accelerator failed.
            BaseException: Whatever else reader, step or sink raised; both threads have ended then.
        """
        self.started = time.monotonic()
        threads = [
            threading.Thread(target=self._read, args=(batches,), name="reader"),
            threading.Thread(target=self._write, name="writer"),
        ]
        for thread in threads:
            thread.start()
        try:
            self._compute()
        except BaseException as error:
            self.read.fail(error)
            self.results.fail(error)
        for thread in threads:
            thread.join()
        with device_failures():
            list(self.results)  # raises what ended the run early

    def end(self) -> None:
        """Make `run` raise soon: another device of the same job has failed."""
        error = RuntimeError("ended because another device failed")
        self.read.fail(error)
        self.results.fail(error)

    def bound(self) -> str:
        """Return what holds the run up: "read", "write" or "device"."""
        total = max(time.monotonic() - self.started, 1e-9)
        waits = {"read": self.read.waited_to_get, "write": self.results.waited_to_put}
        worst = max(waits, key=lambda name: waits[name])
        return worst if waits[worst] / total > NOTICEABLE else "device"

    def _read(self, batches: Iterable[PixelBatch]) -> None:
        try:
            for batch in batches:
                self.read.put(batch)
            self.read.close()
        except BaseException as error:
            self.read.fail(error)

    def _compute(self) -> None:
        """Fetch a result only when the next batch is on its way: transfer and compute overlap."""
        flying: deque = deque()
        for batch in self.read:
            flying.append((batch, self.step(batch)))
            if len(flying) >= IN_FLIGHT:
                self._fetch(*flying.popleft())
        for item in flying:
            self._fetch(*item)
        self.results.close()

    def _fetch(self, batch: PixelBatch, arrays: list[Any]) -> None:
        self.results.put((batch, [np.asarray(array)[: len(batch.rows)] for array in arrays]))

    def _write(self) -> None:
        try:
            for batch, arrays in self.results:
                self.sink(batch, arrays)
        except BaseException as error:
            self.results.fail(error)
