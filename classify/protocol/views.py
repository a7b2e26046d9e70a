"""Several views of the same images: fitted on together, averaged when they predict.

A mirror image is another row with the same label while a head learns, and a second opinion of the
same image when it predicts (test-time augmentation: Krizhevsky, Sutskever and Hinton, 2012, section
4.1, averaged the softmax of ten patches).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from onepass.classify.heads.base import Head
from onepass.classify.heads.lazy_rows import Chosen, Rows, Stacked, held, take
from onepass.classify.metrics import TOP1, Metric, log_probabilities
from onepass.classify.search.search import Split, Trial

Vectors = Any  # (N, D) vectors, or a sequence of them: one for each view of the same images


def as_views(X: Vectors) -> tuple[Any, ...]:
    """Return the vectors of each view; those of one view alone are the only one."""
    return tuple(X) if isinstance(X, list | tuple) else (X,)


def stacked(X: Vectors, rows: np.ndarray) -> Rows:
    """Return the rows in one view after the other: (V · n, D)."""
    views = as_views(X)
    if len(views) == 1:
        return take(views[0], rows)
    return held(Stacked([Chosen(view, rows) for view in views]))


def repeated(labels: np.ndarray, X: Vectors) -> np.ndarray:
    """Return the labels of `stacked` rows: (V · n,)."""
    return np.tile(labels, len(as_views(X)))


def split_of(X: Vectors, labels: np.ndarray, fit: np.ndarray, held: np.ndarray) -> Split:
    """Return what a search fits on and compares on: rows in every view.

    Args:
        X: Vectors of all rows.
        labels: (N,) of all rows.
        fit, held: Ascending rows.
    """
    return Split(
        stacked(X, fit), repeated(labels[fit], X), stacked(X, held), repeated(labels[held], X)
    )


def mean_probabilities(head: Head, X: Vectors, rows: np.ndarray) -> np.ndarray:
    """Return the probabilities (n, K) of some rows, averaged over the views.

    Args:
        head: Fitted.
        X: Vectors of all rows, in one view or several.
        rows: (n,) ascending.
    """
    first, *others = as_views(X)
    total = head.predict_proba(take(first, rows))
    for view in others:
        total += head.predict_proba(take(view, rows))
    if others:
        total /= len(as_views(X))
    return total


def evaluated_together(
    trials: Sequence[Trial],
    X: Vectors,
    rows: np.ndarray,
    labels: np.ndarray,
    metric: Metric = TOP1,
) -> list[Trial]:
    """Return the trials of a search, evaluated by their mean probability over the views.

    A search evaluates each view of an image as a row of its own.

    Args:
        trials: With their fitted heads.
        X: Vectors of all rows, in several views.
        rows: The selection rows, (n,).
        labels: Their labels, (n,).
        metric: What is chosen by.
    """
    together = []
    for trial in trials:
        mean = mean_probabilities(trial.head, X, rows)
        truth = np.searchsorted(trial.head.classes_, labels)
        together.append(Trial.of(trial.head, trial.params, truth, log_probabilities(mean), metric))
    return together
