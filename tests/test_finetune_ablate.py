"""What an ablation compares, and what the default recipe takes from the images."""

from typing import Any

import pytest

from onepass.cache.errors import UsageError
from onepass.data.record import SYMMETRIES
from onepass.finetune.ablate import study
from onepass.finetune.config import STUDIES, AblateConfig, FinetuneConfig
from onepass.finetune.recipes import LEAST_STEPS, MOST_EPOCHS, RECIPES


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_an_augmentation_and_set_has_the_last_word(name: str) -> None:
    full = study(AblateConfig(dataset="digits", augmentation=name, set=("rotation=3", "ema=0")))
    looks = STUDIES[name] or RECIPES["default"].augmentation
    recipe = full.recipe_for(None)
    assert recipe.augmentation.rotation == 3 and recipe.ema == 0
    assert recipe.augmentation.flip == looks.flip and recipe.augmentation.crop == looks.crop


def test_the_default_recipe_mirrors_and_turns_as_the_images_allow() -> None:
    def parts(symmetries: list[str] | None, **flags: Any) -> tuple[str, ...]:
        return FinetuneConfig(dataset="x", **flags).recipe_for(symmetries).augmentation.parts

    assert parts(None) == parts(["flip"]) == ("flip",)
    assert parts([]) == ()
    assert parts(list(SYMMETRIES)) == SYMMETRIES
    assert parts(list(SYMMETRIES), set=("vertical_flip=false",)) == ("flip", "quarter_turns")
    assert parts([], recipe="de2020") == RECIPES["de2020"].augmentation.parts


def test_few_images_are_trained_on_for_more_epochs() -> None:
    def epochs(images: int | None, **flags: Any) -> int:
        return FinetuneConfig(dataset="x", **flags).recipe_for(None, images).epochs

    own = RECIPES["default"].epochs
    assert epochs(None) == epochs(40_000) == epochs(90_000) == own
    assert own < epochs(2000) < epochs(1800) < epochs(1) == MOST_EPOCHS
    assert (epochs(2000) - 1) * 2000 < LEAST_STEPS * RECIPES["default"].batch <= epochs(2000) * 2000
    assert epochs(1800, epochs=2) == 2 and epochs(1800, set=("epochs=3",)) == 3
    assert epochs(100, recipe="de2020") == RECIPES["de2020"].epochs


@pytest.mark.parametrize("wrong", [{"run": "a"}, {"select": False}, {"seeds": 0}])
def test_flags_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="ablate: expected"):
        AblateConfig(dataset="digits", **wrong)
