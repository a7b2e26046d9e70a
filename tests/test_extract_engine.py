"""Reader, step and writer: order kept, errors handed on, no thread left behind."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from onepass.extract.stream.engine import PixelBatch, Stream, cut_batches

PIXELS = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2, 1)
SHARDS = [(0, 0, 4), (1, 4, 8), (2, 8, 10)]


def no_thread_is_left() -> bool:
    return not [t for t in threading.enumerate() if t.name in ("reader", "writer")]


def test_batches_never_span_shards_and_are_padded() -> None:
    batches = list(cut_batches(PIXELS, SHARDS, 3))
    assert [(b.shard, b.start, b.stop) for b in batches] == [
        (0, 0, 3),
        (0, 3, 4),
        (1, 4, 7),
        (1, 7, 8),
        (2, 8, 10),
    ]
    assert all(b.pixels.shape == (3, 2, 2, 1) for b in batches)
    np.testing.assert_array_equal(batches[1].pixels, PIXELS[[3, 3, 3]])


def test_every_row_reaches_the_sink_once_and_in_order() -> None:
    got: list[np.ndarray] = []
    stream = Stream(
        lambda batch: [batch.pixels.reshape(len(batch.pixels), -1).astype(np.float32)],
        lambda batch, arrays: got.append(arrays[0]),
    )
    stream.run(cut_batches(PIXELS, SHARDS, 3))
    np.testing.assert_array_equal(np.concatenate(got), PIXELS.reshape(10, -1))
    assert no_thread_is_left()


@pytest.mark.parametrize("slow", ["read", "device", "write"])
def test_the_slowest_part_is_what_bounds_the_run(slow: str) -> None:
    def work(part: str) -> None:
        time.sleep(0.01 if part == slow else 0)

    def reader() -> Iterator[PixelBatch]:
        for batch in cut_batches(PIXELS, SHARDS * 4, 3):
            work("read")
            yield batch

    def step(batch: PixelBatch) -> list[np.ndarray]:
        work("device")
        return [batch.pixels]

    stream = Stream(step, lambda batch, arrays: work("write"))
    stream.run(reader())
    assert stream.bound() == slow


def broken(*_: object) -> None:
    raise RuntimeError("broken on purpose")


def endless() -> object:
    while True:
        yield PixelBatch(0, 0, 1, PIXELS[:1])


@pytest.mark.parametrize("where", ["read", "step", "sink"])
def test_an_error_anywhere_ends_all_and_is_raised_here(where: str) -> None:
    def reader():
        yield from (PixelBatch(0, 0, 1, PIXELS[:1]) for _ in range(5))
        broken()

    stream = Stream(
        broken if where == "step" else lambda batch: [batch.pixels],
        broken if where == "sink" else lambda b, a: None,
    )
    with pytest.raises(RuntimeError, match="on purpose"):
        stream.run(reader() if where == "read" else endless())  # type: ignore[arg-type]
    assert no_thread_is_left()
