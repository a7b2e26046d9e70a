"""Random changes of training images, done on the device; `onepass.finetune.augmentation.draws` draws them.

Light and erasing come first, on the stored pixels, because those are the fewest. Then one warp takes
them to the size that the backbone sees. Mixing comes last, so that labels are mixed as what is seen.
"""

from typing import Any

import keras
from keras import ops

from onepass.extract.backend import on_accelerator
from onepass.extract.network.model import Resize, cubic_matrices
from onepass.finetune.augmentation.draws import Augmentation, draw

__all__ = ["Augment", "Augmentation", "draw", "mixed_targets"]


class Augment(keras.layers.Layer):
    """[uint8 (B, H, W, C), draws] → float32 (B, size, size, 3) in 0 … 255, as the backbone sees it.

    Where nothing moves the images are exactly those of `onepass.extract.network.model.Resize`; where they may move
    but do not, within about a grey level, because only that one rounds in between.

    Args:
        augmentation: What may be drawn.
        size: Side of the result (px).
    """

    def __init__(self, augmentation: Augmentation, size: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, "autocast": False, **kwargs})
        self.augmentation, self.size = augmentation, size
        self.resize = Resize(size, name="resize")

    def build(self, input_shape: Any) -> None:
        self.resize.build(input_shape[0])
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        x, draws = inputs
        if "light" in draws:
            x = _lit(x, draws["light"])
        if "erase" in draws:
            erased = _coverage(draws["erase"], x.shape[1], x.shape[2]) >= 0.5
            x = ops.where(erased, ops.cast(draws["noise"], x.dtype), x)
        x = self._warped(x, draws) if "frame" in draws else self._flipped(x, draws)
        if "transpose" in draws:
            turned = draws["transpose"][:, None, None, None]
            x = ops.where(turned, ops.transpose(x, (0, 2, 1, 3)), x)
        if "mix" in draws:
            blend = draws["mix"][:, :1, None, None]
            weight = blend + _coverage(draws["mix"][:, 1:], self.size, self.size)
            x = x + weight * (ops.roll(x, 1, axis=0) - x)
        return x

    def _flipped(self, x: Any, draws: dict[str, Any]) -> Any:
        for axis in (1, 2) if "flips" in draws else ():
            flips = draws["flips"][:, axis - 1, None, None, None]
            x = ops.where(flips, ops.flip(x, axis=axis), x)
        return self.resize(x)

    def _warped(self, x: Any, draws: dict[str, Any]) -> Any:
        """Two matrix products an image enlarge the frame; turning takes four neighbours of that."""
        x = ops.cast(ops.transpose(x, (0, 3, 1, 2)), "float32")
        top, left, height, width = (draws["frame"][:, i : i + 1] for i in range(4))
        vertical = self._matrices(top, height, x.shape[2])
        horizontal = self._matrices(left, width, x.shape[3])
        # Clipped in between as `Resize` does, or overshoot at an edge would be seen differently.
        x = ops.clip(ops.matmul(x, ops.transpose(horizontal, (0, 2, 1))[:, None]), 0.0, 255.0)
        x = ops.clip(ops.matmul(vertical[:, None], x), 0.0, 255.0)
        x = ops.transpose(x, (0, 2, 3, 1))
        if "warp" in draws:
            maps = _in_pixels(draws["warp"], self.size)
            x = gathered(x, maps) if on_accelerator() else _by_kernel(x, maps)
        return x if x.shape[-1] == 3 else ops.repeat(x, 3, axis=-1)

    def _matrices(self, start: Any, length: Any, pixels: int) -> Any:
        places = start + (ops.arange(self.size, dtype="float32") + 0.5) / self.size * length
        places = ops.where(places > 1, 2 - places, ops.abs(places))  # mirrored beyond the border
        return cubic_matrices(places, ops.abs(length), pixels)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        return (input_shape[0][0], self.size, self.size, 3)


def _lit(x: Any, light: Any) -> Any:
    x = ops.cast(x, "float32")
    gain, lift = light[:, :1, None, None], light[:, 1:, None, None]
    return ops.clip(x * gain + ops.mean(x, axis=(1, 2, 3), keepdims=True) * lift, 0.0, 255.0)


