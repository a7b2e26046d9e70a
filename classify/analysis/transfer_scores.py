"""How well features will do, said before anything is trained on them.

LogME and the H-score look at vectors and labels; NCE, LEEP and the zero-training baseline at the
ImageNet logits that the backbone gave for the same rows. Higher is better for each. None of them
sees a validation row: the caller passes training rows only.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from onepass.classify.heads.baselines.imagenet import ABSENT
from onepass.classify.heads.lazy_rows import blocks
from onepass.classify.metrics import accuracy, softmax

ROUNDS = 100  # of LogME's fixed point; it has settled after about ten
SETTLED = 1e-4  # relative change of the ratio of the two precisions
PRECISE = 1e6  # largest β: with more features than rows the labels may be fitted without any noise
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class Moments:
    """All that LogME and the H-score need of n rows X (n, D), from two reads of them.

    Products are float32 within a block of rows and float64 across blocks.

    Attributes:
        counts: (K,) rows of each class.
        mean: (D,) float64.
        class_means: (K, D) float64.
        scatter: (D, D) float64, sum of the centred rows' outer products.
        fourth: Sum over rows of ||x - mean||⁴, for the amount of shrinkage.
    """

    counts: np.ndarray
    mean: np.ndarray
    class_means: np.ndarray
    scatter: np.ndarray
    fourth: float

    @classmethod
    def of(cls, X: np.ndarray, numbers: np.ndarray, classes: int) -> "Moments":
        """Read the rows X (n, D), float16 or float32, with class numbers (n,); each class has one."""
        counts, features = np.bincount(numbers, minlength=classes), X.shape[1]
        mean = sum(X[b].sum(axis=0, dtype=np.float64) for b in blocks(X)) / len(X)
        sums, scatter = np.zeros((classes, features)), np.zeros((features, features))
        fourth = 0.0
        for block in blocks(X):
            rows = X[block].astype(np.float32)
            rows -= mean.astype(np.float32)
            scatter += rows.T @ rows
            indicators = np.zeros((classes, len(rows)), np.float32)
            indicators[numbers[block], np.arange(len(rows))] = 1
            sums += indicators @ rows
            squares = np.einsum("ij,ij->i", rows, rows).astype(np.float64)
            fourth += float(squares @ squares)
        return cls(counts, mean, sums / counts[:, None] + mean, scatter, fourth)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.counts.sum())


def logme(moments: Moments) -> float:
    """Return the logarithm of the maximum evidence of the labels given the features, a row.

    You, Liu, Wang and Long, "LogME: Practical Assessment of Pre-trained Models for Transfer
    Learning", ICML 2021 (arXiv 2102.11005), equations 2 to 4 and algorithm 1: Bayesian linear
    regression onto each class's 0/1 indicator, its two precisions α and β at a fixed point; the mean
    over the classes. All classes are solved together in the eigenbasis of XᵀX, which is not centred.
    """
    n = moments.rows
    gram = moments.scatter + n * np.outer(moments.mean, moments.mean)
    eigenvalues, basis = eigh(gram, overwrite_a=True)
    noise = eigenvalues <= np.finfo(np.float32).eps * np.trace(moments.scatter)
    eigenvalues = np.where(noise, 0, eigenvalues)[:, None]
    targets = moments.counts.astype(np.float64)  # yᵀy of 0/1 indicators
    aligned = basis.T @ (moments.class_means * targets[:, None]).T  # (D, K), Xᵀy
    aligned[noise] = 0
    alpha, beta = np.ones_like(targets), np.ones_like(targets)
    for _ in range(ROUNDS):
        weights = beta * aligned / (alpha + beta * eigenvalues)
        norm, residual = _norms(weights, aligned, eigenvalues, targets)
        effective = np.sum(beta * eigenvalues / (alpha + beta * eigenvalues), axis=0)
        before = alpha / beta
        alpha, beta = effective / norm, np.minimum((n - effective) / residual, PRECISE)
        if np.all(np.abs(alpha / beta - before) <= SETTLED * before):
            break
    weights = beta * aligned / (alpha + beta * eigenvalues)
    norm, residual = _norms(weights, aligned, eigenvalues, targets)
    evidence = (
        n * np.log(beta)
        + len(eigenvalues) * np.log(alpha)
        - n * np.log(2 * np.pi)
        - beta * residual
        - alpha * norm
        - np.log(alpha + beta * eigenvalues).sum(axis=0)
    ) / 2
    return float(np.mean(evidence / n))


def _norms(
    weights: np.ndarray, aligned: np.ndarray, eigenvalues: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ||w||² and ||Xw - y||² of each class, both above 0."""
    squares = weights**2
    fit = np.sum(eigenvalues * squares - 2 * weights * aligned, axis=0)
    return np.maximum(squares.sum(axis=0), TINY), np.maximum(targets + fit, TINY)


