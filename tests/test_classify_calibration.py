"""Temperature scaling and the expected calibration error, against their definitions."""

import numpy as np
import pytest

from onepass.classify.calibration import (
    BINS,
    calibrated,
    calibration_error,
    diagram,
    learn_temperature,
    log_probabilities,
    reliability,
)
from onepass.classify.heads.base import log_loss, softmax


def drawn(sharpness: float, rows: int = 4_000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure by the factor `sharpness`, and labels drawn from the true ones."""
    generator = np.random.default_rng(0)
    scores = generator.normal(scale=2, size=(rows, classes))
    honest = softmax(scores)
    truth = (honest.cumsum(axis=1) > generator.random((rows, 1))).argmax(axis=1)
    return softmax(scores * sharpness), truth


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_wrong_confidence(sharpness: float) -> None:
    probabilities, truth = drawn(sharpness)
    temperature = learn_temperature(probabilities, truth)
    assert temperature == pytest.approx(sharpness, rel=0.08)
    after = calibrated(probabilities, temperature)
    np.testing.assert_array_equal(after.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(after.sum(axis=1), 1, rtol=1e-5)
    errors = [calibration_error(reliability(p, truth)) for p in (probabilities, after)]
    assert errors[1] < 0.03 and (sharpness == 1 or errors[1] < 0.5 * errors[0])


def test_the_temperature_is_that_of_least_log_loss() -> None:
    probabilities, truth = drawn(2.0, rows=500)
    best = learn_temperature(probabilities, truth)
    losses = {
        t: log_loss(log_probabilities(probabilities) / t, truth)
        for t in (0.5 * best, 0.97 * best, best, 1.03 * best, 2 * best)
    }
    assert min(losses, key=losses.__getitem__) == best


def test_error_equals_its_definition() -> None:
    probabilities, truth = drawn(2.0, rows=700)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    expected = 0.0
    for k in range(BINS):
        inside = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    table = reliability(probabilities, truth)
    assert calibration_error(table) == pytest.approx(expected, rel=1e-9)
    assert sum(row["count"] for row in table) == 700
    assert table[0]["count"] == 0 and table[0]["confidence"] is None  # five classes: 0.2 at least


def test_certainty_and_impossibility_stay_finite() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    truth = np.array([0, 1, 1])
    temperature = learn_temperature(probabilities, truth)
    assert np.isfinite(calibrated(probabilities, temperature)).all()
    assert calibration_error(reliability(probabilities, truth)) == pytest.approx(1 / 3)


def test_diagram_holds_both_and_the_errors() -> None:
    probabilities, truth = drawn(3.0, rows=300)
    found = diagram(probabilities, calibrated(probabilities, 3.0), truth, 3.0)
    assert found["kind"] == "equal width" and found["bins"] == 15 and found["temperature"] == 3.0
    assert set(found["error"]) == {"before", "after"}
    assert found["error"]["before"] == calibration_error(found["before"])
    assert len(found["before"]) == len(found["after"]) == 15


def test_no_rows_stay_no_rows() -> None:
    assert calibrated(np.zeros((0, 3), np.float32), 2.0).shape == (0, 3)
