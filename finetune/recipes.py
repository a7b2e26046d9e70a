"""How the winner is trained: one frozen dataclass per recipe."""

import math
from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any

from onepass.cache.artifacts import record
from onepass.cache.errors import InvalidInputError, UsageError, unknown_name
from onepass.data.record import SYMMETRIES

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant", "inverse")
BATCHNORMS = ("frozen", "train")
STRIDE = 32  # of the usual networks: their last map has a place for each so many pixels
# The largest value of each number, inclusive; beyond it no image would be left.
LIMITS = {
    "rotation": 180.0, "shear": 45.0, "scale": 0.5, "crop": 0.9, "translate": 0.5, "brightness": 1.0,
    "contrast": 1.0, "erase": 1.0, "randaugment": 10.0, "mixup": 100.0, "cutmix": 100.0,
}  # fmt: skip


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
    def beyond_orientations(self) -> tuple[str, ...]:
        """Those of them that make more of an image than its eight orientations."""
        return tuple(part for part in self.parts if part not in SYMMETRIES)

    @property
    def turns(self) -> bool:
        """Whether rows of the stored image may end up slanted."""
        return bool(self.rotation or self.shear or self.randaugment)

    @property
    def moves(self) -> bool:
        """Whether another part of the image may be seen than the whole."""
        return self.turns or bool(self.scale or self.crop or self.translate)


PLAIN = Augmentation()


@record
class Recipe:
    """All that decides how training goes, besides the data and the seed.

    Attributes:
        epochs: Passes over the training rows, at most; with 0 the network is the probe.
        batch: Images per step.
        learning_rate: The highest, of the head; the schedule and `layer_decay` lower it.
        optimizer: "adamw" (Loshchilov & Hutter, ICLR 2019; without weight decay it is Adam) or "sgd".
        schedule: "cosine" (after the warm-up down to 0), "constant", or "inverse":
            `learning_rate / (1 + rate_decay · step)`, which Keras once called `decay`.
        rate_decay: Of the inverse schedule, per step.
        warmup: Share of all steps in which the rate rises from 0 to its highest.
        momentum: Nesterov's, of sgd.
        weight_decay: Decoupled: `rate · weight_decay · weight` is subtracted at each step; kernels only.
        layer_decay: Factor of the rate from each group of layers to the one below it (Clark et al.,
            ELECTRA, ICLR 2020; see `onepass.finetune.training.layers`); 1 treats all alike.
        clip: Largest global norm of the gradient; 0 for none.
        label_smoothing: Share of the target that is spread over all classes.
        ema: Momentum of the moving average of the weights, which is what is evaluated and kept; 0 for
            none.
        dropout: Share of the pooled vector dropped before the head.
        hidden: Widths of dense layers (ReLU) before the head; with any the head starts at random.
        hidden_dropout: Share dropped before each of these.
        head_epochs: How many of the epochs train the head only.
        batchnorm: "frozen" (uses the statistics that it was trained with) or "train"; the latter also
            switches on the backbone's own dropout and stochastic depth.
        patience: Epochs without a better one on the selection split after which training ends; 0 for never.
        first_size: Side of the images in the first epoch, as a share of the backbone's; it grows by equal steps to
            all of it in the last (progressive resizing: Tan & Le, "EfficientNetV2", ICML 2021, section 4). 1: the
            same in all. Epochs are always evaluated at the backbone's size.
        soup: Out of how many of the best epochs, by selection accuracy, weights are averaged greedily
            (Wortsman et al., ICML 2022, recipe 1); 1 keeps the best epoch.
        augmentation: How the training images are changed at random.
    """

    epochs: int
    batch: int
    learning_rate: float
    optimizer: str = "adamw"
    schedule: str = "cosine"
    rate_decay: float = 0.0
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    clip: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    dropout: float = 0.0
    hidden: tuple[int, ...] = ()
    hidden_dropout: float = 0.0
    head_epochs: int = 0
    batchnorm: str = "frozen"
    patience: int = 0
    first_size: float = 1.0
    soup: int = 1
    augmentation: Augmentation = PLAIN

    def __post_init__(self) -> None:
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("batchnorm", BATCHNORMS),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        shares = ("warmup", "label_smoothing", "ema", "dropout", "hidden_dropout", "momentum")
        bad = [name for name in shares if not 0 <= getattr(self, name) < 1]
        if bad:
            raise InvalidInputError(
                f"recipe: {bad[0]}: expected a number in 0 … 1, received {getattr(self, bad[0])}"
            )
        least = {"epochs": 0, "batch": 1, "soup": 1, "head_epochs": 0, "patience": 0, "weight_decay": 0,
                 "clip": 0, "rate_decay": 0}  # fmt: skip
        bad = [name for name, value in least.items() if getattr(self, name) < value]
        bad += [name for name in ("layer_decay", "first_size") if not 0 < getattr(self, name) <= 1]
        if bad or not self.learning_rate > 0:
            name = bad[0] if bad else "learning_rate"
            raise InvalidInputError(
                f"recipe: {name}: received {getattr(self, name)}, which is out of range"
            )

    def size_of(self, epoch: int, size: int) -> int:
        """Return the side (px) of the images of an epoch, a multiple of `STRIDE` or all of it.

        Args:
            epoch: From 0.
            size: Of the backbone (px).
        """
        last = self.epochs - 1
        if epoch >= last or self.first_size == 1:
            return size
        side = size * (self.first_size + (1 - self.first_size) * epoch / last)
        return min(size, max(STRIDE, round(side / STRIDE) * STRIDE))

    def changed(self, settings: tuple[str, ...]) -> "Recipe":
        """Return the recipe with some of its numbers replaced.

        Args:
            settings: `name=value` each; a name is a field of the recipe or of its augmentation.

        Raises:
            UsageError: A setting is written in another way, or its value is of another kind.
            UnknownNameError: There is no such field.
        """
        ours = {f.name: f.type for f in fields(self) if f.name != "augmentation"}
        looks = {f.name: f.type for f in fields(Augmentation)}
        recipe: dict[str, Any] = {}
        augmentation: dict[str, Any] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            name = name.strip().removeprefix("augmentation.").replace("-", "_")
            if not equals:
                raise UsageError(f"--set {setting}: expected NAME=VALUE")
            if name not in ours and name not in looks:
                raise unknown_name("setting of a recipe", name, [*ours, *looks])
            target = recipe if name in ours else augmentation
            target[name] = _value({**looks, **ours}[name], text.strip(), setting)
        return replace(self, **recipe, augmentation=replace(self.augmentation, **augmentation))


