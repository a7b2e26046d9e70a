"""`finetune --class-weight balanced`: rare classes count as much, and probabilities are of the training mix."""

import json
from pathlib import Path

import numpy as np
import pytest
from finetune_tiny import CLASSES, pixels_and_labels, tiny_classifier, tiny_recipe, tiny_training

from onepass.cache.artifacts import DIGEST, to_json
from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.class_weight import class_weights
from onepass.classify.metrics import softmax
from onepass.finetune.config import FinetuneConfig
from onepass.finetune.recipes import RECIPES, Augmentation
from onepass.finetune.session.run_identity import RunConfig, RunIdentity, record_run, refuse_other
from onepass.finetune.session.session import Rows, Session
from onepass.finetune.training.batches import Examples, StepPlan
from onepass.finetune.training.loop import Training
from onepass.finetune.training.optimizer import build_optimizer
from onepass.finetune.training.step import TrainStep

WEIGHTS = np.array([4.0, 0.5, 1.0, 0.8])


def test_the_loss_is_that_of_the_mix_in_which_every_class_is_equally_frequent() -> None:
    recipe = tiny_recipe(dropout=0.0, augmentation=Augmentation(mixup=0.4))
    classifier = tiny_classifier(recipe)
    pixels, labels = pixels_and_labels(24)
    plan = StepPlan(np.arange(24), 24, 0, recipe.augmentation, (8, 8, 1))
    draws = plan.draws(0, 0)
    logits = np.asarray(classifier.trainer([pixels, draws]), np.float64)
    count = len(classifier.trainer.trainable_variables)
    optimizer = build_optimizer(recipe, [1.0] * count, [False] * count, plan.steps)
    step = TrainStep(classifier.trainer, optimizer, recipe.label_smoothing, class_weights=WEIGHTS)
    loss = float(step(pixels, labels, draws)[0])
    blend = draws["mix"][:, :1]
    own = np.eye(CLASSES)[labels]
    mixed = own + blend * (np.roll(own, 1, axis=0) - own)
    targets = mixed * (1 - recipe.label_smoothing) + recipe.label_smoothing / CLASSES
    balanced = softmax(logits + np.log(WEIGHTS))
    expected = -(mixed @ WEIGHTS) * (targets * np.log(balanced)).sum(axis=1)
    assert loss == pytest.approx(expected.mean(), rel=1e-4)


def test_where_images_say_nothing_probabilities_are_the_training_mix(tmp_path: Path) -> None:
    """Weights without the correction would end at equal probabilities of the classes."""
    off = dict.fromkeys(("dropout", "label_smoothing", "ema", "weight_decay"), 0.0)
    recipe = tiny_recipe(**off, epochs=60, batch=200, learning_rate=0.05)  # no noise of batches
    labels = np.repeat(np.arange(CLASSES), (10, 80, 40, 70)).astype(np.int32)
    weights = class_weights("balanced", labels, CLASSES)
    pixels = np.full((200, 8, 8, 1), 100, np.uint8)
    examples = Examples(pixels, labels, np.arange(200), class_weights=weights)
    training = Training(tiny_classifier(recipe), examples, recipe, 0, tmp_path / "c.npz")
    assert training.run(lambda: "") == ""
    training.conclude()
    found = softmax(np.asarray(training.classifier.predictor(pixels[:1])))[0]
    np.testing.assert_allclose(found, np.bincount(labels) / 200, atol=0.02)


def test_a_run_that_was_stopped_goes_on_with_the_same_weights(tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = tiny_training(tmp_path / "whole", uneven="balanced", epochs=2)
    whole.run(lambda: "")
    questions = iter(range(100))
    stopped = tiny_training(tmp_path / "stopped", uneven="balanced", epochs=2)
    assert stopped.run(lambda: "stop" if next(questions) == 6 else "") == "stop"
    again = tiny_training(tmp_path / "stopped", uneven="balanced", epochs=2)
    assert again.run(lambda: "") == ""
    for ours, theirs in zip(
        again.classifier.predictor.variables, whole.classifier.predictor.variables, strict=True
    ):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert [row.loss for row in again.history] == [row.loss for row in whole.history]


def identity(class_weight: str) -> RunIdentity:
    recipe = RECIPES["default"]
    return RunIdentity("d", "0", "p", {}, recipe, "all", True, 0, "imagenet", 0, class_weight=class_weight)  # fmt: skip


def test_it_belongs_to_what_a_run_is_and_runs_from_before_stay_what_they_are(
    tmp_path: Path,
) -> None:
    plain, balanced = identity("none"), identity("balanced")
    assert plain.digest != balanced.digest

    class Data:
        contents, class_ids = "", ("a", "b")

    record_run(tmp_path, plain, None, Data())  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"class_weight.*--run NAME"):
        refuse_other(tmp_path, balanced, {})
    value = json.loads((tmp_path / "config.json").read_text())
    del value["identity"]["class_weight"]
    value.pop(DIGEST)
    (tmp_path / "config.json").write_text(json.dumps({**value, "format": 3}))
    assert RunConfig.read(tmp_path / "config.json").identity == plain
    refuse_other(tmp_path, plain, {})


def test_a_class_without_training_rows_is_refused() -> None:
    class Data:
        labels, class_ids = np.array([0, 0, 1, 2]), ["ant", "bee", "cow"]

    rows = Rows(np.array([0, 1, 3]), np.arange(4), None)
    config = FinetuneConfig(dataset="d", class_weight="balanced")
    session = Session(config, Data(), None, rows)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="received none of bee; train on more with --rows"):
        _ = session.class_weights
    assert to_json(Session(config, Data(), None, Rows(np.arange(4), rows.head, None)).class_weights) == [  # type: ignore[arg-type]
        pytest.approx(w) for w in (4 / 6, 4 / 3, 4 / 3)
    ]  # fmt: skip
