"""What an ablation compares: the full augmentation."""

import pytest

from onepass.cache.errors import UsageError
from onepass.finetune.ablate import study
from onepass.finetune.config import STUDIES, AblateConfig
from onepass.finetune.recipes import RECIPES


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
