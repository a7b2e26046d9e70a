"""Images that occur twice: neighbours in feature space whose pixels agree as well."""

import numpy as np

from onepass.cache.artifacts import record
from onepass.classify.protocol.pixels import pixel_features

SIDE = 32  # px at which pixels are compared
HASH = 8  # rows and columns of a difference hash
COSINE = 0.9  # between standardised features; the pixels decide
CORRELATION = 0.97  # of the pixels, less what all images have in common
MOST_BITS = 12  # that differ between the hashes of one picture
CANDIDATES = 20_000  # pairs that are looked at, the most similar ones
FLAT = 1.0  # grey levels of deviation; less is no picture


@record
class Pair:
    """Two rows that show the same picture.

    Attributes:
        row, other: Rows of the data set; `other` is a training row.
        cosine: Of their standardised, centred features.
        correlation: Of their pixels at 32 px, less the mean image, -1 … 1.
        bits: How many of the 64 bits of their difference hashes differ.
        mirrored: Whether it is the mirror image that agrees.
        exact: Whether every pixel is the same.
    """

    row: int
    other: int
    cosine: float
    correlation: float
    bits: int
    mirrored: bool
    exact: bool


def confirmed_pairs(
    pixels: np.ndarray, rows: np.ndarray, others: np.ndarray, cosines: np.ndarray
) -> list[Pair]:
    """Return the candidates whose pixels agree, the most alike first.

    Similar features are not enough: two photographs of one kind of thing have them. The mean image
    is taken off before pixels are compared, because images of one instrument (a solar cell with its
    wires) agree in it without being the same.

    Args:
        pixels: (N, H, W, C) uint8 of the data set.
        rows, others: (m,) rows of each candidate pair.
        cosines: (m,) of their features.
    """
    order = np.argsort(-cosines, kind="stable")[:CANDIDATES]
    order = order[cosines[order] >= COSINE]
    if not len(order):
        return []
    rows, others, cosines = rows[order], others[order], cosines[order]
    places, inverse = np.unique(np.concatenate([rows, others]), return_inverse=True)
    grey = _grey(pixels, places)
    common = _grey(pixels, _spread(len(pixels))).mean(axis=0)
    left, right = grey[inverse[: len(rows)]], grey[inverse[len(rows) :]]
    plain = _agreement(left, right, common)
    mirror = _agreement(left, right[:, :, ::-1], common)
    mirrored = mirror[0] > plain[0]
    correlation = np.where(mirrored, mirror[0], plain[0])
    bits = np.where(mirrored, mirror[1], plain[1])
    kept = np.flatnonzero((correlation >= CORRELATION) & (bits <= MOST_BITS))
    pairs = [
        Pair(
            int(rows[i]), int(others[i]), round(float(cosines[i]), 4),
            round(float(correlation[i]), 4), int(bits[i]), bool(mirrored[i]),
            bool(np.array_equal(pixels[rows[i]], pixels[others[i]])),
        )
        for i in kept
    ]  # fmt: skip
    return sorted(pairs, key=lambda p: (not p.exact, -p.correlation, p.row, p.other))


def _spread(count: int, most: int = 1_000) -> np.ndarray:
    """Return up to `most` rows from all over the data set."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _grey(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return rows as grey images (n, h, w) float32 of at most 32 px."""
    height, width, channels = (min(a, b) for a, b in zip(pixels.shape[1:], (SIDE, SIDE, 3), strict=True))  # fmt: skip
    small = pixel_features(pixels[rows], SIDE).astype(np.float32)
    return small.reshape(len(rows), height, width, channels).mean(axis=3)


def _agreement(
    left: np.ndarray, right: np.ndarray, common: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation and the differing hash bits of pairs of grey images (m, h, w)."""
    bits = (difference_hash(left) != difference_hash(right)).sum(axis=1)
    a, b = ((images - common).reshape(len(images), -1) for images in (left, right))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    product = np.einsum("ij,ij->i", a, b)
    shown = lengths > FLAT**2 * a.shape[1]
    return np.divide(product, lengths, out=np.zeros_like(product), where=shown), bits


def difference_hash(grey: np.ndarray) -> np.ndarray:
    """Return whether each of 8 × 8 places is darker than its right neighbour, bool (n, 64).

    Krawetz, "Kind of Like That", 2013: blind to size, brightness and contrast.

    Args:
        grey: (n, h, w) float32; sampled at 8 × 9 places.
    """
    _, height, width = grey.shape
    lines = np.linspace(0, height - 1, HASH).round().astype(int)
    columns = np.linspace(0, width - 1, HASH + 1).round().astype(int)
    small = grey[:, lines][:, :, columns]
    return (small[:, :, :-1] < small[:, :, 1:]).reshape(len(grey), -1)
