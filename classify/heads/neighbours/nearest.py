"""The nearest rows of many rows by cosine: one matrix product, and a search for the largest of each line."""

import numpy as np

BLOCK_NUMBERS = 1 << 25  # similarities held at a time: 128 MB as float32
GROUP = 32  # columns of a group, of which the maximum is taken first
NONE = -2.0  # below every cosine


def nearest(
    queries: np.ndarray, base: np.ndarray, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k rows of `base` that are most similar to each query.

    Args:
        queries: (n, D) float32 or float64, of length 1.
        base: (m, D) of the same dtype, of length 1; m > k, or m = k where nothing is left out.
        k: How many.
        own: (n,) row of `base` that is the query itself and does not count, or -1.

    Returns:
        Rows of `base` (n, k) int64 and their cosines (n, k), the nearest first.
    """
    rows = np.empty((len(queries), k), np.int64)
    cosines = np.empty((len(queries), k), queries.dtype)
    size = max(1, BLOCK_NUMBERS // len(base))
    for start in range(0, len(queries), size):
        block = slice(start, start + size)
        similar = queries[block] @ base.T
        if own is not None:
            lines = np.flatnonzero(own[block] >= 0)
            similar[lines, own[block][lines]] = NONE
        rows[block] = largest(similar, k)
        cosines[block] = np.take_along_axis(similar, rows[block], axis=1)
    return rows, cosines


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Return rows (n, D) divided by their length; a row of zeros stays one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k largest of each line of values (n, m), largest first, (n, k).

    Among equal ones that are returned the first column stands first.
    """
    columns = _candidates(values, k)
    near = np.take_along_axis(values, columns, axis=1)
    if k < columns.shape[1]:
        few = np.argpartition(near, -k, axis=1)[:, -k:]
        columns = np.sort(np.take_along_axis(columns, few, axis=1))
        near = np.take_along_axis(values, columns, axis=1)
    order = np.argsort(-near, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _candidates(values: np.ndarray, k: int) -> np.ndarray:
    """Return columns (n, c) of each line, among which its k largest values are.

    The columns j, j + groups, j + 2 groups, … are a group. The k largest lie in the k groups with the
    largest maxima, and maxima of long runs are read far faster than a line is partitioned.
    """
    count, length = values.shape
    groups = length // GROUP
    if 8 * k > groups:  # too few would be left out
        return np.tile(np.arange(length), (count, 1))
    whole = values[:, : groups * GROUP].reshape(count, GROUP, groups)
    best = np.argpartition(whole.max(axis=1), -k, axis=1)[:, -k:]
    members = best[:, None, :] + groups * np.arange(GROUP)[:, None]
    rest = np.broadcast_to(np.arange(groups * GROUP, length), (count, length - groups * GROUP))
    return np.concatenate([members.reshape(count, -1), rest], axis=1)
