"""What a classifier gets wrong: by class, by pair of classes, and where it was most sure of itself."""

import numpy as np


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each true class (row) was taken for each class (column): (K, K) int64."""
    flat = np.bincount(truth.astype(np.int64) * classes + predicted, minlength=classes**2)
    return flat.reshape(classes, classes)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return the share of each class's rows that was found, (K,) float64; NaN for a class without rows."""
    rows = confusion.sum(axis=1)
    return np.where(rows > 0, confusion.diagonal() / np.maximum(rows, 1), np.nan)


def worst_classes(confusion: np.ndarray, count: int) -> list[int]:
    """Return the classes of lowest accuracy, worst first; those without rows are left out."""
    order = np.argsort(class_accuracy(confusion), kind="stable")  # NaN comes last
    return [int(k) for k in order[:count] if confusion[k].sum()]


def confused_pairs(confusion: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """Return (true class, taken for, how often) of the pairs most often confused, most first."""
    off = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-off, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, off.shape), strict=True)
    return [(int(i), int(j), int(off[i, j])) for i, j in places if off[i, j]]


def confident_mistakes(probabilities: np.ndarray, truth: np.ndarray, count: int) -> np.ndarray:
    """Return the places (≤ count,) of the wrong rows with the highest probability, highest first.

    Args:
        probabilities: (n, K).
        truth: (n,) the true column of each row.
        count: How many are wanted.
    """
    taken = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(taken != truth)
    sureness = probabilities[wrong, taken[wrong]].astype(np.float64)
    return wrong[np.argsort(-sureness, kind="stable")[:count]]
