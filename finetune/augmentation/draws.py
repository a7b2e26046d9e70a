"""What may be changed of a training image, and the draws that decide it, made on the host.

What is drawn depends on (seed, epoch, step) only, so a run that was interrupted draws the same. Each
part has a stream of its own: leaving one out changes nothing of what the others draw.
"""

from dataclasses import fields

import numpy as np

from onepass.cache.artifacts import record
from onepass.cache.errors import InvalidInputError
from onepass.finetune.augmentation.geometry import affine_maps, frames, rectangles, slanted

# The largest value of each number, itself allowed; beyond it no image would be left, or none is meant.
LIMITS = {
    "rotation": 180.0, "shear": 45.0, "scale": 0.5, "crop": 0.9, "translate": 0.5, "brightness": 1.0,
    "contrast": 1.0, "erase": 1.0, "randaugment": 10.0, "mixup": 100.0, "cutmix": 100.0,
}  # fmt: skip
# RandAugment's operations at magnitude 10 (Cubuk et al., arXiv 1805.09501, table 6), as far as we have them.
OPERATIONS = {
    "angle": np.deg2rad(30), "slant_x": 0.3, "slant_y": 0.3, "shift_x": 0.45, "shift_y": 0.45,
    "gain": 0.9, "contrast": 0.9, "identity": 0.0,
}  # fmt: skip
OPERATIONS_AN_IMAGE = 2
CROP_ASPECT = 4 / 3  # of a crop's sides at most, as in Inception's training
ERASED = (0.02, 0.4)  # least and largest share of the area that is erased, and
ERASED_ASPECT = 0.3  # the flattest rectangle: Zhong et al., section 3.2


@record
class Augmentation:
    """Random changes of training images; everything is off unless it is asked for.

    Attributes:
        flip: Mirror left to right, every other image.
        vertical_flip: Mirror upside down, every other image.
        quarter_turns: Turn by 0, 90, 180 or 270 degrees.
        rotation: Turn by up to this many degrees either way.
        shear: Slant by up to this many degrees either way, along both axes.
        scale: Enlarge or shrink by a factor of 1 ± this.
        crop: Look at a part of the image: up to this share of the area is cut away, the sides are
            3:4 to 4:3 of the image's (Szegedy et al., CVPR 2015).
        translate: Shift by up to this share of the side, along both axes.
        brightness: Multiply all values by 1 ± this.
        contrast: Multiply the distance from the image's mean by 1 ± this.
        erase: Probability that a rectangle is replaced by noise (Zhong et al., AAAI 2020).
        randaugment: Magnitude 1 … 10 of two operations drawn from rotation, shear, translation,
            brightness, contrast and none (Cubuk et al., NeurIPS 2020); 0 draws none.
        mixup: α of the Beta distribution of the weight (Zhang et al., ICLR 2018).
        cutmix: α of the Beta distribution of the area (Yun et al., ICCV 2019). With mixup as well,
            each image has the one or the other.
    """

    flip: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    rotation: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    crop: float = 0.0
    translate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise InvalidInputError(
                    f"augmentation {name}: expected 0 (off) to {limit:g}, received {value:g}"
                )

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what is on, in the order of the fields."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name))

    @property
    def turns(self) -> bool:
        """Whether rows of the stored image may end up slanted."""
        return bool(self.rotation or self.shear or self.randaugment)

    @property
    def moves(self) -> bool:
        """Whether another part of the image may be seen than the whole."""
        return self.turns or bool(self.scale or self.crop or self.translate)


class _Streams:
    """One random stream a part of the augmentation, for one step."""

    def __init__(self, seed: int, epoch: int, step: int, count: int) -> None:
        self.place, self.count = (seed, epoch, step, 1), count

    def of(self, part: str, second: int = 0) -> np.random.Generator:
        parts = [f.name for f in fields(Augmentation)]
        return np.random.default_rng((*self.place, 1 + parts.index(part), second))

    def coins(self, part: str, wanted: bool) -> np.ndarray:
        """(B,) bool, each True with probability 1/2; all False where it is not wanted."""
        return (self.of(part).random(self.count) < 0.5) & wanted

    def within(self, part: str, limit: float, columns: int = 1) -> np.ndarray:
        """(columns, B) float64, uniform in ± limit."""
        return limit * self.of(part).uniform(-1, 1, (columns, self.count))


def draw(
    augmentation: Augmentation,
    pixel_shape: tuple[int, ...],
    seed: int,
    epoch: int,
    step: int,
    count: int,
) -> dict[str, np.ndarray]:
    """Draw what `onepass.finetune.augmentation.augment.Augment` does to the images of one step.

    Args:
        augmentation: What may happen.
        pixel_shape: (H, W, C) of a stored image.
        seed: Of the run.
        epoch: From 0.
        step: Of the epoch, from 0.
        count: B, images of the step.

    Returns:
        Arrays by name; names, shapes and dtypes depend on the other arguments than seed, epoch and
        step. Lengths are shares of the image's side, (0, 0) its upper left corner:
        `flips` (B, 2) bool: upside down, left to right; only where there is no `frame`;
        `frame` (B, 4) float32: top, left, height, width of the part that is enlarged first (a
        negative height or width mirrors);
        `warp` (B, 2, 3) float32: where in that part, x then y from its centre, a place (x, y, 1) of the
        result lies;
        `transpose` (B,) bool: rows become columns, after all that;
        `light` (B, 2) float32: factor of the values, factor of their mean that is added;
        `erase` (B, 4) float32: top, left, bottom, right, all 0 where nothing is erased;
        `noise` (H, W, C) uint8: what erased places show;
        `mix` (B, 5) float32: share of the neighbour's image in the whole picture, and top, left,
        bottom, right of where the neighbour is all that is seen.
    """
    streams = _Streams(seed, epoch, step, count)
    draws, upside, mirror = _orientation(augmentation, streams)
    changes = _changes(augmentation, streams)
    if augmentation.moves:
        maps = affine_maps(upside=upside, mirror=mirror, **changes)
        draws |= slanted(maps) if augmentation.turns else {"frame": frames(maps)}
    elif augmentation.flip or augmentation.vertical_flip or augmentation.quarter_turns:
        draws["flips"] = np.stack([upside, mirror], axis=1)
    if augmentation.brightness or augmentation.contrast or augmentation.randaugment:
        gain, contrast = changes["gain"], changes["contrast"]
        draws["light"] = np.stack([gain * contrast, gain * (1 - contrast)], axis=1)
    if augmentation.erase:
        draws["erase"] = _erased(augmentation.erase, streams.of("erase"), count)
        noise = streams.of("erase", 1).integers(0, 256, pixel_shape, dtype=np.uint8)
        draws["noise"] = noise
    if augmentation.mixup or augmentation.cutmix:
        draws["mix"] = _mix(augmentation, streams)
    return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in draws.items()}


