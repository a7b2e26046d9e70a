"""Novelty: distances to what was learnt, calibrated on known rows."""

import numpy as np
import pytest

from onepass.predict.novelty import NEIGHBOUR, UNLIKE, UNSURE, Novelty, distances_to, sample_rows
from onepass.predict.pixel_models import VectorSpec

SPEC = VectorSpec("tiny", "none:0", 16)


def made(count: int, seed: int, around: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.abs(random.normal(around, 0.3, (count, 16))).astype(np.float16)


def novelty(confidences: np.ndarray | None = None) -> Novelty:
    shares = np.random.default_rng(9).beta(8, 2, 400) if confidences is None else confidences
    vectors = np.concatenate([made(600, 0), made(400, 1)])
    places = np.arange(1000)
    return Novelty.learn((SPEC,), vectors, places[:600], places[600:], places, shares)


def test_the_distance_is_that_to_the_kth_nearest_by_cosine() -> None:
    reference, vectors = made(50, 0).astype(float), made(7, 1).astype(float)
    cosines = (vectors @ reference.T) / np.outer(
        np.linalg.norm(vectors, axis=1), np.linalg.norm(reference, axis=1)
    )
    expected = 1 - np.sort(cosines, axis=1)[:, -NEIGHBOUR]
    lengths = np.linalg.norm(reference, axis=1, keepdims=True)
    found = distances_to((reference / lengths).astype(np.float32), vectors)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    one = distances_to((reference[:1] / lengths[:1]).astype(np.float32), vectors)  # fewer than k
    np.testing.assert_allclose(one, 1 - cosines[:, 0], atol=1e-3)


def test_novelty_is_the_share_of_known_pictures_that_are_nearer() -> None:
    model = novelty()
    known = model.novelty(model.distance({SPEC: made(2000, 2)}))
    assert np.quantile(known, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.08)
    strange = made(20, 3)
    strange[:, ::2] = 0
    assert np.all(model.novelty(model.distance({SPEC: strange})) == 1)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.2])
def test_known_pictures_are_left_open_at_the_rate_that_was_asked_for(rate: float) -> None:
    model = novelty()
    shares = np.random.default_rng(10).beta(8, 2, 4000)
    reasons = model.reasons(model.distance({SPEC: made(4000, 2)}), shares, rate)
    assert np.mean([bool(reason) for reason in reasons]) == pytest.approx(rate, abs=0.02)
    assert {UNLIKE, UNSURE} == set(reasons) - {""}


def test_a_known_row_is_measured_to_rows_of_other_units() -> None:
    vectors, units = made(80, 0), np.arange(80) // 4
    places = np.arange(80)
    found = Novelty.learn((SPEC,), vectors, places[:60], places[40:], units, np.zeros(0)).distances
    unit = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    for row, distance in zip(places[40:], found, strict=True):
        others = places[:60][units[:60] != units[row]]
        expected = 1 - np.sort(unit[others] @ unit[row])[-NEIGHBOUR]
        assert distance == pytest.approx(expected, abs=1e-3)


def test_few_known_rows_keep_the_rate_on_average() -> None:
    """Each of both rules takes its share, and a new picture is one more among the known rows."""
    rates, random = [], np.random.default_rng(0)
    for _ in range(400):
        far, sure = random.random((2, 1059)).astype(np.float32)
        model = Novelty((SPEC,), np.zeros((1, 16), np.float16), far[:59], sure[:59])
        rates.append(np.mean([bool(why) for why in model.reasons(far[59:], sure[59:], 0.1)]))
    assert np.mean(rates) == pytest.approx(0.1, abs=0.008)


def test_why_an_answer_is_left_open() -> None:
    model = novelty()
    near, far = np.quantile(model.distances, 0.3), model.distances.max() * 2
    assert model.reasons(np.array([near, far, near]), np.array([0.9, 0.9, 0.1]), 0.05) == [
        "", UNLIKE, UNSURE,
    ]  # fmt: skip
    assert model.reasons(np.array([far]), np.array([0.0]), 0.0) == [""]
    without = novelty(np.zeros(0))  # a model that was trained on every row
    assert without.reasons(np.array([near, far]), np.array([0.1, 0.9]), 0.05) == ["", UNLIKE]


def test_rows_are_drawn_once_and_for_all() -> None:
    rows = np.arange(100, 200)
    assert np.array_equal(sample_rows(rows, 10), sample_rows(rows, 10))
    assert np.all(np.diff(sample_rows(rows, 10)) > 0) and np.array_equal(
        sample_rows(rows, 100), rows
    )
