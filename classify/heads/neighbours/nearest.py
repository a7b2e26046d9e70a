"""The nearest rows of many rows, by cosine: one matrix product and a reduction over groups."""

import numpy as np

GROUPS = 512  # of base rows; a neighbour is missed if a nearer one is in its group
BLOCK_NUMBERS = 1 << 24  # similarities held at a time: 64 MB
NONE = -2.0  # below every cosine


def nearest(
    queries: np.ndarray, base: np.ndarray, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k rows of `base` that are most similar to each query.

    The nearest one is always the nearest; of the others a share of about k / 1024 is replaced by the
    next one, as only the best of each group counts (Chern et al., "TPU-KNN: K Nearest Neighbor Search
    at Peak FLOP/s", NeurIPS 2022). Up to 512 rows of base, all are exact. A full sort of 40,000
    similarities takes ten times as long as computing them.

    Args:
        queries: (n, D) float32, unit length.
        base: (m, D) float32, unit length; m > k.
        k: How many.
        own: (n,) row of `base` that is the query itself and does not count, or -1.

    Returns:
        Rows of `base` (n, k) int64 and their cosines (n, k) float32, the nearest first.
    """
    groups = min(GROUPS, len(base))
    members = -(-len(base) // groups)
    padded = np.zeros((groups * members, base.shape[1]), np.float32)
    padded[: len(base)] = base
    rows, cosines = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    step = max(1, BLOCK_NUMBERS // len(padded))
    for start in range(0, len(queries), step):
        block = slice(start, min(start + step, len(queries)))
        similar = queries[block] @ padded.T
        similar[:, len(base) :] = NONE
        if own is not None:
            at = np.flatnonzero(own[block] >= 0)
            similar[at, own[block][at]] = NONE
        # row r of base is member r // groups of group r % groups: neighbours in order are apart
        rows[block], cosines[block] = _best(similar.reshape(len(similar), members, groups), k)
    return rows, cosines


def _best(similar: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and cosines of the k best groups of (n, members, groups)."""
    count, _, groups = similar.shape
    best = similar.max(axis=1)
    chosen = np.argpartition(-best, min(k, groups - 1), axis=1)[:, :k]
    lines = np.arange(count)[:, None]
    order = np.argsort(-best[lines, chosen], axis=1, kind="stable")
    chosen = chosen[lines, order]
    member = similar.transpose(0, 2, 1)[lines, chosen].argmax(axis=2)
    return member * groups + chosen, best[lines, chosen]


def unit_length(X: np.ndarray) -> np.ndarray:
    """Return rows (n, D) float32 divided by their length; a row of zeros stays so."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return (X / np.where(length > 0, length, 1)).astype(np.float32)
