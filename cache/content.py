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


def find(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return for each wanted digest the index of the first that is equal to it, -1 where none is.

    Args:
        known: (M, 16) uint8, repeats allowed.
        wanted: (N, 16) uint8.

    Returns:
        (N,) int64.
    """
    if not len(known):
        return np.full(len(wanted), -1)
    have, want = _as_scalars(known), _as_scalars(wanted)
    order = np.argsort(have, kind="stable")
    place = np.minimum(np.searchsorted(have, want, sorter=order), len(have) - 1)
    found = order[place]
    return np.where(have[found] == want, found, -1)


def first_of_each(contents: np.ndarray) -> np.ndarray:
    """Return for each row the first row that has the same digest, (N,) int64."""
    return find(contents, contents)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=CONTENT_BYTES).digest()


def _as_scalars(digests: np.ndarray) -> np.ndarray:
    """Return (N, 16) uint8 as (N,) values that compare and sort as a whole."""
    return np.ascontiguousarray(digests).view(f"S{CONTENT_BYTES}")[:, 0]
