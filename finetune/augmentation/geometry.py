"""Where in a stored image each place of an augmented one lies: affine maps, on the host.

Places are (x, y) as shares of the side, counted from the middle: the image reaches from −1/2 to 1/2,
x to the right, y down. A map is (2, 3): A [x, y, 1] is the place in the stored image.
"""

import numpy as np

CORNERS = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
SMALLEST_FRAME = (
    1e-3  # keeps the inverse of a frame finite where next to nothing of an image is seen
)


def affine_maps(
    *,
    angle: np.ndarray,
    slant_x: np.ndarray,
    slant_y: np.ndarray,
    shift_x: np.ndarray,
    shift_y: np.ndarray,
    zoom: np.ndarray,
    box: np.ndarray,
    upside: np.ndarray,
    mirror: np.ndarray,
    **_: np.ndarray,
) -> np.ndarray:
    """Compose all that moves an image into one map.

    From the result to the stored image: enlarge, slant, turn, shift, place within the box, mirror.

    Args:
        angle: Of the turn, counterclockwise as seen (radians).
        slant_x: Tangent of the slant along the rows.
        slant_y: The same along the columns.
        shift_x: To the right (shares of the side).
        shift_y: Down.
        zoom: Factor of enlargement.
        box: (B, 4) top, left, height, width of the part looked at, from the upper left corner.
        upside: (B,) bool.
        mirror: (B,) bool.

    Returns:
        (B, 2, 3) float64.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2)
    one = np.ones_like(slant_x)
    slant = np.stack([one, slant_x, slant_y, one], axis=1).reshape(-1, 2, 2)
    linear = turn @ slant / zoom[:, None, None]
    shift = np.stack([-shift_x, -shift_y], axis=1)
    sides = box[:, [3, 2]]
    signs = np.where(np.stack([mirror, upside], axis=1), -1.0, 1.0)
    middle = box[:, [1, 0]] + sides / 2 - 0.5
    shift = signs * (sides * shift + middle)
    return np.concatenate([(signs * sides)[:, :, None] * linear, shift[:, :, None]], axis=2)


def frames(maps: np.ndarray) -> np.ndarray:
    """Return maps that neither turn nor slant as (B, 4): top, left, height, width, from the corner."""
    sides = np.stack([maps[:, 1, 1], maps[:, 0, 0]], axis=1)
    return np.concatenate([maps[:, ::-1, 2] + 0.5 - sides / 2, sides], axis=1)


def slanted(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Split maps into the part of the stored image that is seen at all, and a map into that part.

    The part is enlarged with Keys' kernel, then turned and slanted at the size of the backbone, where
    interpolating between four neighbours loses next to nothing. Beyond the image's border its
    mirror image is seen, so the part never reaches over it.

    Returns:
        `frame` (B, 4) top, left, height, width from the corner; `warp` (B, 2, 3).
    """
    seen = np.einsum("bij,kj->bki", maps[:, :, :2], CORNERS) + maps[:, None, :, 2]
    low = np.clip(seen.min(axis=1), -0.5, 0.5 - SMALLEST_FRAME)
    high = np.clip(seen.max(axis=1), low + SMALLEST_FRAME, 0.5)
    sides, middle = high - low, (high + low) / 2
    warp = maps.copy()
    warp[:, :, 2] -= middle
    warp /= sides[:, :, None]
    return {"frame": np.concatenate([low[:, ::-1] + 0.5, sides[:, ::-1]], axis=1), "warp": warp}


def rectangles(
    top: np.ndarray, left: np.ndarray, height: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Return (B, 4): top, left, bottom, right."""
    return np.stack([top, left, top + height, left + width], axis=1)
