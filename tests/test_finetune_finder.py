"""The learning rate that a curve suggests, and the words that ask for one."""

import math

import numpy as np
import pytest

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.finetune.config import AUTO, AblateConfig, FinetuneConfig, parse_rate
from onepass.finetune.finder import STEPS, diverged, running_mean, turning_point
from onepass.finetune.recipes import RECIPES

RATES = np.logspace(-7, -1, STEPS)


def curve(fall: float, start: float = 1.0) -> np.ndarray:
    """Return a loss that falls by some share at rates about 1e-4, and rises beyond 1e-2."""
    falling = fall / (1 + (1e-4 / RATES) ** 2)
    return start * (1 - falling) + (RATES / 1e-2) ** 2


def test_where_the_loss_falls_its_lowest_point_decides() -> None:
    losses = curve(0.3)
    turn, why = turning_point(losses)
    assert turn == int(np.argmin(losses)) and 1e-4 < RATES[turn] < 1e-2
    assert "lowest" in why


def test_where_nothing_is_gained_the_probe_is_not_thrown_away() -> None:
    noise = np.random.default_rng(0).normal(0, 0.003, STEPS)
    turn, why = turning_point(curve(0.0) + noise)
    assert "fell at none" in why
    assert 5e-4 < RATES[turn] < 2e-3  # at 1e-3 it has risen by a hundredth, at 1.4e-3 by two


def test_a_lucky_first_batch_is_not_the_lowest_point() -> None:
    losses = curve(0.3)
    losses[0] = 0.1
    assert turning_point(losses)[0] > STEPS // 2


def test_the_mean_is_that_of_a_loop_and_ends_before_what_is_no_number() -> None:
    values = [2.0, 1.0, 4.0, math.nan, 1.0]
    weights = [np.array([0.9**k for k in range(n, -1, -1)]) for n in range(3)]
    expected = [float(w @ values[: len(w)] / w.sum()) for w in weights]
    np.testing.assert_allclose(running_mean(values), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_it_ends_where_the_loss_is_lost(bad: float) -> None:
    assert diverged([1.0, bad]) and not diverged([1.0, 2.0])
    assert not diverged([1.0] * 20) and not diverged([1.0, 9.0])  # one batch is no trend
    assert diverged([1.0] * 20 + [30.0, 30.0])
    assert len(running_mean([1.0, 0.9, 0.8, bad])) == 3
    with pytest.raises(InvalidInputError, match="not a number from the first step"):
        turning_point(running_mean([1.0, bad]))


def test_a_short_curve_has_a_turning_point_too() -> None:
    assert turning_point([1.0, 0.5, 0.9])[0] == 1


def test_words_that_are_no_rate_are_refused() -> None:
    assert (parse_rate("auto"), parse_rate("3e-4")) == (AUTO, 3e-4)
    for text in ("often", "0", "-1", "nan", "inf"):
        with pytest.raises(ValueError, match=f"above 0 or auto, received '{text}'"):
            parse_rate(text)
    with pytest.raises(UsageError, match="--learning-rate: expected a number above 0 or auto"):
        FinetuneConfig(dataset="x", learning_rate="often")
    with pytest.raises(UsageError, match="ablate: --learning-rate auto"):
        AblateConfig(dataset="x", learning_rate=AUTO)


def test_a_rate_that_is_not_found_yet_leaves_the_recipe_as_it_is() -> None:
    assert FinetuneConfig(dataset="x", learning_rate=AUTO).recipe_for(None) == RECIPES["default"]
    assert FinetuneConfig(dataset="x", learning_rate=3e-4).recipe_for(None).learning_rate == 3e-4
