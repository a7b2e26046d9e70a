"""`predict --prior`: answers for another mix of classes than that of the training images."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from onepass.cache.errors import InvalidInputError, OnepassError, UnknownNameError, UsageError
from onepass.classify.config import ClassifyConfig
from onepass.classify.goals import parse_goal
from onepass.classify.leaderboard.prediction_record import PredictionRecord
from onepass.classify.metrics import detection, log_loss, log_probabilities
from onepass.classify.operating_points import (
    OperatingPoint,
    called_positive,
    least_cost,
    mean_cost,
    operating_point,
)
from onepass.classify.pipeline import run_probes
from onepass.classify.prior import Prior, parse_prior
from onepass.classify.text import operating_point_text
from onepass.predict.config import ExportConfig, ModelsConfig, PredictConfig
from onepass.predict.models import load_predictor
from onepass.predict.split import predict_split
from onepass.predict.text import predict_text

YES, LEARNT = ("yes", "defective"), (0.5, 0.3, 0.2)


def parsed(text: str) -> Prior:
    return parse_prior(text, ["a", "b", "c"], ["ant", "bee", "a:b, c"], LEARNT)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("bee:0.1", (0.5 / 0.7 * 0.9, 0.1, 0.2 / 0.7 * 0.9)),
        ("b:.1,ant:0.7,c:0.2", (0.7, 0.1, 0.2)),
        ("a:b, c:0.5,bee:0.25", (0.25, 0.25, 0.5)),
    ],
)
def test_shares_are_given_by_name_or_id_and_the_rest_keeps_its_proportions(text, used) -> None:
    assert parsed(text).learnt == LEARNT
    assert parsed(text).used == pytest.approx(used)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bee", "such as ant:0.02, or estimate"),
        ("bee:0.1,", "such as ant:0.02, or estimate"),
        ("bee:-0.1", "such as ant:0.02, or estimate"),
        ("bee:0", "shares above 0 that leave some of 1"),
        ("bee:1", "leave some of 1 to the other classes"),
        ("bee:0.1,b:0.2", "expected each class once"),
        ("a:0.5,b:0.3,c:0.1", "add up to 1"),
        ("wasp:0.1", "class 'wasp' is unknown"),
    ],
)
def test_shares_that_make_no_mix_are_refused(text: str, says: str) -> None:
    with pytest.raises((UsageError, UnknownNameError), match=says):
        parsed(text)


def images(rng: np.random.Generator, shares: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of images of three classes, and their true probabilities for the mix `LEARNT`."""
    truth = rng.choice(3, count, p=shares)
    seen = rng.normal(np.eye(3)[truth], 0.6)
    likelihood = np.exp(-(((seen[:, None] - np.eye(3)) / 0.6) ** 2).sum(axis=2) / 2)
    found = likelihood * LEARNT
    return truth, (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def test_the_mix_is_estimated_and_probabilities_corrected_to_it_are_the_better_ones() -> None:
    rng, shares = np.random.default_rng(0), (0.1, 0.85, 0.05)
    truth, probabilities = images(rng, shares, 4_000)
    unknown = Prior(LEARNT, ())
    prior = unknown.settled(probabilities)
    assert prior.used == pytest.approx(shares, abs=0.02) and prior.estimated_on == 4_000
    assert prior.settled(probabilities[:5]) is prior
    found = [log_loss(truth, log_probabilities(p)) for p in (probabilities, prior.corrected(probabilities))]  # fmt: skip
    assert found[1] < 0.8 * found[0]
    with pytest.raises(
        InvalidInputError, match=r"at least 50 images .* of 3 classes on, received 49"
    ):
        unknown.settled(probabilities[:49])


def test_an_image_that_is_of_one_class_for_certain_stays_so_in_any_mix() -> None:
    certain = np.repeat(np.eye(3, dtype=np.float32)[:1], 60, axis=0)
    prior = Prior(LEARNT, ()).settled(certain)
    np.testing.assert_array_equal(prior.corrected(np.eye(3, dtype=np.float32)), np.eye(3))


def test_a_point_calls_the_same_images_positive_in_any_mix() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet((0.3, 0.1), 2_000).astype(np.float32)
    point = OperatingPoint(parse_goal("sensitivity=0.9"), "b", "bee", 0.25, 9, 9, None, None)
    expected = point.decide(probabilities, ["a", "b"])
    for share in (0.001, 0.3, 0.99):
        prior = parse_prior(f"b:{share}", ["a", "b"], ["ant", "bee"], (0.75, 0.25))
        moved = OperatingPoint(
            point.goal, "b", "bee", 0.25, 9, 9, None, None, prior_odds=prior.odds(1)
        )
        corrected = prior.corrected(probabilities)
        np.testing.assert_array_equal(moved.decide(corrected, ["a", "b"]), expected)
        exact = np.where(corrected[:, 1] >= moved.threshold_in_use, 1, 0)
        assert np.mean(exact == expected) > 0.995  # but for the rounding to half precision
        assert f"from a probability of {moved.threshold_in_use:.3g} on" in operating_point_text(moved)  # fmt: skip


def test_odds_need_the_others_in_their_proportions() -> None:
    assert parsed("bee:0.1").odds(1) == pytest.approx(0.1 / 0.9 * 0.7 / 0.3)
    with pytest.raises(UsageError, match="the share of the positive class alone"):
        parsed("bee:0.1").odds(0)


def drawn(rng: np.random.Generator, n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities for a mix of 40 % positive images, and the truth, of images mixed otherwise."""
    truth = rng.random(n) < share
    odds = np.exp(rng.normal(np.where(truth, 2, -2), 2)) * 0.4 / 0.6
    return odds / (1 + odds), truth


def test_a_precision_is_promised_for_the_mix_in_use() -> None:
    rng, share = np.random.default_rng(2), 0.1
    odds, wrong, plain = (share / (1 - share)) / (0.4 / 0.6), [], []
    for _ in range(100):
        selection, new = drawn(rng, 2_000, 0.4), drawn(rng, 4_000, share)
        for found, asked in ((wrong, odds), (plain, 1.0)):
            point = operating_point(parse_goal("precision=0.8"), YES, selection, None, asked)
            precision = detection(new[1], called_positive(new[0], point.threshold)).precision.value
            found.append(0 if precision is None else 1 - precision)
    assert 0.1 < np.mean(wrong) <= 0.2 < 0.4 < np.mean(plain)


def test_the_cost_is_least_for_the_mix_in_use() -> None:
    rng, share, goal = np.random.default_rng(3), 0.02, parse_goal("cost=FP:1,FN:20")
    odds = (share / (1 - share)) / (0.4 / 0.6)
    selection, new = drawn(rng, 4_000, 0.4), drawn(rng, 20_000, share)
    point = operating_point(goal, YES, selection, selection, odds)
    plain = least_cost(goal, selection[0], selection[1])
    cost = [mean_cost(goal, detection(new[1], called_positive(new[0], t))) for t in (point.threshold, plain)]  # fmt: skip
    assert cost[0] < 0.5 * cost[1]
    assert point.validation and mean_cost(goal, point.validation, odds) == pytest.approx(cost[0], rel=0.2)  # fmt: skip
    assert "at the mix in use; mean cost" in operating_point_text(point)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Digits of ten classes, and a leaderboard whose winner has an operating point for the eights."""
    folder = tmp_path_factory.mktemp("prior")
    data = digits()
    write_features(folder / "store", write_dataset(folder / "store", data), data.X)
    places = {"cache_dir": folder / "store", "runs_dir": folder / "runs"}
    asked = {"at": "specificity=0.9", "positive": "digit 8"}
    run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), **asked, **places))
    return places


