"""Which learning rate to train with: it rises from step to step while the loss is watched.

The range test of Smith, "Cyclical learning rates for training neural networks" (WACV 2017), with a rate
that rises exponentially, a running mean of the loss, and a tenth of the rate of its lowest point as the
suggestion (Gugger, "How do you find a good learning rate", 2018). A network that starts from its probe
may have nothing to gain within these steps; then it is a tenth of the last rate that did no harm.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import keras
import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.cache.progress import Progress
from onepass.finetune.config import FinetuneConfig
from onepass.finetune.session.run_identity import RateSearch
from onepass.finetune.session.session import Session, open_session
from onepass.finetune.training.batches import StepPlan
from onepass.finetune.training.layers import depth_groups, rate_factors
from onepass.finetune.training.optimizer import build_optimizer, rising
from onepass.finetune.training.parallel import devices_for
from onepass.finetune.training.step import TrainStep

log = logging.getLogger(__name__)

HIGHEST = 1e-1  # the first rate is a millionth of it
STEPS = 100
SMOOTHING = 0.9  # of the running mean of the loss
SETTLED = 10  # steps until that mean is meaningful; their own mean is the level it starts from
CHANGED = 0.02  # of that level: a smaller change is taken for noise
TOO_HIGH = 3.0  # times that level: it will not come back
BACK_OFF = 10  # what the rate of the turning point is divided by


def find_learning_rate(config: FinetuneConfig) -> RateSearch:
    """Train a network for some steps while the rate rises; nothing of it is kept.

    Its images are those of the run's own first steps; whatever rate the flags name is left aside.

    Raises:
        InvalidInputError: The loss is not a number from the start.
        OnepassError: As for a run.
    """
    return find_rate(open_session(config))


def find_rate(session: Session) -> RateSearch:
    """Do the same for a session that is already open."""
    rates, losses = _range_test(replace(session, folder=None))
    turn, why = turning_point(losses)
    suggested = float(f"{rates[turn] / BACK_OFF:.1e}")
    log.info(f"learning rate {suggested:g}: {why}")
    config = session.config
    return RateSearch(
        config.dataset, session.start.text, config.recipe, tuple(rates), tuple(losses), turn,
        suggested, why,
    )  # fmt: skip


def _range_test(session: Session) -> tuple[list[float], list[float]]:
    """Return the rates and the running mean of the loss, up to where it diverges."""
    recipe, schedule = replace(session.recipe, ema=0.0), rising(HIGHEST, STEPS)
    dataset, rows = session.dataset, session.rows.fit
    classifier = session.build()
    session.warm(classifier)
    trainer = classifier.trainer
    batch = min(recipe.batch, len(rows))
    plan = StepPlan(rows, batch, session.draws_seed, recipe.augmentation, dataset.pixels.shape[1:])
    variables = trainer.trainable_variables
    factors = rate_factors(variables, depth_groups(classifier.backbone), recipe.layer_decay)
    optimizer = build_optimizer(recipe, factors, [False] * len(factors), lambda _: STEPS, schedule)
    step = TrainStep(
        trainer, optimizer, recipe.label_smoothing, devices=devices_for(batch), class_weights=session.class_weights,
    )  # fmt: skip
    seen: list[float] = []
    with Progress(STEPS, "steps", "learning rate") as progress:
        for chosen, draws in islice(_batches(plan), STEPS):
            loss, _ = step(dataset.pixels[chosen], dataset.labels[chosen], draws)
            seen.append(float(keras.ops.convert_to_numpy(loss)))
            progress.advance(1)
            if diverged(seen):
                break
    losses = running_mean(seen)
    return [float(schedule(n)) for n in range(len(losses))], losses


def _batches(plan: StepPlan) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Yield rows and draws of the steps of a run."""
    epoch = 0
    while True:
        for place in range(plan.steps(epoch + 1) - plan.steps(epoch)):
            yield plan.step_rows(epoch, place), plan.draws(epoch, place)
        epoch += 1


def running_mean(values: Sequence[float]) -> list[float]:
    """Return the exponential mean up to each value, freed of its start at 0; it ends before a NaN."""
    means: list[float] = []
    mean = 0.0
    for n, value in enumerate(values):
        if not math.isfinite(value):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        means.append(mean / (1 - SMOOTHING ** (n + 1)))
    return means


def diverged(values: Sequence[float]) -> bool:
    """Say whether the loss is NaN, or so high that higher rates need not be tried."""
    if not math.isfinite(values[-1]):
        return True
    level = float(np.mean(values[:SETTLED]))
    return len(values) > SETTLED and running_mean(values)[-1] > TOO_HIGH * level


def turning_point(losses: Sequence[float]) -> tuple[int, str]:
    """Return where the rate is as high as it may be for a moment, and why.

    That is where the loss is lowest, if it falls at all; else the last place before it has risen.

    Args:
        losses: Running mean of the loss, as the rate rises.

    Raises:
        InvalidInputError: There are fewer than two.
    """
    if len(losses) < 2:
        raise InvalidInputError(
            "find-lr: the loss is not a number from the first step; look at the data and at --weights"
        )
    values = np.asarray(losses)
    first = min(SETTLED, len(values) // 2)
    level = values[:first].mean()
    lowest = first + int(np.argmin(values[first:]))
    if values[lowest] < (1 - CHANGED) * level:
        return lowest, "a tenth of the one at which the loss was lowest"
    harmless = np.flatnonzero(values <= (1 + CHANGED) * level)
    return (
        int(harmless[-1]),
        "a tenth of the last one that did no harm (the loss fell at none)",
    )
