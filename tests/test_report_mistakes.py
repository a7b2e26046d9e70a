"""Classes, two-class detection and names, against counts by hand."""

from xml.etree import ElementTree

import numpy as np
import pytest
from classify_store import digits, write_dataset

from onepass.classify.goals import RateGoal
from onepass.classify.metrics import risk_coverage
from onepass.classify.operating_points import operating_point
from onepass.report.context import EvaluatedModel
from onepass.report.figures.calibration import (
    Positive,
    precision_recall_figure,
    risk_coverage_figure,
    roc_figure,
)
from onepass.report.mistakes import Mistake, class_lines, nearest_training_images
from onepass.report.names import display_names
from onepass.report.sections.calibration import detection_line


def model(stage: str, truth: list[int], predicted: list[int], classes: int) -> EvaluatedModel:
    chosen = np.array(predicted)
    probabilities = np.eye(classes, dtype=np.float32)[chosen]
    return EvaluatedModel(stage, stage, probabilities, chosen, np.array(truth))


def test_curves_end_where_they_must_and_pass_through_the_decision() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    scores = np.clip(0.35 * positive + rng.random(400) * 0.65, 0, 1)
    probabilities = np.column_stack([1 - scores, scores])
    one = EvaluatedModel("frozen", "f", probabilities, (scores > 0.5).astype(int), positive * 1)
    ill = Positive(1, "ill")
    point = operating_point(
        RateGoal("sensitivity", 0.9), ("1", "ill"), (scores, positive), (scores, positive)
    )
    curve = roc_figure([one], ill, point)
    x, y = (np.array([row[i] for row in curve.rows]) for i in (1, 2))
    assert (x[0], y[0], x[-2], y[-2]) == (0, 0, 1, 1)
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    area = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    assert f"AUC {area:.3f}" in curve.drawing.alt
    line = detection_line(one, 1)
    assert line.auc == pytest.approx(area)
    found = line.counts
    alarms, sensitivity, precision = (
        share.value for share in (found.false_alarms, found.sensitivity, found.precision)
    )
    expected = f"false positive rate {alarms:.3f}, true positive rate {sensitivity:.3f}"
    assert expected in str(curve.svg)
    drawn = ElementTree.fromstring(str(curve.svg))
    markers = list(drawn.iterfind(".//{*}defs/{*}path"))
    assert markers and not any(
        "stroke" in marker.attrib for marker in markers
    )  # else dark mode keeps it
    recall = precision_recall_figure([one], ill, point)
    assert f"recall {sensitivity:.3f}, precision {precision:.3f}" in str(recall.svg)
    # the operating point lies on both curves
    assert point.validation
    at = point.validation.sensitivity.value
    assert curve.rows[-1][2] == at == recall.rows[-1][1] >= 0.9
    on_curve = np.interp(curve.rows[-1][1], x[:-1], y[:-1])
    assert on_curve == pytest.approx(at, abs=0.01)
    assert f"sensitivity=0.9: recall {at:.3f}" in str(recall.svg)


def test_classes_are_listed_the_worst_first_with_what_they_are_confused_with() -> None:
    truth = [0, 0, 0, 1, 1, 2]
    frozen = model("frozen", truth, [0, 1, 1, 1, 1, 0], 4)
    tuned = model("fine-tuned", truth, [0, 0, 1, 1, 0, 2], 4)
    lines = class_lines([frozen, tuned], 4)
    assert [line.label for line in lines] == [1, 0, 2]  # class 3 has no validation image
    middle = lines[1]
    assert middle.accuracies == pytest.approx([1 / 3, 2 / 3])
    assert middle.difference == pytest.approx(1 / 3)
    assert (middle.confused_with, middle.confusions, middle.precision) == (1, 1, pytest.approx(2 / 3))  # fmt: skip
    assert lines[2].confused_with is None


def test_names_are_short_and_all_different() -> None:
    ids = [f"n{k}" for k in range(7)]
    names = ["koala, koala bear, kangaroo bear, native bear", "crane, a machine for heavy loads",
             "crane, a bird with long legs and neck", "twin", "twin", "", "y" * 99]  # fmt: skip
    shown = display_names(ids, names)
    assert shown[0] == "koala" and shown[1:3] == names[1:3]
    assert shown[3:6] == ["twin (n3)", "twin (n4)", "(n5)"]
    assert len(shown[6]) <= 60 and len(set(shown)) == 7


def test_risk_and_coverage_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]], np.float32)
    one = EvaluatedModel(
        "frozen", "f", probabilities, probabilities.argmax(1), np.array([0, 0, 0, 0])
    )
    risk = risk_coverage(one.probabilities, one.correct)
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 2 / 4])
    figure = risk_coverage_figure([one])
    assert figure.rows[-1] == ("frozen", 1.0, 0.5) and "mean 33.3 %" in figure.drawing.alt


def test_the_nearest_training_images_of_a_mistake(tmp_path) -> None:
    data = digits()
    dataset = write_dataset(tmp_path, data)
    (row,) = dataset.rows("val")[:1]
    mistake = Mistake(int(row), "m", 1, 2, 0.9, "", True)
    (near,) = nearest_training_images(dataset, data.X, [mistake])
    train = dataset.rows("train")
    X = data.X.astype(float) / np.linalg.norm(data.X.astype(float), axis=1, keepdims=True)
    order = train[np.argsort(-(X[train] @ X[row]))[:3]]
    assert [one.name for one in near] == [dataset.names[i] for i in order]
    assert [one.label for one in near] == dataset.labels[order].tolist()
    assert near[0].cosine == pytest.approx(X[order[0]] @ X[row], abs=1e-3)
