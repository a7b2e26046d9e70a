"""Novelty: distances to what was learnt, calibrated on the selection rows."""

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
    return Novelty.learn((SPEC,), made(600, 0), made(400, 1), shares)


def test_the_distance_is_that_to_the_kth_nearest_by_cosine() -> None:
    reference, vectors = made(50, 0).astype(float), made(7, 1).astype(float)
    cosines = (vectors @ reference.T) / np.outer(
        np.linalg.norm(vectors, axis=1), np.linalg.norm(reference, axis=1)
    )
    expected = 1 - np.sort(cosines, axis=1)[:, -NEIGHBOUR]
    lengths = np.linalg.norm(reference, axis=1, keepdims=True)
    found = distances_to((reference / lengths).astype(np.float16), vectors)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    one = distances_to(reference[:1] / lengths[:1], vectors)  # fewer than k
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
