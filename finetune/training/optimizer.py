"""Optimisers with a rate of its own for each variable, decoupled weight decay and averaged weights.

Keras 3 has no layer-wise learning rates; here each variable's update is scaled where Keras computes it,
so that clipping, schedules, checkpoints and both backends stay Keras'.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import (
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
)

from onepass.finetune.recipes import Recipe

RISE = 1e6  # how many times the last rate of a rising schedule is the first


class Warmup(LearningRateSchedule):
    """`highest · (n + 1) / steps` in steps n = 0 … `steps` - 1, then another schedule's rate of step n.

    Keras' own warm-up, in `CosineDecay`, has rate 0 in its first step, which is thus lost, and no other
    schedule has one.

    Args:
        highest: The rate that the warm-up leads to.
        steps: Of the warm-up.
        after: Returns the rate of the steps that follow.
    """

    def __init__(self, highest: float, steps: int, after: Callable[[Any], Any]) -> None:
        super().__init__()
        self.highest, self.steps, self.after = highest, steps, after

    def __call__(self, step: Any) -> Any:
        n = ops.cast(step, "float32")
        rate = self.highest * (n + 1.0) / max(self.steps, 1)
        return ops.where(n < self.steps, rate, self.after(n))


def rising(highest: float, total: int) -> LearningRateSchedule:
    """Return a rate that rises exponentially from a millionth of the highest, which the last step has."""
    return ExponentialDecay(highest / RISE, max(total - 1, 1), RISE)


def schedule_of(recipe: Recipe, total: int) -> LearningRateSchedule:
    """Return the learning rate of a recipe by the step n = 0, 1, …

    After the warm-up, for "cosine", `rate · (1 + cos(π · (n - warmup) / (total - warmup))) / 2`
    (Loshchilov & Hutter, arXiv 1608.03983, one cycle); for "inverse" `rate / (1 + rate_decay · n)`; for
    "constant" the rate.

    Args:
        recipe: Its highest rate, kind of schedule, warm-up and decay.
        total: Steps of the whole training.
    """
    highest, warmup = recipe.learning_rate, round(recipe.warmup * total)
    if recipe.schedule == "cosine":
        cycle = CosineDecay(highest, max(total - warmup, 1))
        return Warmup(highest, warmup, lambda n: cycle(n - warmup))
    if recipe.schedule == "inverse":
        return Warmup(highest, warmup, InverseTimeDecay(highest, 1, recipe.rate_decay))
    return Warmup(highest, warmup, lambda n: highest)


class Layerwise:
    """What is the same for every optimiser; to be mixed in before a Keras one.

    Keras' `weight_decay`, with `exclude_from_weight_decay`, takes the same share off all variables,
    whatever their factor is and whether they are held; its `use_ema` begins with the momentum that it
    ends with. So both are computed here.

    At each step, with rate `r = factor · schedule(n)` of a variable w: `w ← w - r · decay · w` if it is
    a kernel (two axes or more; Loshchilov & Hutter, ICLR 2019), then Keras' own update with r, then
    `average ← average + (1 - m) · (w - average)` with `m = min(ema, (1 + n) / (10 + n))`, so that the
    average does not cling to where it started.

    Args:
        factors: Of each trainable variable.
        decay: Weight decay.
        ema: Momentum; 0 keeps no average.
        held: Which variables are frozen in the first steps.
        held_steps: How many those are.
    """

    averages: list[Any]

    def __init__(
        self, *, factors: Sequence[float], decay: float = 0.0, ema: float = 0.0,
        held: Sequence[bool] = (), held_steps: int = 0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.factors, self.decay, self.ema = list(factors), decay, ema
        self.held, self.held_steps = list(held), held_steps

    def build(self, variables: Any) -> None:
        """Make the moving averages beside Keras' own variables; they start as copies."""
        super().build(variables)  # type: ignore[misc]
        self.averages = []
        if self.ema:
            for variable in variables:
                average = self.add_variable_from_reference(variable, name="average")  # type: ignore[attr-defined]
                average.assign(variable)
                self.averages.append(average)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras calls this for each variable."""
        index = self._get_variable_index(variable)  # type: ignore[attr-defined]
        n = ops.cast(self.iterations, "float32")  # type: ignore[attr-defined]
        rate = ops.cast(learning_rate, "float32") * self.factors[index]
        if self.held_steps and self.held[index]:
            rate = ops.where(n < self.held_steps, 0.0, rate)
        if self.decay and len(variable.shape) > 1:
            self.assign_sub(variable, ops.multiply(variable, rate * self.decay))  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate)  # type: ignore[misc]
        if self.ema:
            average = self.averages[index]
            share = 1.0 - ops.minimum(self.ema, (1.0 + n) / (10.0 + n))
            self.assign_add(average, ops.multiply(ops.subtract(variable, average), share))  # type: ignore[attr-defined]


class LayerwiseAdam(Layerwise, keras.optimizers.Adam):
    """Adam (Kingma & Ba, arXiv 1412.6980) so extended: AdamW where there is weight decay."""


class LayerwiseSGD(Layerwise, keras.optimizers.SGD):
    """Stochastic gradient descent so extended."""


def build_optimizer(
    recipe: Recipe,
    factors: Sequence[float],
    held: Sequence[bool],
    steps: Callable[[int], int],
    schedule: LearningRateSchedule | None = None,
) -> LayerwiseAdam | LayerwiseSGD:
    """Return a recipe's optimiser.

    Args:
        recipe: Rates, decay, clipping, averaging.
        factors: Of the learning rate of each trainable variable.
        held: Which of them the head-only phase leaves alone.
        steps: How many steps a number of epochs has in all.
        schedule: Of the learning rate; the recipe's own if None.
    """
    common: dict[str, Any] = {
        "learning_rate": schedule or schedule_of(recipe, steps(recipe.epochs)),
        "global_clipnorm": recipe.clip or None,
        "factors": factors, "decay": recipe.weight_decay, "ema": recipe.ema,
        "held": held, "held_steps": steps(recipe.head_epochs),
    }  # fmt: skip
    if recipe.optimizer == "sgd":
        return LayerwiseSGD(momentum=recipe.momentum, nesterov=recipe.momentum > 0, **common)
    return LayerwiseAdam(**common)