def test_predictions_of_a_split_are_for_the_mix_and_say_so(made, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"models": (NAME,), "split": "val", "out": tmp_path / "a.csv", **made}
    result = predict_split(PredictConfig(prior="digit 8:0.4", **asked))
    plain = load_predictor(ModelsConfig(models=(NAME,), **made)).predict_split("val")
    found = load_predictor(ModelsConfig(models=(NAME,), prior="digit 8:0.4", **made))
    said, prior = found.predict_split("val"), result.record.prior
    assert prior and prior.used[8] == pytest.approx(0.4) and said.prior == prior
    by_hand = plain.probabilities * np.array(prior.used) / np.array(prior.learnt)
    by_hand /= by_hand.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(said.probabilities, by_hand, rtol=1e-5)
    np.testing.assert_array_equal(said.classes == 8, plain.classes == 8)  # the point's promise
    assert PredictionRecord.read(result.record_path) == result.record
    text = predict_text(result)
    assert "for the mix of classes in use, as given: digit 8 40 %" in text and "and 5 more" in text
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    np.testing.assert_allclose(
        [float(row["probability"]) for row in rows], said.probabilities.max(axis=1), atol=1e-6
    )
    without = load_predictor(ModelsConfig(models=(NAME,), prior="digit 8:0.4", at="none", **made))
    chosen = without.predict_split("val").classes
    assert (chosen == 8).sum() > (plain.probabilities.argmax(axis=1) == 8).sum()


def test_the_mix_of_a_split_is_estimated(made, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"models": (NAME,), "out": tmp_path / "a.csv", "at": "none", **made}
    prior = predict_split(PredictConfig(prior="estimate", **asked)).record.prior
    truth = digits().labels[digits().split == 2]
    shares = np.bincount(truth, minlength=10) / len(truth)
    assert prior and prior.estimated_on == len(truth)
    np.testing.assert_allclose(prior.used, shares, atol=0.03)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"prior": "digit 1:0.2"}, "the share of the positive class alone"),
        ({"prior": "estimate"}, r"estimate with the operating point specificity=0.9.*--at none"),
        ({"prior": "nobody:0.2"}, "class 'nobody' is unknown"),
    ],
)
def test_what_the_mix_cannot_be_used_for_is_refused(made, asked, says: str) -> None:
    with pytest.raises(OnepassError, match=says):
        load_predictor(ModelsConfig(models=(NAME,), **made, **asked))


def test_what_needs_given_shares_says_so() -> None:
    with pytest.raises(UsageError, match="an export sees no images"):
        ExportConfig(models=(NAME,), prior="estimate")
    with pytest.raises(UsageError, match="--explain: expected --prior CLASS:SHARE"):
        PredictConfig(models=(NAME,), prior="estimate", explain=Path("why"))


def test_probabilities_of_no_mix_are_not_corrected(made, tmp_path: Path) -> None:
    places = {**made, "runs_dir": tmp_path}
    run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), class_weight="uncorrected", **places))
    with pytest.raises(UsageError, match="fitted with --class-weight uncorrected"):
        load_predictor(ModelsConfig(models=(NAME,), prior="digit 8:0.4", **places))