def _value(kind: Any, text: str, setting: str) -> Any:
    """Return the text of a setting as the kind of its field."""
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                text.lower()
            ]
        if kind in (int, float, str):
            return kind(text)
        return tuple(int(part) for part in text.split(",") if part)
    except (KeyError, ValueError) as error:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}
        wanted = expected.get(kind, "whole numbers with commas between them")
        raise UsageError(f"--set {setting}: expected {wanted}, received {text!r}") from error


# What De (2020) did on Tiny ImageNet is these four; how far each goes is our choice.
DE2020_AUGMENTATION = Augmentation(flip=True, rotation=20, shear=10, brightness=0.2)
DE2020 = Recipe(
    epochs=30,
    batch=32,
    learning_rate=1e-5,
    schedule="constant",
    warmup=0.0,
    dropout=0.4,
    batchnorm="train",
    augmentation=DE2020_AUGMENTATION,
)

# All layers at once, in small steps from where the probe left off (LP-FT: Kumar et al., ICLR 2022).
# No dropout: the probe's weights rely on every number of the vector, and the first steps would pay for it.
DEFAULT = Recipe(
    epochs=8,
    batch=64,
    learning_rate=1.5e-4,
    weight_decay=0.02,
    layer_decay=0.95,
    clip=1.0,
    label_smoothing=0.1,
    ema=0.998,
    soup=3,
    augmentation=Augmentation(flip=True),
)

RECIPES = {
    "default": DEFAULT,
    "de2020": DE2020,
    "de2020-dense2": replace(
        DE2020, hidden=(1024, 512), hidden_dropout=0.25, dropout=0.65, batchnorm="train"
    ),
    "de2020-sgd": replace(
        DE2020, optimizer="sgd", learning_rate=0.01, schedule="inverse", rate_decay=1e-6
    ),
    # From random weights, as a baseline: larger steps, longer, statistics of its own.
    "scratch": replace(
        DEFAULT, epochs=30, learning_rate=2e-3, weight_decay=0.05, layer_decay=1.0,
        batchnorm="train", dropout=0.2,
    ),
}  # fmt: skip
ADAPTIVE = ("default", "scratch")  # these mirror, turn and last as the images ask for
LEAST_STEPS = 500  # of an adaptive recipe: of fewer images it makes more epochs,
MOST_EPOCHS = 20  # up to so many


def recipe_for(name: str, symmetries: Collection[str] | None, images: int | None = None) -> Recipe:
    """Return a recipe by its name; one of `ADAPTIVE` as the images ask for.

    They say what they may be mirrored and turned by, and their number how long it takes: what a network
    learns is a matter of steps, so that of few images an epoch is short and more of them are needed (BiT's
    rule for schedules: Kolesnikov et al., "Big Transfer", ECCV 2020, section 3.3).

    Args:
        name: One of `RECIPES`.
        symmetries: Of the data set, as its `onepass.data.record.DatasetRecord` has them; None: the recipe
            keeps its own.
        images: How many are trained on; None: the recipe keeps its own epochs.
    """
    recipe = RECIPES[name]
    if name not in ADAPTIVE:
        return recipe
    if symmetries is not None:
        allowed = {change: change in symmetries for change in SYMMETRIES}
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, **allowed))
    if images:
        enough = math.ceil(LEAST_STEPS * recipe.batch / images)
        recipe = replace(recipe, epochs=max(recipe.epochs, min(enough, MOST_EPOCHS)))
    return recipe


FORMER_NAMES = {"report": "de2020", "report-dense2": "de2020-dense2", "report-sgd": "de2020-sgd"}


def recipe_name_today(name: str) -> str:
    """Return the name that a recipe of an earlier version has today."""
    return FORMER_NAMES.get(name, name)
