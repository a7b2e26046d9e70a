"""Bicubic resizing as two matrices, and the views of an image that come with them for free."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.data.views import VIEW_HELP

VIEW = re.compile(
    r"(?P<mirrored>flip)?((?(mirrored)-|)turn:(?P<turn>90|180|270))?|random:(?P<seed>\d+)|scale:(?P<scale>\d+(\.\d+)?)"
    r"|crop:(?P<crop>tl|tr|bl|br|center)"
)
CROP_SHARE = 0.875  # of the side that a crop view keeps, as in ImageNet evaluation (224 of 256)
PILLOW_UNIT = 1 << 22  # Pillow's weights are whole multiples of 1 / this: ties round alike then


def bicubic_matrix(
    source: int, target: int, start: float = 0.0, length: float | None = None
) -> np.ndarray:
    """Return the weights with which `source` pixels make `target` ones along one axis.

    Keys' cubic convolution, widened when shrinking so that
    nothing is skipped: what Pillow's `Image.resize(..., BICUBIC, box=...)` does.

    Args:
        source: Pixels along the axis.
        target: Pixels wanted.
        start: Where the part to be resized begins (px).
        length: How long that part is (px); by default all that follows.

    Returns:
        (target, source) float32; each row sums to 1 within 1e-5.
    """
    length = source - start if length is None else length
    step = length / target
    widening = max(step, 1.0)
    centres = start + (np.arange(target) + 0.5) * step
    pixels = np.arange(source) + 0.5
    # Pillow cuts the support to whole pixels; those cut off would weigh next to nothing.
    low = np.floor(centres - 2 * widening + 0.5)[:, None]
    high = np.floor(centres + 2 * widening + 0.5)[:, None]
    inside = (pixels - 0.5 >= low) & (pixels - 0.5 < high)
    t = np.abs(pixels - centres[:, None]) / widening
    weights = np.where(inside, keys_cubic(t, np.where), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return (np.rint(weights * PILLOW_UNIT) / PILLOW_UNIT).astype(np.float32)


def keys_cubic(t: Any, where: Callable[..., Any]) -> Any:
    """Return what a pixel weighs at a distance of t >= 0 pixels: a = -0.5 (Keys, IEEE Trans. ASSP 29, 1981).

    Args:
        t: An array of any library.
        where: That library's.
    """
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return where(t < 1, near, where(t < 2, far, 0.0))


def view_matrices(
    height: int, width: int, size: int, view: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices that make (size, size) of (height, width), looked at as `view` says.

    Args:
        height: Of the stored image (px).
        width: Of the stored image (px).
        size: Side that the backbone sees (px).
        view: "" for the whole image, `flip` (left to right), `turn:90` (counter-clockwise by so many degrees),
            `flip-turn:90` (first the one, then the other), `scale:1.15` (the middle, enlarged by that factor), or
            `crop:tl|tr|bl|br|center` (a part of 7/8 of the side).

    Returns:
        Vertical (size, height) and horizontal (size, width), float32; where `is_transposed(view)`, those of the
        transposed image, (size, width) and (size, height).

    Raises:
        InvalidInputError: There is no such view.
    """
    match = VIEW.fullmatch(view)
    if view and not match:
        raise InvalidInputError(f"view {view!r}: expected {VIEW_HELP} or random:SEED")
    share, place = 1.0, "center"
    if match and match["scale"]:
        share = 1 / float(match["scale"]) if float(match["scale"]) >= 1 else 0.0
        if not share:
            raise InvalidInputError(f"view {view!r}: expected a factor of at least 1")
    elif match and match["crop"]:
        share, place = CROP_SHARE, match["crop"]
    down = {"t": 0.0, "b": 1.0}.get(place[0], 0.5)
    right = {"l": 0.0, "r": 1.0}.get(place[1], 0.5) if place != "center" else 0.5
    vertical = bicubic_matrix(height, size, (1 - share) * height * down, share * height)
    horizontal = bicubic_matrix(width, size, (1 - share) * width * right, share * width)
    if match and match["mirrored"]:
        horizontal = horizontal[::-1]
    turned = _turned(vertical, horizontal, match["turn"] if match else None)
    return np.ascontiguousarray(turned[0]), np.ascontiguousarray(turned[1])


def _turned(
    vertical: np.ndarray, horizontal: np.ndarray, degrees: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices of the image that two matrices make, turned counter-clockwise."""
    match degrees:
        case "90":
            return horizontal[::-1], vertical
        case "180":
            return vertical[::-1], horizontal[::-1]
        case "270":
            return horizontal, vertical[::-1]
    return vertical, horizontal


def is_transposed(view: str) -> bool:
    """Say whether rows and columns of the image change places in a view, before its matrices are used."""
    return view.endswith(("turn:90", "turn:270"))


def random_seed(view: str) -> int | None:
    """Return the seed of a random view, None for any other."""
    match = VIEW.fullmatch(view)
    return int(match["seed"]) if match and match["seed"] else None


def draw_boxes(seed: int, contents: np.ndarray) -> np.ndarray:
    """Draw for each image which part of it is looked at, and whether mirrored.

    As in Inception's training (Szegedy et al., arXiv 1409.4842): 40 % to 100 % of the area, sides 3:4 to
    4:3, anywhere; mirrored every other time. The draw depends on the seed and the image alone.

    Args:
        seed: Of the view.
        contents: (N, 16) uint8: the images' contents.

    Returns:
        (N, 5) float32: top, left, height, width as shares of the image; 1.0 where mirrored.
    """
    draws = [
        np.random.default_rng([seed, *content.view("<u4").tolist()]).random(5)
        for content in np.ascontiguousarray(contents)
    ]
    area, stretch, down, right, mirror = np.array(draws).reshape(-1, 5).T
    side = np.sqrt(0.4 + 0.6 * area)
    ratio = np.exp((2 * stretch - 1) * np.log(4 / 3) / 2)
    height, width = np.minimum(side * ratio, 1), np.minimum(side / ratio, 1)
    boxes = [(1 - height) * down, (1 - width) * right, height, width, mirror < 0.5]
    return np.stack(boxes, axis=1).astype(np.float32)
