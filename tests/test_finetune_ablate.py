"""What an ablation compares: the full augmentation, and intervals of means and differences."""

import numpy as np
import pytest

from onepass.cache.errors import UsageError
from onepass.classify.scores import bootstrap_interval
from onepass.finetune.ablate import study
from onepass.finetune.ablation import mean_interval
from onepass.finetune.config import STUDIES, AblateConfig
from onepass.finetune.recipes import RECIPES


def test_the_interval_is_that_of_resampled_rows() -> None:
    random = np.random.default_rng(0)
    values = random.choice([-0.5, 0.0, 0.5, 1.0], 300)
    drawn = [values[random.integers(0, 300, 300)].mean() for _ in range(4000)]
    np.testing.assert_allclose(mean_interval(values), np.quantile(drawn, [0.025, 0.975]), atol=0.01)
    correct = values > 0
    np.testing.assert_allclose(mean_interval(correct), bootstrap_interval(correct), atol=0.004)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_an_augmentation_and_set_has_the_last_word(name: str) -> None:
    full = study(AblateConfig(dataset="digits", augmentation=name, set=("rotation=3", "ema=0")))
    looks = STUDIES[name] or RECIPES["default"].augmentation
    recipe = full.chosen_recipe
    assert recipe.augmentation.rotation == 3 and recipe.ema == 0
    assert recipe.augmentation.flip == looks.flip and recipe.augmentation.crop == looks.crop


@pytest.mark.parametrize("wrong", [{"run": "a"}, {"select": False}, {"seeds": 0}])
def test_flags_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="ablate: expected"):
        AblateConfig(dataset="digits", **wrong)
