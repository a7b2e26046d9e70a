"""Every metric against scikit-learn, SciPy or a value by hand, and at its edges."""

import json
from math import comb
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as reference

from onepass.cache.errors import CorruptFileError, UnknownNameError
from onepass.classify.config import MetricName
from onepass.classify.leaderboard.records import Calibration
from onepass.classify.metrics import (
    BINS,
    METRICS,
    Verdict,
    accuracy,
    apply_temperature,
    auroc,
    average_precision,
    balanced_accuracy,
    calibration_temperature,
    class_accuracy,
    compare,
    confidence_interval,
    confident_mistakes,
    confused_pairs,
    confusion_matrix,
    find_metric,
    fit_temperature,
    log_loss,
    log_probabilities,
    macro_f1,
    mcnemar,
    reliability,
    softmax,
    top_k,
    verdict,
    worst_classes,
)
from onepass.classify.text import p_value


def drawn(
    sharpness: float = 1.0, rows: int = 4_000, classes: int = 5, spread: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, and those probabilities, too sure by the factor `sharpness`."""
    generator = np.random.default_rng(0)
    scores = generator.normal(scale=spread, size=(rows, classes))
    honest = softmax(scores)
    truth = (honest.cumsum(axis=1) > generator.random((rows, 1))).argmax(axis=1)
    return truth, softmax(scores * sharpness)


class TestScores:
    def test_those_of_scikit_learn(self) -> None:
        truth, probabilities = drawn(rows=300)
        predicted = probabilities.argmax(axis=1)
        for ours, theirs in (
            (accuracy(truth, predicted), reference.accuracy_score(truth, predicted)),
            (top_k(truth, probabilities, 2), reference.top_k_accuracy_score(truth, probabilities, k=2)),
            (balanced_accuracy(truth, predicted), reference.balanced_accuracy_score(truth, predicted)),
            (macro_f1(truth, predicted), reference.f1_score(truth, predicted, average="macro")),
            (auroc(truth, probabilities), reference.roc_auc_score(truth, probabilities, multi_class="ovr")),
            (log_loss(truth, np.log(probabilities)), reference.log_loss(truth, probabilities)),
        ):  # fmt: skip
            assert ours == pytest.approx(theirs, rel=1e-9)
        np.testing.assert_array_equal(
            confusion_matrix(truth, predicted, 5), reference.confusion_matrix(truth, predicted)
        )

    def test_two_classes_are_scored_by_the_second(self) -> None:
        truth, probabilities = drawn(rows=300, classes=2)
        second = probabilities[:, 1]
        assert auroc(truth, probabilities) == reference.roc_auc_score(truth, second)
        expected = reference.average_precision_score(truth, second)
        assert average_precision(truth, probabilities) == pytest.approx(expected, abs=1e-12)

    def test_of_more_classes_each_stands_against_the_rest(self) -> None:
        truth, probabilities = drawn(rows=300, classes=3)
        each = [
            reference.average_precision_score(truth == k, probabilities[:, k]) for k in range(3)
        ]
        assert average_precision(truth, probabilities) == pytest.approx(np.mean(each))

    def test_classes_without_rows(self) -> None:
        truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
        assert balanced_accuracy(truth, predicted) == pytest.approx((1 / 2 + 1) / 2)
        assert macro_f1(truth, predicted) == pytest.approx((2 / 3 + 1 + 0) / 3)
        probabilities = np.eye(3)[predicted]
        assert auroc(truth, probabilities) == pytest.approx((0.75 + 1) / 2)  # class 2 has no row
        assert np.isnan(auroc(np.zeros(4, int), probabilities[:, :2]))

    @pytest.mark.parametrize("classes", [2, 5])
    @pytest.mark.parametrize("levels", [3, 1_000_000])
    def test_metrics_to_choose_by_are_those_of_scikit_learn(
        self, classes: int, levels: int
    ) -> None:
        generator = np.random.default_rng(classes)
        for trial in range(20):
            scores = generator.integers(1, levels, (60, classes), endpoint=True)  # few levels: ties
            probabilities = scores / scores.sum(axis=1, keepdims=True)
            truth = generator.integers(0, classes, 60)
            truth[truth == classes - 1] *= trial % 2  # the last class may be absent
            if classes == 2 and not trial % 2:
                truth[:3] = 1
            predicted = probabilities.argmax(axis=1)
            own = probabilities[np.arange(60), truth]
            columns = [1] if classes == 2 else np.unique(truth)
            expected = {
                "top1": reference.accuracy_score(truth, predicted),
                "balanced": reference.recall_score(
                    truth, predicted, labels=np.unique(truth), average="macro"
                ),
                "macro-f1": reference.f1_score(truth, predicted, average="macro"),
                "auroc": np.mean(
                    [reference.roc_auc_score(truth == k, probabilities[:, k]) for k in columns]
                ),
                "average-precision": np.mean(
                    [
                        reference.average_precision_score(truth == k, probabilities[:, k])
                        for k in columns
                    ]
                ),
                "log-loss": -np.log(own).mean(),
            }
            assert set(expected) == set(METRICS) == set(get_args(MetricName))
            for name, value in expected.items():
                assert find_metric(name).value(truth, probabilities) == pytest.approx(
                    value, abs=1e-12, rel=0
                )
            for name, score in (
                ("auroc", reference.roc_auc_score),
                ("average-precision", reference.average_precision_score),
            ):
                ours = find_metric(name, positive=0).value(truth, probabilities)
                assert ours == pytest.approx(score(truth == 0, probabilities[:, 0]), abs=1e-12)

    def test_a_metric_knows_what_is_better(self) -> None:
        assert METRICS["log-loss"].merit(0.3) > METRICS["log-loss"].merit(0.4)
        assert METRICS["auroc"].merit(0.4) > METRICS["auroc"].merit(0.3)
        for metric in METRICS.values():  # what cannot be computed never wins
            assert metric.merit(float("nan")) == metric.merit(None) == -np.inf
        assert METRICS["top1"].text(0.5941) == "59.4 %"
        assert METRICS["average-precision"].text(0.5941) == "0.594"

    def test_an_unknown_metric_names_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match="average-precision"):
            find_metric("average-precison")

    def test_equal_probabilities_go_to_the_lower_class_as_with_argmax(self) -> None:
        probabilities = np.array([[0.4, 0.4, 0.2], [0.2, 0.2, 0.6], [0.1, 0.5, 0.4]])
        truth = np.array([1, 0, 1])
        assert top_k(truth, probabilities, 1) == accuracy(truth, probabilities.argmax(axis=1))
        assert top_k(truth, probabilities, 1) == pytest.approx(1 / 3)
        assert top_k(truth, probabilities, 2) == top_k(truth, probabilities, 9) == 1.0

    def test_large_logits_stay_finite(self) -> None:
        logits = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
        assert log_loss(np.array([0, 0]), logits) == pytest.approx(5e3)
        assert softmax(logits).dtype == np.float32 and np.isfinite(softmax(logits)).all()


class TestCalibration:
    @pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
    def test_the_temperature_undoes_wrong_confidence(self, sharpness: float) -> None:
        truth, probabilities = drawn(sharpness)
        temperature = calibration_temperature(truth, probabilities)
        assert temperature == pytest.approx(sharpness, rel=0.08)
        after = apply_temperature(probabilities, temperature)
        np.testing.assert_array_equal(after.argmax(axis=1), probabilities.argmax(axis=1))
        np.testing.assert_allclose(after.sum(axis=1), 1, rtol=1e-5)
        errors = [reliability(truth, p).error for p in (probabilities, after)]
        assert errors[1] < 0.03 and (sharpness == 1 or errors[1] < 0.5 * errors[0])

    def test_the_temperature_is_that_of_least_log_loss_whatever_the_unit(self) -> None:
        truth, probabilities = drawn(2.0, rows=500)
        logits = log_probabilities(probabilities)
        best = fit_temperature(truth, logits)
        tried = {t: log_loss(truth, logits / (t * best)) for t in (0.5, 0.97, 1.0, 1.03, 2.0)}
        assert min(tried, key=tried.__getitem__) == 1.0
        assert fit_temperature(truth, 1e-3 * logits) == pytest.approx(1e-3 * best, rel=1e-3)

    def test_some_rows_are_enough(self) -> None:
        truth, probabilities = drawn(2.0)
        logits = log_probabilities(probabilities)
        few = fit_temperature(truth, logits, rows=1_000)
        assert few == pytest.approx(fit_temperature(truth, logits), rel=0.1)
        assert few == fit_temperature(*(part[np.linspace(0, 3_999, 1_000).astype(int)] for part in (truth, logits)))  # fmt: skip

    def test_few_rows_that_are_all_right_do_not_make_certain(self) -> None:
        """They once gave a temperature at the end of the search, which doubled the log-loss elsewhere."""
        random = np.random.default_rng(0)
        truth, probabilities = drawn(1.0, rows=4_000, spread=5.0)
        right = np.flatnonzero(probabilities.argmax(axis=1) == truth)
        chosen = random.choice(right, 71, replace=False)
        rest = np.setdiff1d(np.arange(4_000), chosen)
        temperature = calibration_temperature(truth[chosen], probabilities[chosen])
        assert 0.6 < temperature < 1
        before = log_loss(truth[rest], log_probabilities(probabilities[rest]))
        scaled = apply_temperature(probabilities[rest], temperature)
        assert log_loss(truth[rest], log_probabilities(scaled)) < 1.05 * before

    @pytest.mark.parametrize("rows", [7, 40, 71, 300])
    def test_calibrated_is_never_clearly_worse_than_not(self, rows: int) -> None:
        for sharpness in (0.7, 1.0, 1.4):
            truth, probabilities = drawn(sharpness, rows=4_000, spread=5.0)
            logits = log_probabilities(probabilities)
            before = log_loss(truth, logits)
            for seed in range(20):
                chosen = np.random.default_rng(seed).choice(4_000, rows, replace=False)
                found = calibration_temperature(truth[chosen], probabilities[chosen])
                assert log_loss(truth, logits / np.float32(found)) < 1.1 * before

    def test_some_hundred_rows_outweigh_what_is_expected(self) -> None:
        truth, probabilities = drawn(3.0, rows=400)
        assert calibration_temperature(truth, probabilities) == pytest.approx(3.0, rel=0.2)

    def test_rows_that_the_temperature_would_not_help_leave_it_at_1(self) -> None:
        truth, probabilities = drawn(1.0, rows=300)
        temperatures = [
            calibration_temperature(truth[part], probabilities[part])
            for part in np.split(np.arange(300), 10)
        ]
        assert temperatures.count(1.0) >= 3 and all(0.6 < t < 1.6 for t in temperatures)

    def test_the_unit_of_scores_that_are_all_right_is_found_inside_the_limits(self) -> None:
        scores = 1e-3 * np.eye(5, dtype=np.float32)[np.arange(71) % 5]
        temperature = fit_temperature(np.arange(71) % 5, scores)
        assert 0.05 < temperature / scores.std() < 20

    def test_error_equals_its_definition(self) -> None:
        truth, probabilities = drawn(2.0, rows=700)
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
        expected = 0.0
        for k in range(BINS):
            inside = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
            if inside.any():
                expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
        found = reliability(truth, probabilities)
        assert found.error == pytest.approx(expected, rel=1e-9)
        assert sum(one.count for one in found.bins) == 700 and len(found.bins) == BINS == 15
        assert found.bins[0].count == 0 and found.bins[0].confidence is None  # five classes: > 0.2
        assert found.confidence == pytest.approx(confidence.mean())
        assert found.accuracy == pytest.approx(right.mean())

    def test_bins_are_closed_on_the_right(self) -> None:
        third = 5 / 15
        found = reliability(np.array([0, 1]), np.array([[third, third, third], [0.0, 1.0, 0.0]]))
        assert [i for i, one in enumerate(found.bins) if one.count] == [4, 14]

    def test_certainty_and_impossibility_stay_finite(self) -> None:
        probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
        truth = np.array([0, 1, 1])
        temperature = fit_temperature(truth, log_probabilities(probabilities))
        assert calibration_temperature(truth, probabilities) == 1.0  # of three rows
        assert np.isfinite(apply_temperature(probabilities, temperature)).all()
        assert reliability(truth, probabilities).error == pytest.approx(1 / 3)

    def test_no_rows_stay_no_rows(self) -> None:
        assert apply_temperature(np.zeros((0, 3), np.float32), 2.0).shape == (0, 3)

    def test_the_file_holds_both_diagrams_and_those_of_format_0_open(self, tmp_path: Path) -> None:
        truth, probabilities = drawn(3.0, rows=300)
        before = reliability(truth, probabilities)
        after = reliability(truth, apply_temperature(probabilities, 3.0))
        stored = Calibration(3.0, before, after)
        stored.write(tmp_path / Calibration.NAME)
        assert Calibration.read(tmp_path / Calibration.NAME) == stored
        value = json.loads((tmp_path / Calibration.NAME).read_text())
        old = {
            "split": "val", "bins": 15, "kind": "equal width", "temperature": 3.0,
            "error": {"before": before.error, "after": after.error},
            "before": value["before"]["bins"], "after": value["after"]["bins"],
        }  # fmt: skip
        (tmp_path / "old.json").write_text(json.dumps(old))
        assert Calibration.read(tmp_path / "old.json") == stored
        (tmp_path / "wrong.json").write_text(json.dumps({"temperature": 3.0}))
        with pytest.raises(CorruptFileError, match=r"wrong.json: .*before"):
            Calibration.read(tmp_path / "wrong.json")


class TestMistakes:
    truth = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 1, 1, 1, 0, 2])

    def test_counts_by_hand(self) -> None:
        confusion = confusion_matrix(self.truth, self.predicted, 4)
        assert confusion.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
        np.testing.assert_allclose(class_accuracy(confusion), [1 / 3, 1 / 2, 1, np.nan])
        assert worst_classes(confusion, 9) == [0, 1, 2]  # the class without rows is not among them

    def test_pairs_in_one_direction_or_both(self) -> None:
        confusion = confusion_matrix(self.truth, self.predicted, 4)
        assert confused_pairs(confusion, 9) == [(0, 1, 2), (1, 0, 1)]
        assert confused_pairs(confusion, 1) == [(0, 1, 2)]
        assert confused_pairs(confusion, 9, symmetric=True) == [(0, 1, 3)]
        assert confused_pairs(np.diag([3, 4]), 9) == []

    def test_the_most_confident_come_first(self) -> None:
        confidence = np.array([1, 0.6, 0.8, 1, 0.7, 1])
        probabilities = np.eye(4)[self.predicted] * confidence[:, None]
        given = self.truth, self.predicted, probabilities
        assert confident_mistakes(*given, 2).tolist() == [2, 4]
        assert confident_mistakes(*given).tolist() == [2, 4, 1]
        assert confident_mistakes(self.truth, self.truth, probabilities).tolist() == []


class TestIntervals:
    def test_that_of_resampled_rows(self) -> None:
        generator = np.random.default_rng(0)
        correct = generator.random(400) < 0.85
        resampled = [correct[generator.integers(0, 400, 400)].mean() for _ in range(10_000)]
        found = confidence_interval(correct, seed=1)
        np.testing.assert_allclose(found, np.quantile(resampled, [0.025, 0.975]), atol=0.004)
        assert confidence_interval(correct, seed=1) == found
        differences = generator.choice([-0.5, 0.0, 0.5, 1.0], 300)
        resampled = [differences[generator.integers(0, 300, 300)].mean() for _ in range(4_000)]
        found = confidence_interval(differences, bounds=(-1, 1))
        np.testing.assert_allclose(found, np.quantile(resampled, [0.025, 0.975]), atol=0.01)

    def test_it_covers_the_truth_as_often_as_it_says(self) -> None:
        generator = np.random.default_rng(0)
        covered = 0
        for seed in range(300):
            low, high = confidence_interval(generator.random(500) < 0.7, seed)
            covered += low <= 0.7 <= high
        assert 0.90 <= covered / 300 <= 0.98

    @pytest.mark.parametrize(("right", "rows"), [(8, 8), (0, 8), (10_000, 10_000)])
    def test_all_rows_alike_give_that_of_wilson(self, right: int, rows: int) -> None:
        wilson = binomtest(right, rows).proportion_ci(0.95, method="wilson")
        found = confidence_interval(np.arange(rows) < right)
        assert found == pytest.approx((wilson.low, wilson.high), abs=1e-12)
        assert found[0] < found[1]

    def test_no_difference_at_all_is_still_uncertain(self) -> None:
        low, high = confidence_interval(np.zeros(100), bounds=(-1, 1))
        assert low == -high and high == pytest.approx(binomtest(0, 100).proportion_ci(method="wilson").high)  # fmt: skip

    @pytest.mark.parametrize(("right", "rows"), [(1, 2), (9_999, 10_000)])
    def test_it_is_never_of_width_0(self, right: int, rows: int) -> None:
        low, high = confidence_interval(np.arange(rows) < right)
        assert low < high and low <= right / rows <= high


class TestComparison:
    @pytest.mark.parametrize(
        ("b", "c"), [(0, 0), (0, 1), (3, 3), (10, 4), (4, 10), (0, 12), (40, 60)]
    )
    def test_mcnemar_equals_its_definition(self, b: int, c: int) -> None:
        n, k = b + c, min(b, c)
        chance = [comb(n, i) / 2**n for i in range(n + 1)]
        expected = 2 * sum(chance[:k]) + chance[k] if n else 1.0
        assert mcnemar(b, c) == pytest.approx(min(expected, 1.0), rel=1e-10)

    def test_no_p_value_is_said_to_be_zero(self) -> None:
        assert mcnemar(5406, 97) == 0.0
        assert [p_value(p) for p in (0.0, 0.0009, 0.001, 0.3449)] == [
            "p < 0.001", "p < 0.001", "p = 0.001", "p = 0.34",
        ]  # fmt: skip

    def test_it_counts_rows_that_only_one_has_right(self) -> None:
        first = np.array([True] * 30 + [False] * 10)
        second = np.array([True] * 10 + [False] * 20 + [True] * 2 + [False] * 8)
        found = compare("a", "b", first, second)
        assert (found.only_first, found.only_second, found.rows) == (20, 2, 40)
        assert found.gain == pytest.approx(18 / 40) and found.verdict is Verdict.BETTER
        assert compare("b", "a", second, first).verdict is Verdict.WORSE
        assert compare("a", "b", first, first).verdict is Verdict.TIE

    def test_the_verdict_is_at_the_5_percent_level(self) -> None:
        assert verdict(0.1, 0.049) is Verdict.BETTER and verdict(-0.1, 0.049) is Verdict.WORSE
        assert verdict(0.1, 0.051) is Verdict.TIE
        assert f"{Verdict.TIE}" == "no significant difference"
