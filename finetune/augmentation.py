"""What may be changed of a training image, and the draws that decide it, made on the host.

What is drawn depends on (seed, epoch, step) only, so a run that was interrupted draws the same.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cache.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of training images; everything is off unless it is asked for.

    Attributes:
        flip: Mirror left to right, every other image.
        vertical_flip: Mirror upside down, every other image.
        quarter_turns: Turn by 0, 90, 180 or 270 degrees.
        rotation: Turn by up to this many degrees either way.
        shear: Slant by up to this many degrees either way, along either axis.
        scale: Enlarge or shrink by a factor of 1 ± this.
        translate: Shift by up to this share of the side, along either axis.
        brightness: Add up to this share of the range 0 … 255, or take it away.
        contrast: Multiply the distance from the image's mean by 1 ± this.
        erase: Probability that a rectangle is replaced by noise (Zhong et al., AAAI 2020).
        randaugment: Magnitude 1 … 10 of two operations drawn from those above (Cubuk et al.,
            NeurIPS 2020); 0 draws none.
        mixup: α of the Beta distribution of the weight (Zhang et al., ICLR 2018).
        cutmix: α of the Beta distribution of the area (Yun et al., ICCV 2019). With mixup as well,
            every other step does the one, the rest the other.
    """

    flip: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    rotation: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rotation", "shear", "scale", "translate", "brightness", "contrast", "erase",
                     "randaugment", "mixup", "cutmix"):  # fmt: skip
            if getattr(self, name):
                raise InvalidInputError(f"augmentation {name}: expected 0, it is not there yet")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what is on."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name))


def draw(
    augmentation: Augmentation,
    pixel_shape: tuple[int, ...],
    seed: int,
    epoch: int,
    step: int,
    count: int,
) -> dict[str, np.ndarray]:
    """Draw what `Augment` does to the images of one step.

    Args:
        augmentation: What may happen.
        pixel_shape: (H, W, C) of a stored image.
        seed: Of the run.
        epoch: From 0.
        step: Of the epoch, from 0.
        count: B, images of the step.

    Returns:
        Arrays by name; names, shapes and dtypes depend on `augmentation` and `count` only.
        `flips` (B, 2) bool: upside down, left to right. `transpose` (B,) bool: rows become columns,
        after that.
    """
    random = np.random.default_rng((seed, epoch, step, 1))
    draws: dict[str, Any] = {}
    upside, mirror = (random.random((2, count)) < 0.5).astype(bool)
    upside &= augmentation.vertical_flip
    mirror &= augmentation.flip
    turns = random.integers(0, 4, count) if augmentation.quarter_turns else np.zeros(count, int)
    if augmentation.quarter_turns:
        # A turn by 90 degrees is a transposition after a mirroring; by 180, both mirrorings.
        draws["transpose"] = turns % 2 == 1
        upside, mirror = upside ^ (turns >= 2), mirror ^ ((turns + 1) % 4 >= 2)
    if augmentation.flip or augmentation.vertical_flip or augmentation.quarter_turns:
        draws["flips"] = np.stack([upside, mirror], axis=1)
    return draws


def draw_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the rows in the order of an epoch."""
    return np.random.default_rng((seed, epoch, 0, 0)).permutation(rows)