def _orientation(
    augmentation: Augmentation, streams: _Streams
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return `transpose`, where there are quarter turns, and what is mirrored before: both (B,) bool."""
    upside = streams.coins("vertical_flip", augmentation.vertical_flip)
    mirror = streams.coins("flip", augmentation.flip)
    if not augmentation.quarter_turns:
        return {}, upside, mirror
    turns = streams.of("quarter_turns").integers(0, 4, streams.count)
    # A turn by 90 degrees is a transposition after a mirroring; by 180, both mirrorings.
    upside, mirror = upside ^ (turns >= 2), mirror ^ ((turns + 1) % 4 >= 2)
    return {"transpose": turns % 2 == 1}, upside, mirror


def _changes(augmentation: Augmentation, streams: _Streams) -> dict[str, np.ndarray]:
    """Draw every number of the warp and of the light: (B,) each, (B, 4) for the box."""
    within = streams.within
    slant_x, slant_y = np.tan(np.deg2rad(within("shear", augmentation.shear, 2)))
    shift_x, shift_y = within("translate", augmentation.translate, 2)
    changes = {
        "angle": np.deg2rad(within("rotation", augmentation.rotation)[0]),
        "slant_x": slant_x, "slant_y": slant_y, "shift_x": shift_x, "shift_y": shift_y,
        "zoom": 1 + within("scale", augmentation.scale)[0],
        "box": _crops(augmentation.crop, streams),
        "gain": 1 + within("brightness", augmentation.brightness)[0],
        "contrast": 1 + within("contrast", augmentation.contrast)[0],
    }  # fmt: skip
    if augmentation.randaugment:
        random = streams.of("randaugment")
        shape = (OPERATIONS_AN_IMAGE, streams.count)
        which = random.integers(0, len(OPERATIONS), shape)
        signs = random.choice([-1.0, 1.0], shape)
        for i, (name, most) in enumerate(OPERATIONS.items()):
            amounts = np.where(which == i, signs * most * augmentation.randaugment / 10, 0.0)
            if name in ("gain", "contrast"):
                changes[name] = changes[name] * np.prod(1 + amounts, axis=0)
            elif name in changes:
                changes[name] = changes[name] + amounts.sum(axis=0)
    return changes


def _crops(cut: float, streams: _Streams) -> np.ndarray:
    """Draw parts of at least 1 − cut of the area: (B, 4) top, left, height, width."""
    area, aspect, down, right = streams.of("crop").random((4, streams.count))
    side = np.sqrt(1 - cut * area)
    most = np.minimum(CROP_ASPECT**0.5, 1 / side)  # a longer side would not fit
    height, width = side * most ** (2 * aspect - 1), side * most ** (1 - 2 * aspect)
    return np.stack([(1 - height) * down, (1 - width) * right, height, width], axis=1)


def _erased(probability: float, random: np.random.Generator, count: int) -> np.ndarray:
    wanted, area, aspect, down, right = random.random((5, count))
    share = ERASED[0] + (ERASED[1] - ERASED[0]) * area
    ratio = np.exp((2 * aspect - 1) * np.log(1 / ERASED_ASPECT))
    height, width = np.sqrt(share * ratio), np.sqrt(share / ratio)
    height, width = np.minimum(height, 1), np.minimum(width, 1)
    top, left = (1 - height) * down, (1 - width) * right
    return rectangles(top, left, height, width) * (wanted < probability)[:, None]


def _mix(augmentation: Augmentation, streams: _Streams) -> np.ndarray:
    """Draw (B, 5): the neighbour's weight, and the rectangle in which it is all that is seen."""
    mixup, cutmix, count = streams.of("mixup"), streams.of("cutmix"), streams.count
    blend = mixup.beta(augmentation.mixup, augmentation.mixup, count) if augmentation.mixup else 0.0
    boxes = np.zeros((count, 4))
    if augmentation.cutmix:
        side = np.sqrt(cutmix.beta(augmentation.cutmix, augmentation.cutmix, count))
        middle = cutmix.random((2, count))  # the rectangle may reach out of the image, and is cut
        boxes = np.clip(np.concatenate([middle - side / 2, middle + side / 2]), 0, 1).T
    both = bool(augmentation.mixup and augmentation.cutmix)
    cuts = streams.of("cutmix", 1).random(count) < (0.5 if both else bool(augmentation.cutmix))
    return np.column_stack([np.where(cuts, 0.0, blend), np.where(cuts[:, None], boxes, 0.0)])


def draw_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the rows in the order of an epoch."""
    return np.random.default_rng((seed, epoch, 0, 0)).permutation(rows)
