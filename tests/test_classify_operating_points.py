"""Operating points: what is promised on the selection rows is kept on new rows, on average."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features
from scipy.stats import binom

from onepass.cache.errors import InvalidInputError, OnepassError, UsageError
from onepass.classify.config import ClassifyConfig
from onepass.classify.goals import CostGoal, RateGoal, parse_goal
from onepass.classify.leaderboard.prediction_record import PredictionRecord
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import Detection, Share, detection
from onepass.classify.operating_points import (
    NEVER,
    OperatingPoint,
    called_positive,
    conformal_sensitivity,
    conformal_specificity,
    mean_cost,
    operating_point,
    precision_threshold,
    stored,
)
from onepass.classify.pipeline import ClassifyResult, run_probes
from onepass.classify.text import classify_text
from onepass.data.dataset import open_dataset
from onepass.predict.config import ModelsConfig, PredictConfig
from onepass.predict.models import load_predictor
from onepass.predict.split import predict_split
from onepass.predict.text import predict_text

YES = ("yes", "defective")


def drawn(rng: np.random.Generator, n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a calibrated model: positive with the probability that the score says."""
    scores = rng.beta(0.5, 0.5 * (1 - share) / share, n)
    return scores, rng.random(n) < scores


def test_goals_are_read_and_written() -> None:
    for text in ("sensitivity=0.95", "precision=0.9", "specificity=0.99", "cost=FP:1,FN:20"):
        assert str(parse_goal(text)) == text
    assert parse_goal("cost=fp:0.5,fn:2") == CostGoal(0.5, 2)
    wrong = (
        "",
        "sensitivity",
        "sensitivity=95",
        "sensitivity=1",
        "recall=0.9",
        "cost=FP:0,FN:1",
        "cost=FN:1",
    )
    for text in wrong:
        with pytest.raises(UsageError, match=r"expected sensitivity=0.95"):
            parse_goal(text)


def test_detection_by_hand() -> None:
    found = detection(np.array([1, 1, 0, 0, 0], bool), np.array([1, 0, 0, 1, 1], bool))
    assert found == Detection(1, 2, 1, 1)
    assert found.sensitivity == Share(1, 2)
    assert found.specificity == Share(1, 3)
    assert found.false_alarms == Share(2, 3)
    assert found.precision == Share(1, 3)
    assert Share(0, 0).value is None and Share(0, 0).interval is None
    low, high = Share(8, 10).interval or (0, 0)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)  # Wilson's, from a table


def test_intervals_of_shares_cover_the_truth() -> None:
    """Of Wilson's 95 % intervals of 60 rows, about 95 % hold the true share."""
    covers = []
    for share in (0.05, 0.3, 0.95):
        counts = np.arange(61)
        bounds = np.array([Share(int(c), 60).interval for c in counts])
        inside = (bounds[:, 0] <= share) & (share <= bounds[:, 1])
        covers.append(float(binom.pmf(counts, 60, share)[inside].sum()))
    assert all(0.92 < cover < 0.98 for cover in covers), covers


def test_rank_of_the_sensitivity_by_hand() -> None:
    goal = RateGoal("sensitivity", 0.9)
    scores = np.linspace(0.1, 0.95, 19)
    assert (
        conformal_sensitivity(goal, scores[::-1])[0] == scores[1]
    )  # of 20 with the new one, 2 may be lost
    with pytest.raises(InvalidInputError, match=r"at least 9 positive selection rows.*received 8"):
        conformal_sensitivity(goal, scores[:8])
    assert conformal_sensitivity(goal, scores[:9])[0] == scores[0]


def test_a_threshold_of_the_specificity_leaves_its_own_row_alone() -> None:
    goal = RateGoal("specificity", 0.9)
    scores = stored(np.linspace(0.1, 0.95, 19))
    threshold, _ = conformal_specificity(goal, scores)
    assert int(called_positive(scores, threshold).sum()) == 1
    threshold, _ = conformal_specificity(goal, np.ones(50))
    assert threshold == NEVER and not called_positive(np.ones(1), threshold).any()


