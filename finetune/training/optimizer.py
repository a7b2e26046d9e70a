"""Optimisers with a rate of its own for each variable, decoupled weight decay and averaged weights.

Keras 3 has no layer-wise learning rates and decays all variables alike; here each variable's update
is scaled where Keras computes it, so that clipping, schedules, checkpoints and both backends stay Keras'.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from onepass.finetune.recipes import Recipe

RISE = 1e6  # how many times the last rate of a rising schedule is the first


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of step n = 0, 1, …

    In the first `warmup` steps `rate · (n + 1) / warmup`; then, for "cosine",
    `rate · (1 + cos(π · (n - warmup) / (total - warmup))) / 2` (Loshchilov & Hutter, arXiv 1608.03983,
    one cycle), for "inverse" `rate / (1 + decay · n)`, for "constant" the rate, and for "rising"
    `rate · 10^(6 (n / (total - 1) - 1))`, without warm-up, which the learning rate is found with.

    Args:
        kind: One of the four.
        rate: The highest.
        total: Steps of the whole training.
        warmup: Steps.
        decay: Of "inverse".
    """

    def __init__(self, kind: str, rate: float, total: int, warmup: int, decay: float = 0.0) -> None:
        super().__init__()
        self.kind, self.rate, self.total, self.warmup, self.decay = kind, rate, total, warmup, decay

    def __call__(self, step: Any) -> Any:
        n = ops.cast(step, "float32")
        if self.kind == "cosine":
            done = (n - self.warmup) / max(self.total - self.warmup, 1)
            rate = self.rate * 0.5 * (1.0 + ops.cos(math.pi * ops.clip(done, 0.0, 1.0)))
        elif self.kind == "rising":
            rate = self.rate * RISE ** (n / max(self.total - 1, 1) - 1.0)
        elif self.kind == "inverse":
            rate = self.rate / (1.0 + self.decay * n)
        else:
            rate = ops.ones_like(n) * self.rate
        rising = self.rate * (n + 1.0) / max(self.warmup, 1)
        return ops.where(n < self.warmup, rising, rate)

    def get_config(self) -> dict[str, Any]:
        names = ("kind", "rate", "total", "warmup", "decay")
        return {name: getattr(self, name) for name in names}


class Layerwise:
    """What is the same for every optimiser; to be mixed in before a Keras one.

    At each step, with rate `r = factor · schedule(n)` of a variable w: `w ← w - r · decay · w` if it is
    a kernel (two axes or more; Loshchilov & Hutter, ICLR 2019), then Keras' own update with r, then
    `average ← average + (1 - m) · (w - average)` with `m = min(ema, (1 + n) / (10 + n))`, so that the
    average does not cling to where it started.

    Args:
        factors: Of each trainable variable.
        decay: Weight decay.
        ema: Momentum; 0 keeps no average.
        held: Which variables stay as they are in the first steps.
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
    recipe: Recipe, factors: Sequence[float], held: Sequence[bool], steps: Callable[[int], int]
) -> LayerwiseAdam | LayerwiseSGD:
    """Return a recipe's optimiser.

    Args:
        recipe: Rates, decay, clipping, averaging.
        factors: Of the learning rate of each trainable variable.
        held: Which of them the head-only phase leaves alone.
        steps: How many steps some epochs have, all together.
    """
    total = steps(recipe.epochs)
    schedule = Schedule(
        recipe.schedule, recipe.learning_rate, total,
        0 if recipe.schedule == "rising" else round(recipe.warmup * total), recipe.rate_decay,
    )  # fmt: skip
    common: dict[str, Any] = {
        "learning_rate": schedule, "global_clipnorm": recipe.clip or None,
        "factors": factors, "decay": recipe.weight_decay, "ema": recipe.ema,
        "held": held, "held_steps": steps(recipe.head_epochs),
    }  # fmt: skip
    if recipe.optimizer == "sgd":
        return LayerwiseSGD(momentum=recipe.momentum, nesterov=recipe.momentum > 0, **common)
    return LayerwiseAdam(**common)
