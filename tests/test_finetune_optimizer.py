"""Rates a layer, schedule, decay and averages, each against a computation by hand."""

import math
from dataclasses import replace

import keras
import numpy as np
import pytest

from onepass.cache.errors import CorruptFileError, InvalidInputError, UnknownNameError, UsageError
from onepass.finetune.recipes import RECIPES, Recipe
from onepass.finetune.training.layers import GROUPS, depth_groups, rate_factors, table, unfreeze
from onepass.finetune.training.optimizer import (
    LayerwiseAdam,
    LayerwiseSGD,
    rising,
    schedule_of,
)


def variables() -> list[keras.Variable]:
    return [
        keras.Variable(np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)),
        keras.Variable(np.array([0.3, -0.4], np.float32)),
    ]


GRADIENTS = [
    [np.array([[0.1, -0.2], [0.3, 0.0]], np.float32), np.array([1.0, -1.0], np.float32)],
    [np.array([[-0.4, 0.1], [0.2, 0.5]], np.float32), np.array([0.5, 2.0], np.float32)],
    [np.array([[0.3, 0.3], [-0.1, 0.2]], np.float32), np.array([-0.2, 0.7], np.float32)],
]


def applied(optimizer, steps=GRADIENTS) -> list[np.ndarray]:
    ours = variables()
    optimizer.build(ours)
    for gradients in steps:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], ours)
    return [keras.ops.convert_to_numpy(v) for v in ours]


def test_adam_by_layer_with_decoupled_decay_and_averages_is_what_the_papers_say() -> None:
    factors, decay, ema, rate = [0.25, 1.0], 0.1, 0.15, 0.01
    optimizer = LayerwiseAdam(learning_rate=rate, factors=factors, decay=decay, ema=ema)
    found = applied(optimizer)
    weights = [keras.ops.convert_to_numpy(v).astype(np.float64) for v in variables()]
    averages = [w.copy() for w in weights]
    m, v = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for n, gradients in enumerate(GRADIENTS):
        for i, gradient in enumerate(gradients):
            r = rate * factors[i]
            if weights[i].ndim > 1:
                weights[i] = weights[i] - r * decay * weights[i]
            m[i] = 0.9 * m[i] + 0.1 * gradient
            v[i] = 0.999 * v[i] + 0.001 * gradient.astype(np.float64) ** 2
            alpha = r * math.sqrt(1 - 0.999 ** (n + 1)) / (1 - 0.9 ** (n + 1))
            weights[i] = weights[i] - alpha * m[i] / (np.sqrt(v[i]) + 1e-7)
            momentum = min(ema, (1 + n) / (10 + n))
            averages[i] = momentum * averages[i] + (1 - momentum) * weights[i]
    for ours, theirs in zip(found, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5)
    for average, theirs in zip(optimizer.averages, averages, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(average), theirs, rtol=2e-5)


def test_nesterov_by_layer() -> None:
    optimizer = LayerwiseSGD(
        learning_rate=0.1, factors=[0.5, 1.0], momentum=0.9, nesterov=True
    )  # fmt: skip
    found = applied(optimizer)
    weights = [keras.ops.convert_to_numpy(v).astype(np.float64) for v in variables()]
    speed = [np.zeros_like(w) for w in weights]
    for gradients in GRADIENTS:
        for i, gradient in enumerate(gradients):
            rate = 0.1 * [0.5, 1.0][i]
            speed[i] = 0.9 * speed[i] - rate * gradient
            weights[i] = weights[i] + 0.9 * speed[i] - rate * gradient
    for ours, theirs in zip(found, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_gradients_are_clipped_by_their_common_norm() -> None:
    optimizer = LayerwiseSGD(learning_rate=1.0, factors=[1.0, 1.0], global_clipnorm=0.5)
    found = applied(optimizer, GRADIENTS[:1])
    norm = math.sqrt(sum(float((g**2).sum()) for g in GRADIENTS[0]))
    for ours, before, gradient in zip(found, variables(), GRADIENTS[0], strict=True):
        expected = keras.ops.convert_to_numpy(before) - gradient * 0.5 / norm
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_head_alone_moves_at_first() -> None:
    optimizer = LayerwiseAdam(
        learning_rate=0.1, factors=[1.0, 1.0], held=[True, False], held_steps=2, decay=0.1
    )  # fmt: skip
    ours = variables()
    optimizer.build(ours)
    moved = []
    for gradients in GRADIENTS:
        before = [keras.ops.convert_to_numpy(v).copy() for v in ours]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], ours)
        moved.append([bool((keras.ops.convert_to_numpy(v) != b).any()) for v, b in zip(ours, before, strict=True)])  # fmt: skip
    assert moved == [[False, True], [False, True], [True, True]]


