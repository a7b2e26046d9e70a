"""Reader, step and writer: order kept, errors handed on, no thread left behind."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from onepass.cache.errors import DeviceError
from onepass.extract.stream.engine import PixelBatch, Stream, cut_batches

PIXELS = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2, 1)
COLUMNS = {
    "pixels": PIXELS,
    "content": np.repeat(np.arange(10, dtype=np.uint8), 16).reshape(10, 16),
}
SHARDS = [(0, np.array([0, 1, 2, 3])), (1, np.array([9, 4, 6, 5])), (2, np.array([7, 8]))]
ORDER = [0, 1, 2, 3, 9, 4, 6, 5, 7, 8]


def no_thread_is_left() -> bool:
    return not [t for t in threading.enumerate() if t.name in ("reader", "writer")]


def test_batches_never_span_shards_and_are_padded() -> None:
    batches = list(cut_batches(COLUMNS, SHARDS, 3))
    assert [(b.shard, b.rows.tolist(), b.last) for b in batches] == [
        (0, [0, 1, 2], False), (0, [3], True), (1, [9, 4, 6], False), (1, [5], True), (2, [7, 8], True),
    ]  # fmt: skip
    assert all(b.pixels.shape == (3, 2, 2, 1) for b in batches)
    np.testing.assert_array_equal(batches[1].pixels, PIXELS[[3, 3, 3]])
    np.testing.assert_array_equal(batches[2].pixels, PIXELS[[9, 4, 6]])


def test_contents_are_those_that_lie_beside_the_pixels() -> None:
    """So that a batch of a file that was replaced meanwhile says of which images it is."""
    (batch, *_) = cut_batches(COLUMNS, [(0, np.array([9, 4]))], 3)
    assert batch.contents[:, 0].tolist() == [9, 4]


def test_every_row_reaches_the_sink_once_and_in_order() -> None:
    got: list[np.ndarray] = []
    stream = Stream(
        lambda batch: [batch.pixels.reshape(len(batch.pixels), -1).astype(np.float32)],
        lambda batch, arrays: got.append(arrays[0]),
    )
    stream.run(cut_batches(COLUMNS, SHARDS, 3))
    np.testing.assert_array_equal(np.concatenate(got), PIXELS[ORDER].reshape(10, -1))
    assert no_thread_is_left()


@pytest.mark.parametrize("slow", ["read", "device", "write"])
def test_the_slowest_part_is_what_bounds_the_run(slow: str) -> None:
    def work(part: str) -> None:
        time.sleep(0.01 if part == slow else 0)

    def reader() -> Iterator[PixelBatch]:
        for batch in cut_batches(COLUMNS, SHARDS * 4, 3):
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
        yield PixelBatch(0, np.arange(1), COLUMNS["content"][:1], PIXELS[:1])


@pytest.mark.parametrize("where", ["read", "step", "sink"])
def test_an_error_anywhere_ends_all_and_is_raised_here(where: str) -> None:
    def reader():
        yield from (
            PixelBatch(0, np.arange(1), COLUMNS["content"][:1], PIXELS[:1]) for _ in range(5)
        )
        broken()

    stream = Stream(
        broken if where == "step" else lambda batch: [batch.pixels],
        broken if where == "sink" else lambda b, a: None,
    )
    with pytest.raises(RuntimeError, match="on purpose"):
        stream.run(reader() if where == "read" else endless())  # type: ignore[arg-type]
    assert no_thread_is_left()


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_a_device_that_fails_is_one_line_and_our_own_mistakes_are_not(backend: str) -> None:
    said = "INTERNAL: CUDA error: : CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure\nmore"

    def failing(error: Exception):
        def step(batch: PixelBatch) -> list:
            raise error

        return Stream(step, lambda b, a: None)

    def error_of(text: str) -> Exception:
        if backend == "jax":
            return pytest.importorskip("jax").errors.JaxRuntimeError(text)
        return pytest.importorskip("tensorflow").errors.InternalError(None, None, text)

    with pytest.raises(DeviceError, match=r"LAUNCH_FAILED.*run the same command again") as caught:
        failing(error_of(said)).run(endless())
    assert "\n" not in str(caught.value) and type(caught.value.__cause__) is type(error_of(said))
    wrong = error_of("INVALID_ARGUMENT: expected 3 arguments, received 2")
    with pytest.raises(type(wrong)):
        failing(wrong).run(endless())
