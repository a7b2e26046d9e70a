"""The nearest rows of many rows by cosine: matrix products, and a search for the largest of each line."""

from contextlib import nullcontext

import numpy as np

from onepass.cache.memory import block_bytes
from onepass.cache.progress import Progress
from onepass.classify.heads.float16 import widen
from onepass.classify.heads.lazy_rows import Rows, blocks

BLOCK_NUMBERS = 1 << 25  # similarities held at a time: 128 MB as float32
BASE_ROWS = 1 << 15  # rows of `base` that are compared at a time
GROUP = 32  # columns of a group, of which the maximum is taken first
NONE = -2.0  # below every cosine


def nearest(
    queries: Rows, base: Rows, k: int, own: np.ndarray | None = None, label: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k rows of `base` that are most similar to each query.

    `base` is read once for all queries that the memory budget has room for.

    Args:
        queries: (n, D) float32 or float64, of length 1.
        base: (m, D) float, of length 1; m > k, or m = k where nothing is left out.
        k: How many.
        own: (n,) row of `base` that is the query itself and does not count, or -1.
        label: What the progress is called; "": none is shown.

    Returns:
        Rows of `base` (n, k) int64 and their cosines (n, k), the nearest first.
    """
    found = np.zeros((len(queries), k), np.int64)
    cosines = np.full((len(queries), k), -np.inf, queries.dtype)
    many = min(BASE_ROWS, len(base))
    size = max(1, BLOCK_NUMBERS // many)
    room = block_bytes() // (queries.dtype.itemsize * queries.shape[1])
    room = max(1, room // size) * size
    buffer = np.empty((many, base.shape[1]), queries.dtype)
    held = np.empty((min(room, len(queries)), base.shape[1]), queries.dtype)
    with Progress(len(queries), "rows", label) if label else nullcontext() as progress:
        for begin in range(0, len(queries), room):
            some = _read(queries, begin, held[: len(queries) - begin])
            for first in range(0, len(base), many):
                rows = _read(base, first, buffer[: len(base) - first])
                for start in range(0, len(some), size):
                    block = slice(begin + start, min(begin + start + size, begin + len(some)))
                    similar = some[start : start + size] @ rows.T
                    if own is not None:
                        lines = np.flatnonzero((own[block] >= first) & (own[block] < first + many))
                        similar[lines, own[block][lines] - first] = NONE
                    near = largest(similar, min(k, len(rows)))
                    values = np.take_along_axis(similar, near, axis=1)
                    if first:
                        near = np.concatenate([found[block], near + first], axis=1)
                        values = np.concatenate([cosines[block], values], axis=1)
                        best = largest(values, k)
                        near = np.take_along_axis(near, best, axis=1)
                        values = np.take_along_axis(values, best, axis=1)
                    found[block, : near.shape[1]], cosines[block, : near.shape[1]] = near, values
                if progress:
                    share = len(some) * min(first + many, len(base)) // len(base)
                    progress.advance(begin + share - progress.done)
    return found, cosines


def _read(rows: Rows, begin: int, out: np.ndarray) -> np.ndarray:
    """Fill `out` with rows from `begin` on, a few at a time: what they are made of takes more room than they do."""
    for block in blocks(out):
        widen(rows[begin + block.start : begin + block.stop], out[block])
    return out


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
