"""Leave-one-out predictions of the training rows."""

from dataclasses import dataclass

import numpy as np

from onepass.cache.memory import scratch
from onepass.classify.heads.class_weight import log_prior
from onepass.classify.heads.lazy_rows import blocks
from onepass.classify.heads.linear.spectrum import Spectrum
from onepass.classify.metrics import accuracy, balanced_accuracy, fit_temperature, softmax

PENALTIES = tuple(10.0**power for power in (0.5, 0, -0.5, -1, -1.5, -2, -3))
SAMPLE = 4_000  # rows that the penalty and the temperature are chosen on


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Leave-one-out predictions of ridge regression on one-vs-all targets.

    Attributes:
        probabilities: (n, K) float32; row i by a head that was fitted on the n - 1 others. Where the spectrum
            has class weights, they are as if every class were equally frequent.
        penalty: Chosen by leave-one-out accuracy, balanced where there are class weights.
        accuracy: Top-1 of the rows, 0 … 1.
    """

    probabilities: np.ndarray
    penalty: float
    accuracy: float


def leave_one_out(X: np.ndarray, numbers: np.ndarray, spectrum: Spectrum, seed: int = 0) -> LeftOut:
    """Predict every row by a head that has not seen it: n-fold cross-validation without n fits.

    For least squares with a penalty the prediction without row i follows from the one with it:
    `y - (y - ŷ) / (1 - h)`, h the row's leverage (Hastie, Tibshirani and Friedman, "The Elements of
    Statistical Learning", 2nd ed., equation 7.64). Mean and scale of the features stay those of all
    rows.

    Args:
        X: (n, D), the rows that `spectrum` was made of.
        numbers: (n,) class numbers.
        spectrum: Of X and numbers.
        seed: Of the sample that penalty and temperature are chosen on.
    """
    sample = np.arange(len(X))
    if len(X) > SAMPLE:
        sample = np.sort(np.random.default_rng(seed).choice(len(X), SAMPLE, replace=False))
    scores = _left_out(X[sample], numbers[sample], spectrum, len(X), PENALTIES)
    truth = numbers[sample]
    right = accuracy if spectrum.weights is None else balanced_accuracy
    best = int(
        np.argmax([right(truth, one.argmax(axis=1)) for one in scores])
    )  # the strongest of equal ones
    prior = log_prior("balanced", spectrum.weights)
    temperature = fit_temperature(truth, scores[best], offset=prior)
    out = scratch((len(X), len(spectrum.target_mean)), np.float32)
    for block in blocks(X):
        (one,) = _left_out(X[block], numbers[block], spectrum, len(X), PENALTIES[best : best + 1])
        out[block] = one
    right_share = accuracy(numbers, out.argmax(axis=1))
    for block in blocks(out):
        out[block] = softmax(out[block] / np.float32(temperature))
    return LeftOut(out, PENALTIES[best], right_share)


def _left_out(
    X: np.ndarray, numbers: np.ndarray, spectrum: Spectrum, rows: int, penalties: tuple[float, ...]
) -> list[np.ndarray]:
    """Return the scores (n, K) of rows that are left out, for each penalty."""
    rotated = spectrum.scaler.apply(X) @ spectrum.basis.astype(np.float32)
    squares = rotated**2
    # in row space the basis is not of unit length, and its last direction is only rounding
    norms = np.einsum("ij,ij->j", spectrum.basis, spectrum.basis)
    real = spectrum.eigenvalues > np.finfo(np.float32).eps * spectrum.eigenvalues.max()
    shares = np.divide(1 / rows, norms, out=np.zeros_like(norms), where=real)
    found = []
    targets = np.zeros((len(X), len(spectrum.target_mean)), np.float32)
    targets[np.arange(len(X)), numbers] = 1
    for penalty in penalties:
        inverse = 1 / (spectrum.eigenvalues + penalty)
        fitted = rotated @ (spectrum.projected * inverse[:, None]).astype(np.float32)
        fitted += spectrum.target_mean.astype(np.float32)
        leverage = squares @ (inverse * shares).astype(np.float32) + 1 / rows
        if spectrum.weights is not None:
            leverage *= spectrum.weights[numbers]
        left = np.maximum(1 - leverage, 1e-5)[:, None]
        found.append(targets - (targets - fitted) / left)
    return found