def rates(schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> list[float]:
    return [float(schedule(n)) for n in range(steps)]


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_the_rate_rises_and_falls_along_a_cosine(warmup: float) -> None:
    recipe = Recipe(epochs=1, batch=1, learning_rate=0.2, warmup=warmup)
    first = round(110 * warmup)
    found = rates(schedule_of(recipe, 110), 111)
    np.testing.assert_allclose(
        found[:first], [0.2 * (n + 1) / first for n in range(first)], rtol=1e-6
    )
    by_hand = [
        0.1 * (1 + math.cos(math.pi * (n - first) / (110 - first))) for n in range(first, 111)
    ]
    np.testing.assert_allclose(found[first:], by_hand, atol=1e-7)


def test_the_rate_stays_falls_by_the_step_or_rises() -> None:
    recipe = Recipe(epochs=1, batch=1, learning_rate=0.01, schedule="constant", warmup=0.5)
    by_hand = [0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01, 0.01, 0.01]
    assert rates(schedule_of(recipe, 8), 8) == pytest.approx(by_hand)
    inverse = replace(recipe, schedule="inverse", rate_decay=1e-2, warmup=0.0)
    by_hand = [0.01 / (1 + 1e-2 * n) for n in range(120)]
    assert rates(schedule_of(inverse, 9), 120) == pytest.approx(by_hand)
    by_hand = [0.1 * 10 ** (6 * (n / 99 - 1)) for n in range(100)]
    assert rates(rising(0.1, 100), 100) == pytest.approx(by_hand, rel=1e-5)


def chain(count: int) -> keras.Model:
    x = inputs = keras.Input((4, 4, 2))
    for i in range(count):
        x = keras.layers.Conv2D(2, 1, use_bias=False, name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{i}")(x)
    return keras.Model(inputs, x, name="backbone")


def test_rates_fall_from_the_head_to_the_pixels_group_by_group() -> None:
    model = chain(24)
    groups = depth_groups(model)
    assert [layer.name for layer in groups[0]] == ["conv0", "norm0", "conv1", "norm1"]
    assert len(groups) == GROUPS
    head = keras.Variable(np.zeros((2, 2)))
    by_name = dict(
        zip(
            [*(v.path for v in model.trainable_variables), "head"],
            rate_factors([*model.trainable_variables, head], groups, 0.5),
            strict=True,
        )
    )
    assert by_name["head"] == 1
    assert by_name["conv23/kernel"] == by_name["norm23/gamma"] == 0.5
    assert by_name["conv21/kernel"] == 0.25
    assert by_name["conv0/kernel"] == by_name["norm1/beta"] == 0.5**12


@pytest.mark.parametrize(
    ("which", "trained"), [("all", 6), ("last:2", 2), ("from:norm1", 3), ("last:0", 0)]
)
def test_layers_are_frozen_as_asked(which: str, trained: int) -> None:
    model = chain(3)
    said = unfreeze(model, which)
    assert sum(bool(layer.trainable_weights) for layer in model.layers) == trained
    assert said.startswith(f"{trained} of 6")


def test_unknown_layers_and_words_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="conv1"):
        unfreeze(chain(3), "from:conv11")
    with pytest.raises(UsageError, match="last:N"):
        unfreeze(chain(3), "some")


def test_every_number_of_a_recipe_can_be_set() -> None:
    recipe = RECIPES["default"].changed(("ema=0", "epochs=3", "flip=no", "hidden=64,32"))
    assert (recipe.ema, recipe.epochs, recipe.hidden) == (0.0, 3, (64, 32))
    assert not recipe.augmentation.flip
    with pytest.raises(UnknownNameError, match="weight_decay"):
        recipe.changed(("weight_decai=1",))
    with pytest.raises(UsageError, match="NAME=VALUE"):
        recipe.changed(("ema",))
    with pytest.raises(UsageError, match="expected a whole number"):
        recipe.changed(("epochs=two",))
    with pytest.raises(InvalidInputError, match="epochs"):
        Recipe(epochs=-1, batch=1, learning_rate=1.0)


def test_a_recipe_survives_json() -> None:
    import json

    from onepass.cache.artifacts import from_json, to_json

    for recipe in RECIPES.values():
        assert from_json(Recipe, json.loads(json.dumps(to_json(recipe)))) == recipe
    with pytest.raises(CorruptFileError, match="epochs"):
        from_json(Recipe, {**to_json(recipe), "epochs": -1})


def test_the_table_says_what_is_frozen() -> None:
    from onepass.finetune.training.layers import describe

    model = chain(3)
    unfreeze(model, "last:2")
    head = keras.layers.Dense(2, name="head")
    head.build((None, 2))
    lines = table(describe(depth_groups(model), [head], 0.5)).splitlines()
    assert [("frozen" in line) for line in lines[1:]] == [True, True, False, False]
    assert lines[-1].split() == ["head", "6", "6", "×", "1"]
