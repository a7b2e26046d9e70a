"""Which labels are probably wrong: confident learning, some classes at a time.

Northcutt, Jiang and Chuang, "Confident Learning", JAIR 70, 2021, as cleanlab does it, which by itself would hold all
probabilities several times.
"""

import warnings
from collections.abc import Iterator

import numpy as np

from onepass.cache.memory import block_bytes
from onepass.classify.heads.lazy_rows import Rows, blocks

CLOSE = 1e-6  # cleanlab's: a probability that is as near to a threshold has reached it
COPIES = 4  # of the probabilities of some classes, that cleanlab makes


def find_errors(given: np.ndarray, chances: Rows) -> np.ndarray:
    """Return which labels are wrong by class and by noise rate both, bool (n,); that spares classes that are hard.

    Args:
        given: Labels, (n,), at least two classes.
        chances: Probabilities of each class, by a head that has not seen the row, (n, K) float64.
    """
    from cleanlab.filter import find_label_issues

    joint, wrong = _confident_joint(given, chances), np.zeros(len(given), bool)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of classes without rows, as those of other groups are
        for rows in _groups(given, block_bytes() // (8 * COPIES * chances.shape[1])):
            wrong[rows] = find_label_issues(
                given[rows], chances[rows], confident_joint=joint, filter_by="both", n_jobs=1
            )
    return wrong


def _confident_joint(given: np.ndarray, chances: Rows) -> np.ndarray:
    """Return how many rows of each label (first axis) are of each class, (K, K); `compute_confident_joint`."""
    from cleanlab.count import calibrate_confident_joint

    classes = chances.shape[1]
    counts, joint = np.bincount(given, minlength=classes), np.zeros((classes, classes), int)
    own = np.concatenate([chances[b][np.arange(len(given[b])), given[b]] for b in blocks(chances)])
    means = np.bincount(given, own, classes) / np.maximum(counts, 1)
    least = (
        np.where(counts, np.maximum(means, 2 * CLOSE), 2.0) - CLOSE
    )  # nobody is sure of a class without rows
    for block in blocks(chances):
        rows = chances[block]
        sure = rows >= least
        several = sure.sum(axis=1) > 1
        guess = np.where(several, rows.argmax(axis=1), sure.argmax(axis=1))
        known = sure.any(axis=1)
        np.add.at(joint, (given[block][known], guess[known]), 1)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    return calibrate_confident_joint(joint, given)


def _groups(given: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Yield the rows of some whole classes, two at least, about `most` rows at a time."""
    order = np.argsort(given, kind="stable")
    ends = np.unique(given, return_counts=True)[1].cumsum()
    begin, classes = 0, 0
    for number, end in enumerate(ends, 1):
        classes += 1
        left = len(ends) - number
        full = left >= 2 and ends[number] - begin > most
        if not left or (classes >= 2 and full):
            yield np.sort(order[begin:end])
            begin, classes = end, 0