def h_score(moments: Moments, shrink: bool = True) -> tuple[float, float]:
    """Return the share of the features' variance that the classes explain, and the shrinkage.

    tr(cov(X)⁻¹ cov(E[X|y])): Bao et al., "An Information-Theoretic Approach to Transferability in
    Task Transfer Learning", ICIP 2019. With shrinkage: Ibrahim, Ponomareva and Mazumder, "Newer is
    not always better", 2021 (arXiv 2110.06893): the covariance is mixed with a multiple of the
    identity by Ledoit and Wolf's amount, and the other one is scaled down by the same.

    Args:
        moments: Of the training rows.
        shrink: False is the original, whose inverse has a meaning only with many more rows than
            features.

    Returns:
        The score, at most K - 1, and the share of the identity, 0 … 1.
    """
    n, features = moments.rows, len(moments.mean)
    covariance = moments.scatter / n
    sphere = float(np.trace(covariance)) / features
    amount = _ledoit_wolf(covariance, sphere, moments.fourth, n) if shrink else 0.0
    between = (moments.class_means - moments.mean) * np.sqrt(moments.counts / n)[:, None]
    # the tiny part keeps features that never move from dividing by zero
    mixed = (1 - amount) * covariance
    mixed.flat[:: features + 1] += amount * sphere + 1e-9 * max(sphere, TINY)
    solved = cho_solve(cho_factor(mixed, lower=True, overwrite_a=True), between.T)
    return float((1 - amount) * np.sum(between.T * solved)), amount


def _ledoit_wolf(covariance: np.ndarray, sphere: float, fourth: float, n: int) -> float:
    """Return Ledoit and Wolf's optimal share of the identity (J. Multivariate Analysis 88, 2004)."""
    squared = float(np.sum(covariance**2))
    distance = squared - len(covariance) * sphere**2
    error = (fourth / n - squared) / n
    return min(1.0, max(0.0, error / distance)) if distance > 0 else 1.0


def nce(logits: np.ndarray, numbers: np.ndarray, classes: int) -> float:
    """Return minus the entropy (nats) of the label once the backbone's own class is known.

    Tran, Nguyen and Hassner, "Transferability and Hardness of Supervised Classification Tasks",
    ICCV 2019, with the backbone's most probable class as the source label. 0 at best.

    Args:
        logits: (n, Z) of the backbone.
        numbers: (n,) class numbers.
        classes: How many classes there are.
    """
    joint = np.zeros((classes, logits.shape[1]))
    for block in blocks(logits):
        np.add.at(joint, (numbers[block], logits[block].argmax(axis=1)), 1 / len(numbers))
    present = joint[joint > 0]
    marginal = joint.sum(axis=0)
    marginal = marginal[marginal > 0]
    return float(np.sum(present * np.log(present)) - np.sum(marginal * np.log(marginal)))


def leep(logits: np.ndarray, numbers: np.ndarray, classes: int) -> float:
    """Return the mean log-probability (nats) of the labels by the expected empirical predictor.

    Nguyen, Hassner, Seeger and Archambeau, "LEEP: A New Measure to Evaluate Transferability of
    Learned Representations", ICML 2020, equations 1 and 2. 0 at best. Arguments as `nce`.
    """
    joint = np.zeros((classes, logits.shape[1]))
    for block in blocks(logits):
        source = softmax(logits[block].astype(np.float32))
        indicators = np.zeros((classes, len(source)), np.float32)
        indicators[numbers[block], np.arange(len(source))] = 1
        joint += indicators @ source
    given = (joint / np.maximum(joint.sum(axis=0), TINY)).astype(np.float32)
    total = 0.0
    for block in blocks(logits):
        source = softmax(logits[block].astype(np.float32))
        own = np.einsum("ij,ij->i", source, given[numbers[block]])
        total += float(np.log(np.maximum(own, TINY), dtype=np.float64).sum())
    return total / len(numbers)


def zero_training(logits: np.ndarray, numbers: np.ndarray, columns: list[int]) -> float | None:
    """Return the top-1 of the backbone's own classes, restricted to those that the data set has.

    Args:
        logits: (n, Z) of the backbone.
        numbers: (n,) class numbers; rows of a class without a column are left out.
        columns: From `imagenet_columns`.
    """
    places = np.asarray(columns)
    known = np.flatnonzero(places != ABSENT)
    rows = np.flatnonzero(np.isin(numbers, known))
    if len(known) < 2 or not len(rows):
        return None
    parts = [logits[block][:, places[known]].argmax(axis=1) for block in blocks(logits)]
    return accuracy(numbers[rows], known[np.concatenate(parts)][rows])
