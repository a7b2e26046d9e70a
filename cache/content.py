"""The identity of an image: a digest of its stored pixels, whatever its name, label, split or data set."""

from hashlib import blake2b

import numpy as np

from onepass.cache.provenance import digest_array

CONTENT_BYTES = 16  # BLAKE2b-128: 10⁹ images meet by chance with a probability of 10⁻²¹


def content_of(pixels: np.ndarray) -> np.ndarray:
    """Return the BLAKE2b-128 of each image's shape and bytes.

    Args:
        pixels: (N, H, W, C) uint8.

    Returns:
        (N, 16) uint8.
    """
    shape = str(pixels.shape[1:]).encode()
    digests = [_digest(shape + np.ascontiguousarray(row).tobytes()) for row in pixels]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, CONTENT_BYTES)


def source_of(encoded: bytes) -> np.ndarray:
    """Return the BLAKE2b-128 of an encoded image file, (16,) uint8."""
    return np.frombuffer(_digest(encoded), np.uint8)


def contents_digest(contents: np.ndarray) -> str:
    """Return the identity of images in their order, SHA-256 in hex, from their contents (N, 16) uint8."""
    return digest_array(contents)


class ContentIndex:
    """Finds digests among known ones.

    Args:
        known: (M, 16) uint8, repeats allowed.
    """

    def __init__(self, known: np.ndarray) -> None:
        values = _as_scalars(known)
        self._order = np.argsort(values, kind="stable")
        self._sorted = values[self._order]

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """Return for each wanted digest, (N, 16) uint8, the first known that is equal, -1 where none is.

        Returns:
            (N,) int64, indices into the known digests.
        """
        if not len(self._sorted):
            return np.full(len(wanted), -1)
        values = _as_scalars(wanted)
        place = np.minimum(np.searchsorted(self._sorted, values), len(self._sorted) - 1)
        return np.where(self._sorted[place] == values, self._order[place], -1)


def find(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return for each of the wanted digests the first known that is equal; see `ContentIndex`."""
    return ContentIndex(known).find(wanted)


def first_of_each(contents: np.ndarray) -> np.ndarray:
    """Return for each row the first row that has the same digest, (N,) int64."""
    return find(contents, contents)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=CONTENT_BYTES).digest()


def _as_scalars(digests: np.ndarray) -> np.ndarray:
    """Return (N, 16) uint8 as (N,) values that compare and sort as a whole."""
    return np.ascontiguousarray(digests).view(f"S{CONTENT_BYTES}")[:, 0]
