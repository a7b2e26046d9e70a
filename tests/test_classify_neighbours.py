"""The search for nearest rows against a plain sort, and float16 rows told apart from broken ones."""

import numpy as np
import pytest

from onepass.classify.heads.float16 import is_finite_float16, widen
from onepass.classify.heads.neighbours import nearest as module
from onepass.classify.heads.neighbours.knn import Neighbours
from onepass.classify.heads.neighbours.nearest import GROUP, largest, nearest, unit_length


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("length", [5, GROUP * 40, GROUP * 400 + 13])
def test_the_largest_are_those_of_a_full_sort(k: int, length: int) -> None:
    values = np.random.default_rng(k).normal(size=(6, length)).astype(np.float32)
    values[0, -3:] = 9, 8, 10  # in what is left over beyond the groups
    values[1] = np.sort(values[1])
    k = min(k, length)
    np.testing.assert_array_equal(largest(values, k), np.argsort(-values, axis=1)[:, :k])


def test_the_first_of_equal_values_stands_first() -> None:
    values = np.zeros((1, GROUP * 100), np.float32)
    values[0, [5, 900, 17]] = 1
    assert largest(values, 3).tolist() == [[5, 17, 900]]


@pytest.mark.parametrize("count", [300, 40 * GROUP])
def test_the_nearest_rows_are_those_of_a_full_sort(count: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 100 * count)
    points = unit_length(np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32))
    own = np.arange(count)
    rows, cosines = nearest(points, points, 4, own)
    similar = points @ points.T
    np.fill_diagonal(similar, -2)
    exact = np.argsort(-similar, axis=1, kind="stable")[:, :4]
    np.testing.assert_allclose(cosines, similar[own[:, None], exact], rtol=1e-5)
    np.testing.assert_allclose(similar[own[:, None], rows], cosines, rtol=1e-5)


def test_without_own_rows_a_point_finds_itself() -> None:
    points = unit_length(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32))
    rows, cosines = nearest(points, points, 1)
    assert rows[:, 0].tolist() == list(range(50)) and cosines.min() > 0.999


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_float16_number_is_found_anywhere(bad: float) -> None:
    rows = np.random.default_rng(0).normal(size=(5_000, 1_000)).astype(np.float16)
    assert is_finite_float16(rows) and is_finite_float16(rows[::2, 1:])
    assert is_finite_float16(np.full((2, 2), 65504, np.float16))
    rows[4_999, 998] = bad
    assert not is_finite_float16(rows) and not is_finite_float16(rows[1::2])
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        Neighbours().fit(rows, np.arange(5_000) % 3)


def test_every_half_is_known_as_finite_or_not() -> None:
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16)
    assert is_finite_float16(np.zeros((0, 3), np.float16))
    assert [is_finite_float16(halves[i : i + 1, None]) for i in range(len(halves))] == list(
        np.isfinite(halves)
    )


def test_every_half_is_widened_as_numpy_does_it() -> None:
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16).reshape(64, -1)
    finite = np.where(np.isfinite(halves), halves, np.float16(0))
    for rows in (halves, finite, finite[:, ::3], finite[1::2]):
        with np.errstate(invalid="ignore"):
            wide, plain = widen(rows, np.empty(rows.shape, np.float32)), rows.astype(np.float32)
        np.testing.assert_array_equal(wide.view(np.int32), plain.view(np.int32))
        less = np.linspace(-1, 1, rows.shape[1], dtype=np.float32)
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(widen(rows, np.empty_like(wide), less), plain - less)