@pytest.mark.parametrize("kind", ["sensitivity", "specificity"])
def test_the_promised_rate_is_unbiased_and_its_interval_covers(kind: str) -> None:
    rng = np.random.default_rng(0)
    goal, rates, inside = parse_goal(f"{kind}=0.9"), [], []
    for _ in range(300):
        point = operating_point(goal, YES, drawn(rng, 300, 0.3), drawn(rng, 4000, 0.3))
        assert point.validation and point.expected
        rate = getattr(point.validation, kind).value
        rates.append(rate)
        inside.append(point.expected[0] <= rate <= point.expected[1])
    assert abs(np.mean(rates) - 0.9) < 0.01  # with the +1 of the conformal rank: 0.900 to 0.911
    assert np.mean(inside) > 0.9


def test_false_alarms_among_new_rows_called_positive_are_as_few_as_promised_on_average() -> None:
    """The plain choice, the lowest threshold that reaches the precision on the selection rows, falls short."""
    rng, goal = np.random.default_rng(1), RateGoal("precision", 0.8)
    wrong, plain = [], []
    for _ in range(200):
        scores, truth = drawn(rng, 300, 0.2)
        new, new_truth = drawn(rng, 4000, 0.2)
        try:
            threshold = precision_threshold(goal, stored(scores), truth)
        except InvalidInputError:
            threshold = NEVER
        found = detection(new_truth, called_positive(new, threshold)).precision.value
        wrong.append(0 if found is None else 1 - found)
        order = np.argsort(-scores)
        reached = np.cumsum(truth[order]) / np.arange(1, 301)
        lowest = (
            scores[order][np.flatnonzero(reached >= 0.8)[-1]] if (reached >= 0.8).any() else NEVER
        )
        found = detection(new_truth, called_positive(new, lowest)).precision.value
        plain.append(0 if found is None else 1 - found)
    assert 0.15 < np.mean(wrong) < 0.2 < np.mean(plain)


def test_the_least_cost_of_true_probabilities_is_the_rule_of_theory_and_of_shifted_ones_is_not() -> (
    None
):
    rng = np.random.default_rng(2)
    goal = CostGoal(1, 9)
    scores, truth = drawn(rng, 20_000, 0.2)
    assert abs(operating_point(goal, YES, (scores, truth), None).threshold - 0.1) < 0.05
    halved = operating_point(goal, YES, (scores / 2, truth), None)
    assert abs(halved.threshold - 0.05) < 0.025
    blind = detection(truth, np.ones(len(truth), bool))
    found = detection(truth, called_positive(scores / 2, halved.threshold))
    assert mean_cost(goal, found) < mean_cost(goal, blind)


def test_what_cannot_be_promised_is_refused() -> None:
    rng = np.random.default_rng(3)
    noise = rng.random(200), rng.random(200) < 0.1
    with pytest.raises(
        InvalidInputError, match=r"no threshold reaches it on the 200.*can promise 0"
    ):
        operating_point(parse_goal("precision=0.99"), YES, noise, None)
    few = rng.random(20), np.arange(20) < 3
    with pytest.raises(InvalidInputError, match=r"at least 5 positive and 5 negative.*3 and 17"):
        operating_point(parse_goal("cost=FP:1,FN:2"), YES, few, None)


def test_decisions_are_the_positive_class_or_the_best_of_the_others() -> None:
    point = OperatingPoint(parse_goal("sensitivity=0.9"), "b", "bee", 0.25, 30, 60, None, None)
    rows = np.array(
        [[0.65, 0.25, 0.1], [0.1, 0.24, 0.66], [0.5, 0.1, 0.4], [0.1, 0.8, 0.1]], np.float32
    )
    assert point.decide(rows, ["a", "b", "c"]).tolist() == [1, 2, 0, 1]


