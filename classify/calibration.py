"""Do probabilities mean what they say: temperature scaling and the expected calibration error.

One temperature a probe is learnt on the selection split; it divides the logarithms of the
probabilities and changes no prediction. The error is reported on val, before and after (Guo,
Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017).

`heads/<probe id>/calibration.json` holds the reliability diagram:
{"split": "val", "bins": 15, "kind": "equal width", "temperature", "error": {"before", "after"},
"before" and "after": [{"low", "high", "confidence", "accuracy", "count"}]}; confidence and accuracy
are null in a bin without rows.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from onepass.classify.heads.base import log_loss, softmax

BINS = 15
FLOOR = 1e-7  # probability; half-precision numbers end there
TEMPERATURES = (0.05, 20.0)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Return the logarithms (n, K) float32 of probabilities, none below that of FLOOR."""
    return np.log(np.maximum(probabilities, FLOOR), dtype=np.float32)


def learn_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature that makes the true classes most probable (least log-loss).

    Args:
        probabilities: (n, K) of rows that the head was not fitted on.
        truth: Column of the true class of each row, (n,).
    """
    scores = log_probabilities(probabilities)
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda power: log_loss(scores / np.float32(np.exp(power)), truth),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(found.x))


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities (n, K) at a temperature; the most probable class stays so."""
    if temperature == 1.0 or not len(probabilities):
        return probabilities
    return softmax(log_probabilities(probabilities) / np.float32(temperature))


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
    """Return the reliability diagram: BINS bins of equal width over the confidence.

    Args:
        probabilities: (n, K).
        truth: Column of the true class of each row, (n,).

    Returns:
        For each bin (low, high]: mean confidence and accuracy of its rows, and their count.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    numbers = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    table = []
    for number in range(BINS):
        inside = numbers == number
        some = bool(inside.any())
        table.append(
            {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "confidence": float(confidence[inside].mean()) if some else None,
                "accuracy": float(right[inside].mean()) if some else None,
                "count": int(inside.sum()),
            }
        )
    return table


def calibration_error(table: list[dict[str, Any]]) -> float:
    """Return the expected calibration error: the gaps of the bins, weighted by their counts."""
    total = sum(row["count"] for row in table)
    gaps = (
        row["count"] * abs(row["confidence"] - row["accuracy"]) for row in table if row["count"]
    )
    return float(sum(gaps) / total)


def diagram(
    before: np.ndarray, after: np.ndarray, truth: np.ndarray, temperature: float
) -> dict[str, Any]:
    """Return the content of `calibration.json` for probabilities (n, K) of the reported rows."""
    tables = {"before": reliability(before, truth), "after": reliability(after, truth)}
    return {
        "split": "val",
        "bins": BINS,
        "kind": "equal width",
        "temperature": temperature,
        "error": {name: calibration_error(table) for name, table in tables.items()},
        **tables,
    }
