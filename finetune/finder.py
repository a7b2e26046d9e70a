"""Which learning rate to train with: the rate rises while the loss is watched (Smith, WACV 2017)."""

import math
from dataclasses import dataclass, replace

import keras
import numpy as np

from cache.errors import InvalidInputError
from cache.progress import Progress, say
from data.dataset import open_dataset
from finetune.augmentation import draw, draw_order
from finetune.config import FinetuneConfig
from finetune.layers import depth_groups, rate_factors
from finetune.optimizer import Schedule, build_optimizer
from finetune.parallel import devices_for
from finetune.pipeline import build_from, warm
from finetune.start import choose_rows, choose_start
from finetune.step import TrainStep

LOWEST, HIGHEST = 1e-7, 1e-1
STEPS = 100
SMOOTHING = 0.9  # of the running mean of the loss
TOO_HIGH = 3.0  # times the lowest loss: it will not come back


@dataclass(frozen=True, slots=True)
class Found:
    """What the loss did while the rate rose.

    Attributes:
        rates: One a step.
        losses: Running mean of the loss (nats) there.
        suggested: The rate to train with.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float


def find_learning_rate(config: FinetuneConfig) -> Found:
    """Train a network for some steps at rates from `LOWEST` to `HIGHEST`; nothing of it is kept.

    Only rows that the run itself would train on are looked at.
    """
    dataset = open_dataset(config.store, config.dataset)
    start = choose_start(config, dataset)
    rows = choose_rows(config, dataset, start)
    recipe = replace(config.chosen_recipe, schedule="rising", learning_rate=HIGHEST, ema=0.0)
    classifier = build_from(config, dataset, start)
    warm(config, dataset, start, rows, None, classifier)
    trainer = classifier.trainer
    batch = min(recipe.batch, len(rows.fit))
    shape = dataset.pixels.shape[1:]
    order = np.resize(draw_order(rows.fit, config.seed, 0), STEPS * batch)
    variables = trainer.trainable_variables
    factors = rate_factors(variables, depth_groups(classifier.backbone), recipe.layer_decay)
    optimizer = build_optimizer(recipe, factors, [False] * len(factors), lambda epochs: STEPS)
    step = TrainStep(trainer, optimizer, recipe.label_smoothing, devices=devices_for(batch))
    schedule = Schedule("rising", HIGHEST, STEPS, 0)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    with Progress(STEPS, "steps", "learning rate") as progress:
        for n in range(STEPS):
            chosen = order[n * batch : (n + 1) * batch]
            draws = draw(recipe.augmentation, shape, config.seed, 0, n, batch)
            rates.append(float(schedule(n)))
            loss, _ = step(dataset.pixels[chosen], dataset.labels[chosen], draws)
            value = float(keras.ops.convert_to_numpy(loss))
            mean = SMOOTHING * mean + (1 - SMOOTHING) * value
            progress.advance(1)
            if not math.isfinite(value):
                break
            losses.append(mean / (1 - SMOOTHING ** (n + 1)))
            if losses[-1] > TOO_HIGH * min(losses):
                break
    rates = rates[: len(losses)]
    found = Found(tuple(rates), tuple(losses), suggest(rates, losses))
    say(f"suggested learning rate: {found.suggested:.1e}")
    return found


def suggest(rates: list[float], losses: list[float]) -> float:
    """Return a tenth of the rate at which the running mean of the loss was lowest.

    Raises:
        InvalidInputError: There are fewer than two points.
    """
    if len(rates) < 2:
        raise InvalidInputError(
            "find-lr: the loss is not a number from the start; look at the data and --weights"
        )
    return rates[int(np.argmin(losses))] / 10
