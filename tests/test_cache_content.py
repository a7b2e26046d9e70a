"""Contents are equal where pixels are, and are found whatever their bytes."""

import numpy as np
import pytest

from onepass.cache.content import CONTENT_BYTES, content_of, find, first_of_each, source_of


def test_content_is_of_pixels_and_shape() -> None:
    pixels = np.arange(4 * 6 * 1, dtype=np.uint8).reshape(1, 4, 6, 1)
    (content,) = content_of(pixels)
    assert content.shape == (CONTENT_BYTES,)
    assert np.array_equal(content_of(np.repeat(pixels, 2, axis=0))[1], content)
    assert not np.array_equal(content_of(pixels.reshape(1, 6, 4, 1))[0], content)
    assert not np.array_equal(content_of(pixels + 1)[0], content)


def test_content_stays_what_it_is() -> None:
    """Stored files carry it: another value would mean that every vector is computed again."""
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert content_of(pixels)[0].tobytes().hex() == "5fb4a6da6038d643535f5158f057b706"
    assert source_of(b"onepass").tobytes().hex() == "3904756ffd1c8c829a6a4298db038d27"


def test_find_with_zeros_at_both_ends() -> None:
    known = np.zeros((3, CONTENT_BYTES), np.uint8)
    known[1, -1], known[2, 0] = 1, 1
    assert find(known, known[[2, 0, 1, 2]]).tolist() == [2, 0, 1, 2]
    assert find(known, known[:1] + 9).tolist() == [-1]
    assert find(known[:0], known).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("seed", range(3))
def test_first_of_each(seed: int) -> None:
    draws = np.random.default_rng(seed).integers(0, 20, 100)
    contents = np.repeat(draws[:, None], CONTENT_BYTES, axis=1).astype(np.uint8)
    expected = [draws.tolist().index(draw) for draw in draws]
    assert first_of_each(contents).tolist() == expected
