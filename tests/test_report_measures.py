"""What is computed from probabilities, against counts by hand and scikit-learn's definitions."""

import numpy as np
import pytest

from onepass.classify.metrics import confusion_matrix
from onepass.report.context import Judged
from onepass.report.measures import precision_recall, rates_of, roc
from onepass.report.mistakes import class_lines
from onepass.report.names import display_names


def test_rates_by_hand() -> None:
    taken = np.array([1, 1, 0, 0, 1, 0], bool)
    positive = np.array([1, 0, 1, 0, 1, 0], bool)
    rates = rates_of(taken, positive)
    assert (rates.sensitivity, rates.specificity, rates.precision) == (2 / 3, 2 / 3, 2 / 3)
    assert rates_of(np.zeros(3, bool), np.ones(3, bool)).precision == 1.0


def test_curves_end_where_they_must_and_pass_through_the_decision() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    scores = np.clip(0.35 * positive + rng.random(400) * 0.65, 0, 1)
    probabilities, truth = np.column_stack([1 - scores, scores]), positive.astype(int)
    curve = roc(probabilities, truth)
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    assert curve.area == pytest.approx((pairs > 0).mean() + 0.5 * (pairs == 0).mean())
    x, y = curve.decision
    assert np.interp(x, curve.x, curve.y) == pytest.approx(y, abs=0.03)
    recall = precision_recall(probabilities, truth)
    assert recall.decision[0] == pytest.approx(y) and 0 < recall.area < 1


def judged(stage: str, truth: list[int], predicted: list[int], classes: int) -> Judged:
    chosen = np.array(predicted)
    return Judged(stage, stage, np.eye(classes, dtype=np.float32)[chosen], chosen, np.array(truth))


def test_classes_are_listed_the_worst_first_with_what_they_are_taken_for() -> None:
    truth = [0, 0, 0, 1, 1, 2]
    frozen = judged("frozen", truth, [0, 1, 1, 1, 1, 0], 4)
    tuned = judged("fine-tuned", truth, [0, 0, 1, 1, 0, 2], 4)
    lines = class_lines([frozen, tuned], 4)
    assert [line.label for line in lines] == [1, 0, 2]  # class 3 has no reported image
    middle = lines[1]
    assert middle.found == pytest.approx([1 / 3, 2 / 3]) and middle.gained == pytest.approx(1 / 3)
    assert (middle.taken, middle.times, middle.precision) == (1, 1, pytest.approx(2 / 3))
    assert lines[2].taken is None
    np.testing.assert_array_equal(confusion_matrix(tuned.truth, tuned.predicted, 4).sum(axis=1), [3, 2, 1, 0])  # fmt: skip


def test_names_are_short_and_all_different() -> None:
    ids = [f"n{k}" for k in range(7)]
    names = ["koala, koala bear, kangaroo bear, native bear", "crane, a machine for heavy loads",
             "crane, a bird with long legs and neck", "twin", "twin", "", "y" * 99]  # fmt: skip
    shown = display_names(ids, names)
    assert shown[0] == "koala" and shown[1:3] == names[1:3]
    assert shown[3:6] == ["twin (n3)", "twin (n4)", "(n5)"]
    assert len(shown[6]) <= 60 and len(set(shown)) == 7
