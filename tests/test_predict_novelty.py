"""Novelty: distances to what was learnt, calibrated on known rows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from onepass.cache.arrays import pack_arrays
from onepass.cache.errors import UsageError
from onepass.classify.prior import Prior
from onepass.predict import model_folder
from onepass.predict.novelty import NEIGHBOUR, UNLIKE, UNSURE, Novelty, distances_to, sample_rows
from onepass.predict.pixel_models import VectorSpec

SPEC = VectorSpec("tiny", "none:0", 16)


def made(count: int, seed: int, around: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.abs(random.normal(around, 0.3, (count, 16))).astype(np.float16)


def novelty(confidences: np.ndarray | None = None) -> Novelty:
    """Known rows with a highest probability each."""
    shares = np.random.default_rng(9).beta(8, 2, 400) if confidences is None else confidences
    vectors = np.concatenate([made(600, 0), made(400, 1)])
    places = np.arange(1000)
    return Novelty.learn(
        (SPEC,), vectors, places[:600], places[600:], places, shares[:, None], np.zeros(400, int)
    )


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
    reasons = model.abstention(rate).reasons(model.distance({SPEC: made(4000, 2)}), shares)
    assert np.mean([bool(reason) for reason in reasons]) == pytest.approx(rate, abs=0.02)
    assert {UNLIKE, UNSURE} == set(reasons) - {""}


def test_a_known_row_is_measured_to_rows_of_other_units() -> None:
    vectors, units = made(80, 0), np.arange(80) // 4
    places = np.arange(80)
    found = Novelty.learn(
        (SPEC,), vectors, places[:60], places[40:], units, np.zeros((0, 2)), np.zeros(40, int)
    ).distances
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
        none = np.zeros((1, 16), np.float16)
        model = Novelty((SPEC,), none, far[:59], sure[:59, None], np.zeros(59, int))
        reasons = model.abstention(0.1).reasons(far[59:], sure[59:])
        rates.append(np.mean([bool(why) for why in reasons]))
    assert np.mean(rates) == pytest.approx(0.1, abs=0.008)


def test_why_an_answer_is_left_open() -> None:
    model = novelty()
    near, far = np.quantile(model.distances, 0.3), model.distances.max() * 2
    found = model.abstention(0.05).reasons(np.array([near, far, near]), np.array([0.9, 0.9, 0.1]))
    assert found == ["", UNLIKE, UNSURE]
    assert model.abstention(0.0).reasons(np.array([far]), np.array([0.0])) == [""]
    without = novelty(np.zeros(0)).abstention(0.05)  # a model that was trained on every row
    assert without.reasons(np.array([near, far]), np.array([0.1, 0.9])) == ["", UNLIKE]


def drawn(random: np.random.Generator, count: int, share: float) -> tuple[np.ndarray, ...]:
    """Distances, probabilities for a mix of 40 % positive, and the truth, of pictures mixed otherwise."""
    truth = (random.random(count) < share).astype(int)
    odds = np.exp(random.normal(np.where(truth, 1, -1), np.sqrt(2))) * 0.4 / 0.6
    positive = odds / (1 + odds)
    return random.gamma(2 + 3 * truth), np.stack([1 - positive, positive], axis=1), truth


@pytest.mark.parametrize("share", [0.1, 0.8])
def test_the_rate_is_kept_in_another_mix_of_classes(share: float) -> None:
    random, none = np.random.default_rng(4), np.zeros((1, 16), np.float16)
    prior = Prior((0.6, 0.4), (1 - share, share))
    rates, plain = [], []
    for _ in range(60):
        far, probabilities, truth = drawn(random, 1_000, 0.4)
        model = Novelty((SPEC,), none, far, probabilities, truth)
        new, seen, _ = drawn(random, 2_000, share)
        corrected = prior.corrected(seen).max(axis=1)
        for found, mix in ((rates, prior), (plain, None)):
            reasons = model.abstention(0.05, mix).reasons(new, corrected)
            found.append(np.mean([bool(why) for why in reasons]))
    assert np.mean(rates) == pytest.approx(0.05, abs=0.004)
    assert abs(np.mean(plain) - 0.05) > 0.01  # what the promise was worth without it


def test_a_mix_needs_the_probabilities_of_the_known_rows() -> None:
    prior = Prior((0.6, 0.4), (0.9, 0.1))
    with pytest.raises(UsageError, match="export it again"):
        novelty().abstention(0.05, prior)  # the highest only


def test_rows_are_drawn_once_and_for_all() -> None:
    rows = np.arange(100, 200)
    assert np.array_equal(sample_rows(rows, 10), sample_rows(rows, 10))
    assert np.all(np.diff(sample_rows(rows, 10)) > 0) and np.array_equal(
        sample_rows(rows, 100), rows
    )


def test_what_an_earlier_onepass_exported_is_read(tmp_path: Path) -> None:
    now = novelty()
    arrays = {"reference": now.reference.astype(np.float16), "distances": now.distances}
    confidences = now.probabilities[:, 0]
    content = pack_arrays({**arrays, "confidences": confidences})
    (tmp_path / model_folder.NOVELTY).write_bytes(content)
    then = model_folder._novelty(tmp_path, SimpleNamespace(novelty_vectors=(SPEC,)))
    distances, sure = np.quantile(now.distances, [0.1, 0.99, 0.999]), np.array([0.9, 0.3, 0.9])
    expected = now.abstention(0.05).reasons(distances, sure)
    assert then.abstention(0.05).reasons(distances, sure) == expected
