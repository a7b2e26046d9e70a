"""Stratified, seeded splits: selection, which choices are made on, and validation, scored once."""

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.cache.features import SPLITS

TRAIN, VAL, TEST = range(len(SPLITS))  # how a row's split is stored


def selection_split(
    labels: np.ndarray, rows: np.ndarray, *, fraction: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Hold a stratified part of the training rows out, for every choice that is made.

    Heads, hyper-parameters, backbones and sizes are compared on the selection rows only, so that
    the validation split stays unseen. Every class with at least two rows has one on either side; a
    class with a single row keeps it for fitting.

    Args:
        labels: (N,) integer, of all rows of the data set.
        rows: Training rows, indices into `labels`, each once, in any order.
        fraction: Part of the rows that is held out, between 0 and 1.
        seed: Another seed holds out other rows.

    Returns:
        (fit_rows, selection_rows), int64, each ascending; together they are `rows`.

    Raises:
        InvalidInputError: A row has no label, or `fraction` is not between 0 and 1.
    """
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    labels = np.asarray(labels)[rows]
    if rows.size and labels.min() < 0:
        raise InvalidInputError(
            f"selection split: expected labelled training rows, but row {rows[labels < 0][0]} has no label"
        )
    held = _hold_out(labels, fraction, seed)
    return rows[~held], rows[held]


def validation_split(labels: np.ndarray, *, fraction: float = 0.25, seed: int = 0) -> np.ndarray:
    """Split a data set that comes without a validation split of its own.

    Args:
        labels: (N,) integer >= 0; classes, or finer strata.
        fraction: Part of the rows that becomes "val", between 0 and 1.
        seed: Another seed draws other rows.

    Returns:
        (N,) int8, index into `SPLITS`: 0 is "train", 1 is "val".

    Raises:
        InvalidInputError: `fraction` is not between 0 and 1.
    """
    return np.where(_hold_out(np.asarray(labels), fraction, seed), VAL, TRAIN).astype(np.int8)


def _hold_out(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return (N,) bool, true where a row is held out."""
    if not 0 < fraction < 1:
        raise InvalidInputError(
            f"split fraction: expected a number between 0 and 1, received {fraction}"
        )
    held = np.zeros(len(labels), dtype=bool)
    classes, counts = np.unique(labels, return_counts=True)
    for label, count in zip(classes, _apportion(counts, fraction), strict=True):
        members = np.flatnonzero(labels == label)
        # NumPy promises the raw stream of a bit generator, not the results of its shuffles, to stay
        # the same in later versions. One stream a class: a new class leaves the others as they are.
        order = np.argsort(
            np.random.PCG64((seed, int(label))).random_raw(len(members)), kind="stable"
        )
        held[members[order[:count]]] = True
    return held


def _apportion(counts: np.ndarray, fraction: float) -> np.ndarray:
    """Return how many rows of each class are held out (the method of largest remainders).

    They add up to the rounded fraction of all rows, where no class has to be kept from running out.
    """
    quotas = counts * fraction
    taken = np.floor(quotas + 1e-9).astype(np.int64)
    left = int(np.floor(counts.sum() * fraction + 0.5)) - int(taken.sum())
    taken[np.argsort(-(quotas - taken), kind="stable")[: max(left, 0)]] += 1
    return np.where(counts > 1, np.clip(taken, 1, counts - 1), 0)