def _coverage(rectangles: Any, height: int, width: int) -> Any:
    """Return (B, height, width, 1): which share of each pixel lies in top, left, bottom, right."""

    def along(low: Any, high: Any, pixels: int) -> Any:
        begin = ops.arange(pixels, dtype="float32")[None]
        inside = ops.minimum(high * pixels, begin + 1) - ops.maximum(low * pixels, begin)
        return ops.clip(inside, 0.0, 1.0)

    top, left, bottom, right = (rectangles[:, i : i + 1] for i in range(4))
    return (along(top, bottom, height)[:, :, None] * along(left, right, width)[:, None])[..., None]


def _in_pixels(maps: Any, size: int) -> Any:
    """Return `warp` as `keras.ops.image.affine_transform` takes it: (B, 8), in pixels."""
    middle = (size - 1) / 2
    shift = maps[:, :, 2] * size + middle * (1 - maps[:, :, 0] - maps[:, :, 1])
    rows = ops.concatenate([maps[:, :, :2], shift[:, :, None]], axis=2)
    return ops.pad(ops.reshape(rows, (-1, 6)), ((0, 0), (0, 2)))


def _by_kernel(x: Any, maps: Any) -> Any:
    """The backend's own warp: on a CPU a third cheaper than `gathered`, but unknown to XLA."""
    return ops.image.affine_transform(x, maps, "bilinear", "reflect", data_format="channels_last")


def gathered(x: Any, maps: Any) -> Any:
    """Interpolate between the four neighbours of each place; beyond the border lies the mirror image.

    Args:
        x: (B, size, size, C) float32.
        maps: (B, 8) as `keras.ops.image.affine_transform` takes them.
    """
    batch, size, _, channels = x.shape
    step = ops.arange(size, dtype="float32")
    across, down = step[None, None, :], step[None, :, None]
    (x0, right), (y0, below) = (
        _neighbours(a[:, None, None] * across + b[:, None, None] * down + c[:, None, None], size)
        for a, b, c in (ops.unstack(maps[:, :3], axis=1), ops.unstack(maps[:, 3:6], axis=1))
    )
    first = ops.arange(batch, dtype="int32")[:, None, None] * (size * size) + y0 * size + x0
    flat = ops.reshape(x, (-1, channels))
    corners = [ops.take(flat, first + offset, axis=0) for offset in (0, 1, size, size + 1)]
    upper = corners[0] + right * (corners[1] - corners[0])
    lower = corners[2] + right * (corners[3] - corners[2])
    return upper + below * (lower - upper)


def _neighbours(places: Any, size: int) -> tuple[Any, Any]:
    """Return the pixel before each place, int32, and how far behind it the place is, 0 … 1."""
    folded = ops.abs(ops.mod(places + 0.5 + size, 2.0 * size) - size)  # mirrored at both borders
    inside = ops.clip(folded - 0.5, 0.0, size - 1.0)
    low = ops.minimum(ops.floor(inside), size - 2.0)
    return ops.cast(low, "int32"), (inside - low)[..., None]


def mixed_targets(labels: Any, classes: int, draws: dict[str, Any], smoothing: float = 0.0) -> Any:
    """Return what a network should answer for images as `Augment` mixed them.

    Args:
        labels: (B,) int32, or (B, K) float32 where they are shares already.
        classes: K.
        draws: Of the step.
        smoothing: Share that is spread evenly over all classes (Szegedy et al., CVPR 2016).

    Returns:
        (B, K) float32; each row sums to 1.
    """
    soft = len(labels.shape) == 2
    targets = labels if soft else ops.one_hot(labels, classes, dtype="float32")
    if "mix" in draws:
        blend, top, left, bottom, right = (draws["mix"][:, i : i + 1] for i in range(5))
        share = blend + (bottom - top) * (right - left)
        targets = targets + share * (ops.roll(targets, 1, axis=0) - targets)
    return targets * (1 - smoothing) + smoothing / classes
