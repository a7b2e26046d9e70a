"""Progressive resizing: small images first, the same variables throughout."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from finetune_tiny import pixels_and_labels, tiny_classifier, tiny_recipe, tiny_training

from onepass.cache.errors import InvalidInputError
from onepass.extract.network.model import Pool, Preprocess, Resize
from onepass.finetune import recipes
from onepass.finetune.augmentation import draw
from onepass.finetune.training.model import assemble


@pytest.fixture
def tiny_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network sees 12 px."""
    monkeypatch.setattr(recipes, "STRIDE", 4)


def test_sizes_grow_by_equal_steps_in_multiples_of_the_stride() -> None:
    def sizes(size: int, **changes: float) -> list[int]:
        recipe = tiny_recipe(**changes)
        return [recipe.size_of(epoch, size) for epoch in range(recipe.epochs)]

    assert sizes(224, epochs=4, first_size=0.55) == [128, 160, 192, 224]
    assert sizes(260, epochs=3, first_size=0.5) == [128, 192, 260]
    assert sizes(224, epochs=3) == [224, 224, 224]
    assert sizes(224, epochs=1, first_size=0.5) == [224]
    assert sizes(48, epochs=3, first_size=0.1) == [32, 32, 48]
    for wrong in (0.0, 1.1, -1.0):
        with pytest.raises(InvalidInputError, match="first_size"):
            tiny_recipe(first_size=wrong)


@pytest.mark.parametrize("which", ["all", "last:1"])
def test_smaller_images_go_through_the_very_network_of_their_size(which: str) -> None:
    """One built at 8 px, with the same weights, answers the same; a changed weight changes both."""
    recipe = tiny_recipe()
    large, small = tiny_classifier(recipe, which), tiny_classifier(recipe, which, side=8)
    shared = large.trainer_at(8)
    assert shared.frozen is None if which == "all" else shared.frozen is not None
    assert {id(v) for v in shared.trainable_variables} == {
        id(v) for v in large.trainer.trainable_variables
    }
    for variable in large.predictor.weights:
        variable.assign(variable + 0.3)
    small.predictor.set_weights(large.predictor.get_weights())
    pixels = pixels_and_labels(6)[0]
    draws = draw(recipe.augmentation, (8, 8, 1), 0, 0, 0, 6)
    ours, theirs, full = (
        keras.ops.convert_to_numpy(trainer([pixels, draws]))
        for trainer in (shared, small.trainer, large.trainer)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert np.abs(ours - full).max() > 1e-3
    assert large.trainer_at(12) is large.trainer
    answers = [
        keras.ops.convert_to_numpy(m(pixels)) for m in (large.predictor_at(8), small.predictor)
    ]
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("tiny_stride")
def test_a_stop_on_the_way_changes_nothing(tmp_path: Path) -> None:
    growing = {"epochs": 3, "first_size": 0.3}
    whole = tiny_training(tmp_path / "whole", **growing)
    sizes = []
    for epoch in range(1, 4):
        whole.run(lambda: "", until=epoch)
        sizes.append(whole.trainer.augment.size)
    assert sizes == [4, 8, 12]
    questions = iter(range(1000))
    stopped = tiny_training(tmp_path / "stopped", **growing)
    assert stopped.run(lambda: "stop" if next(questions) == 9 else "") == "stop"
    again = tiny_training(tmp_path / "stopped", **growing)
    again.run(lambda: "")
    assert [(r.loss, r.selection_loss) for r in again.history] == [
        (r.loss, r.selection_loss) for r in whole.history
    ]
    same = tiny_training(tmp_path / "same", epochs=3)
    same.run(lambda: "")
    assert same.history[0].loss != whole.history[0].loss


@pytest.mark.usefixtures("tiny_stride")
def test_a_network_of_one_size_says_so(tmp_path: Path) -> None:
    x = inputs = keras.Input((12, 12, 3))
    x = keras.layers.Dense(8)(keras.layers.Flatten()(x))
    pixels = keras.Input((8, 8, 1), dtype="uint8")
    images = Preprocess(False, (1.0,) * 3, (0.0,) * 3, name="preprocess")(
        Resize(12, name="resize")(pixels)
    )
    vectors = Pool(name="pool_0")(keras.Model(inputs, x, name="backbone")(images))
    classifier = assemble(keras.Model(pixels, vectors), 4, tiny_recipe())
    with pytest.raises(InvalidInputError, match="images of 12 px and does not take 8 px"):
        classifier.trainer_at(8)


def test_a_run_of_an_earlier_version_has_images_of_one_size() -> None:
    from onepass.cache.artifacts import from_json, to_json

    found = json.loads(json.dumps(to_json(recipes.RECIPES["default"])))
    del found["first_size"]
    assert from_json(recipes.Recipe, found) == recipes.RECIPES["default"]
