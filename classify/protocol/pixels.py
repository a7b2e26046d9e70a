"""Images as vectors, for the baselines that need no backbone."""

import numpy as np

from onepass.classify.heads.lazy_rows import BLOCK_NUMBERS


def pixel_features(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return images as vectors, shrunk by area averaging.

    Each new pixel is the mean of the old ones that it covers, counted by their share of its area.
    An image that is smaller keeps its own size.

    Args:
        pixels: (N, H, W, C) uint8; may be a memory map.
        side: Height and width to shrink to (px).

    Returns:
        (N, D) float16, D = min(H, side) · min(W, side) · C, values 0 … 255.
    """
    count, height, width, channels = pixels.shape
    rows, columns = area_weights(height, side), area_weights(width, side)
    out = np.empty((count, len(rows), len(columns), channels), np.float16)
    step = max(1, BLOCK_NUMBERS // (height * width * channels))
    for start in range(0, count, step):
        block = pixels[start : start + step].astype(np.float32)
        lines = rows @ block.reshape(len(block), height, width * channels)
        lines = lines.reshape(len(block), len(rows), width, channels).swapaxes(2, 3)
        out[start : start + step] = (lines @ columns.T).swapaxes(2, 3)
    return out.reshape(count, -1)


def area_weights(size: int, side: int) -> np.ndarray:
    """Return the matrix (min(size, side), size), float32, that averages a line of `size` pixels."""
    side = min(size, side)
    edges = np.arange(side + 1) * (size / side)
    starts = np.arange(size)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.maximum(overlap, 0) * (side / size)).astype(np.float32)
