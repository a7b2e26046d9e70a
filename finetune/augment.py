"""Random changes of training images, done on the device; `finetune.augmentation` draws them."""

from typing import Any

import keras
from keras import ops

from extract.model import Resize
from finetune.augmentation import Augmentation

__all__ = ["Augment", "Augmentation", "mixed_targets"]


class Augment(keras.layers.Layer):
    """[uint8 (B, H, W, C), draws] → float32 (B, size, size, 3) in 0 … 255, as the backbone sees it.

    Where nothing is drawn the images are exactly those of `extract.model.Resize`.

    Args:
        augmentation: What may be drawn.
        size: Side of the result (px).
    """

    def __init__(self, augmentation: Augmentation, size: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, "autocast": False, **kwargs})
        self.augmentation, self.size = augmentation, size
        self.resize = Resize(size, name="resize")

    def call(self, inputs: Any) -> Any:
        pixels, draws = inputs
        if "flips" in draws:
            for axis in (1, 2):
                flips = draws["flips"][:, axis - 1, None, None, None]
                pixels = ops.where(flips, ops.flip(pixels, axis=axis), pixels)
        x = self.resize(pixels)
        if "transpose" in draws:
            turned = draws["transpose"][:, None, None, None]
            x = ops.where(turned, ops.transpose(x, (0, 2, 1, 3)), x)
        return x

    def compute_output_shape(self, input_shape: Any) -> tuple:
        return (input_shape[0][0], self.size, self.size, 3)


def mixed_targets(labels: Any, classes: int, draws: dict[str, Any], smoothing: float = 0.0) -> Any:
    """Return what a network should answer for images as `Augment` mixed them.

    Args:
        labels: (B,) int32.
        classes: K.
        draws: Of the step.
        smoothing: Share that is spread evenly over all classes (Szegedy et al., CVPR 2016).

    Returns:
        (B, K) float32; each row sums to 1.
    """
    hard = ops.one_hot(labels, classes, dtype="float32")
    return hard * (1 - smoothing) + smoothing / classes