def test_a_probability_that_is_stored_as_the_threshold_reaches_it() -> None:
    """0.9999 is 1 in half precision; as a float32 it would lie below the threshold that it set itself."""
    score = np.array([0.9999], np.float32)
    assert called_positive(score, float(stored(score)[0])).all()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Digits of ten classes, and a leaderboard whose winner has an operating point for the eights."""
    folder = tmp_path_factory.mktemp("points")
    data = digits()
    write_features(folder / "store", write_dataset(folder / "store", data), data.X)
    return {"cache_dir": folder / "store", "runs_dir": folder / "runs"}


def classify(places: dict[str, Path], **other: Any) -> ClassifyResult:
    return run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), **places, **other))


def test_the_winner_keeps_its_operating_point(made) -> None:
    assert classify(made).point is None
    name = "digit 8"
    found = classify(made, at="specificity=0.9", positive=name)
    point = found.point
    assert found.ran == 0 and point and point.validation
    winner, dataset = found.results[0], open_dataset(made["cache_dir"], NAME)
    kept = load_probabilities(made["runs_dir"] / NAME / "heads" / winner.id, winner.rows)
    eights = dataset.labels[dataset.rows("val")] == 8
    called = kept.val[:, 8] >= point.threshold
    assert point.validation == detection(eights, called)
    assert classify(made).point == point
    assert f"Operating point specificity=0.9: {name} from a probability of" in classify_text(found)


def test_a_winner_that_is_chosen_by_folds_keeps_the_promise_of_the_one_before(
    made, tmp_path: Path
) -> None:
    places = {**made, "runs_dir": tmp_path}
    before = classify(places, at="specificity=0.9", positive="digit 8").point
    after = classify(places, select="folds")
    assert before and after.point and after.point.goal == before.goal
    assert after.point.negatives > before.negatives and after.results[0].rows.select == "folds"


def test_a_goal_without_its_class_is_refused_before_a_probe_runs(made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected --positive CLASS beside it"):
        classify({**made, "runs_dir": tmp_path}, at="sensitivity=0.9")
    assert not list(tmp_path.iterdir())


def test_predictions_answer_by_it_and_say_so(made, tmp_path: Path) -> None:
    found = classify(made, at="specificity=0.9", positive="digit 8")
    predictor = load_predictor(ModelsConfig(models=(NAME,), **made))
    assert predictor.point == found.point and found.point
    prediction = predictor.predict_split("val")
    eights = called_positive(prediction.probabilities[:, 8], found.point.threshold)
    np.testing.assert_array_equal(prediction.classes == 8, eights)
    plain = load_predictor(ModelsConfig(models=(NAME,), at="none", **made)).predict_split("val")
    assert (plain.classes == plain.probabilities.argmax(axis=1)).all()
    assert (plain.classes == 8).sum() < eights.sum()
    asked = PredictConfig(
        models=(NAME,),
        split="val",
        at="sensitivity=0.8",
        positive="digit 3",
        out=tmp_path / "a.csv",
        **made,
    )
    result = predict_split(asked)
    assert result.record.point and result.record.point.name == "digit 3"
    assert "Operating point sensitivity=0.8: digit 3 from" in predict_text(result)
    assert PredictionRecord.read(result.record_path) == result.record
    assert (
        result.record.val_top1 == found.results[0].val_top1
    )  # of the most probable class, as ever


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"at": "sensitivity=0.9"}, "expected --positive CLASS beside it"),
        (
            {"at": "sensitivity=0.9", "positive": "nobody"},
            "class of digits-test .nobody. is unknown",
        ),
        ({"at": "recall=0.9"}, "expected sensitivity=0.95"),
        ({"positive": "digit 3"}, "expected --at GOAL"),
        ({"at": "sensitivity=0.9", "positive": "digit 3", "temperature": False}, "is not scaled"),
    ],
)
def test_what_predict_refuses(made, asked: dict[str, Any], says: str) -> None:
    classify(made)
    with pytest.raises(OnepassError, match=says):
        load_predictor(ModelsConfig(models=(NAME,), **made, **asked))
