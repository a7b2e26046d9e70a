"""The training loop on a tiny network: order, selection, memory, kills, both backends."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from finetune_tiny import (
    CLASSES,
    first_losses,
    pixels_and_labels,
    tiny_classifier,
    tiny_recipe,
    tiny_training,
)

from onepass.cache.errors import DeviceError, OnepassError
from onepass.classify import config as classify_config
from onepass.finetune.recipes import Augmentation
from onepass.finetune.session.history import SelectionScore
from onepass.finetune.training.batches import StepPlan

KILLS = 6


def program(*words: str, **environment: str) -> str:
    script = str(Path(__file__).with_name("finetune_tiny.py"))
    done = processes.run(script, *words, PROGRAM="1", **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_leave_history_and_weights_as_they_would_have_been(tmp_path: Path) -> None:
    found = json.loads(program(str(tmp_path / "runs"), str(KILLS)))
    assert found["equal"]
    assert found["kills"] == found["went_on"] == KILLS


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What `finetune_tiny.py shared` says of one device and of two."""
    if find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    folder = tmp_path_factory.mktemp("devices")

    def on(count: int) -> dict:
        flags = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
        words = "shared", str(folder / str(count))
        return json.loads(program(*words, KERAS_BACKEND="jax", XLA_FLAGS=flags))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(on, (1, 2)))


@pytest.mark.slow
def test_tensorflow_and_jax_take_the_same_first_steps(on_jax: list[dict]) -> None:
    losses = on_jax[0]["losses"]
    np.testing.assert_allclose(first_losses(), losses, rtol=2e-4)
    assert len(set(losses)) == len(losses) == 5


@pytest.mark.slow
def test_two_devices_share_each_batch_and_learn_what_one_learns(on_jax: list[dict]) -> None:
    """The sums of two devices are added in another order: the last bits of float32 may differ."""
    one, two = on_jax
    assert (one["devices"], two["devices"]) == (["cpu:0"], ["cpu:0", "cpu:1"])
    assert (two["each"], one["weights"], two["weights"]) == ([12, 12], 1, 2)
    np.testing.assert_allclose(two["history"], one["history"], rtol=1e-4)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    assert one["said"] == "" and one["odd"] == two["odd"] == 1
    assert two["said"].startswith("training uses 1 of 2 devices: 25 images") and two["said"].count("\n") == 1  # fmt: skip


def test_tensorflow_says_that_it_trains_on_one_of_several_devices(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    from onepass.finetune.training import parallel

    assert parallel.devices_for(24) == 1 and said.text == ""
    monkeypatch.setattr(parallel, "device_names", lambda: ["gpu:0", "gpu:1"])
    assert parallel.devices_for(24) == 1
    words = "training uses 1 of 2 devices: KERAS_BACKEND=jax trains on all of them"
    assert said.messages == [words]


def test_every_image_is_seen_once_an_epoch_and_no_batch_is_short() -> None:
    plan = StepPlan(np.arange(100, 150), 16, 3, Augmentation(), (8, 8, 1))
    seen: list[int] = []
    for epoch in range(4):
        for place in range(plan.steps(epoch + 1) - plan.steps(epoch)):
            rows = plan.step_rows(epoch, place)
            assert len(rows) == 16
            seen += rows.tolist()
    assert plan.steps(4) == math.ceil(4 * 50 / 16)
    for epoch in range(4):
        assert sorted(seen[epoch * 50 : (epoch + 1) * 50]) == list(range(100, 150))


def test_epochs_are_chosen_by_the_metric_that_was_asked_for(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, epochs=4, metric="log-loss")
    assert training.run(lambda: "") == ""
    assert [row.selection_merit for row in training.history] == pytest.approx(
        [-row.selection_loss for row in training.history], rel=1e-4
    )
    chosen = training.conclude()
    assert chosen.loss <= min(row.selection_loss for row in training.history) * 1.0001
    again = tiny_training(tmp_path, epochs=4, metric="log-loss")
    assert again.history == training.history and again.start == training.start


def test_it_learns_and_keeps_what_was_best_on_the_selection_split(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, epochs=8)
    assert training.run(lambda: "") == ""
    chosen = training.conclude()
    accuracies = [row.selection_accuracy for row in training.history]
    assert len(accuracies) == 8 and training.history[-1].loss < training.history[0].loss
    assert chosen.accuracy is not None and chosen.accuracy >= max(accuracies) > 0.5
    assert training.evaluate() == SelectionScore(chosen.accuracy, chosen.loss)
    assert len(list((tmp_path / "epochs").glob("*.npz"))) == 2
    again = tiny_training(tmp_path, epochs=8)
    assert again.history == training.history and again.ended == "all epochs are trained"


@pytest.mark.parametrize("mean_is_better", [False, True])
def test_what_was_evaluated_is_not_computed_again(tmp_path: Path, mean_is_better: bool) -> None:
    training = tiny_training(tmp_path, epochs=8, soup=2)
    training.run(lambda: "")
    (best, second), evaluator, looks = [*training.scores][:2], training.evaluate, []

    class Spy:
        logits = property(lambda self: evaluator.logits)

        def __call__(self) -> SelectionScore:
            looks.append(evaluator())
            return replace(looks[-1], accuracy=2.0 if mean_is_better else 0.0)

    chosen = training.best.soup(training.scores, Spy())
    assert len(looks) == 1  # the mean alone is new
    assert chosen.epochs == (tuple(sorted([best, second])) if mean_is_better else (best,))
    score = evaluator()
    assert chosen.loss == score.loss
    if mean_is_better:
        np.testing.assert_array_equal(chosen.logits, evaluator.logits)
    else:
        assert chosen.logits is None and score == training.scores[best]


def test_a_start_that_no_epoch_beats_is_kept(tmp_path: Path) -> None:
    for name in ("good", "worse"):
        (tmp_path / name).mkdir()
    good = tiny_training(tmp_path / "good", epochs=8)
    good.run(lambda: "")
    good.conclude()
    weights = good.classifier.predictor.get_weights()

    def spoilt() -> Any:
        made = tiny_training(tmp_path / "worse", epochs=2, learning_rate=3.0, ema=0.0, clip=0.0)
        if not made.checkpoint.exists():
            made.classifier.predictor.set_weights(weights)
        return made

    training = spoilt()
    training.run(lambda: "", until=1)
    training = spoilt()  # it goes on with what the start had
    training.run(lambda: "")
    assert [row.epoch for row in training.history] == [1, 2]
    assert max(row.selection_accuracy for row in training.history) < training.start.accuracy
    chosen = training.conclude()
    assert chosen.epochs == (0,) and chosen.why.startswith(
        "epoch 0, the start: no epoch did better"
    )
    assert (chosen.accuracy, chosen.loss) == (training.start.accuracy, training.start.loss)
    for found, wanted in zip(training.classifier.predictor.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_of_few_selection_rows_the_last_epoch_is_kept_unless_the_start_is_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify_config, "FEW_ROWS", 2_000)
    steady = {"metric": "log-loss", "epochs": 5}
    training = tiny_training(tmp_path, **steady)
    training.run(lambda: "", until=3)
    training = tiny_training(tmp_path, **steady)  # it goes on with what it had
    training.run(lambda: "")
    best = min(training.history, key=lambda row: row.selection_loss)
    last, saved = (
        training.history[-1],
        sorted(path.name for path in (tmp_path / "epochs").iterdir()),
    )
    assert saved == ["epoch-000.npz", "epoch-005.npz"]
    chosen = training.conclude()
    assert chosen.epochs == (5,) and "40 selection images only tell it from the start" in chosen.why
    assert chosen.loss == last.selection_loss < training.start.loss
    training.start = SelectionScore(1.0, 0.0, 0.0)
    assert training.conclude().epochs == (0,) and best.epoch
    assert not tiny_training(tmp_path / "other", epochs=2, schedule="constant").only_last
    assert not tiny_training(tmp_path / "more", epochs=2, patience=1).only_last


def test_a_start_that_does_not_count_is_not_chosen(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, epochs=1, learning_rate=3.0, ema=0.0, start_counts=False)
    training.run(lambda: "")
    assert training.start is None and training.conclude().epochs == (1,)


def test_a_checkpoint_from_before_the_start_counted_goes_on_without_it(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, epochs=2)
    training.run(lambda: "", until=1)
    training.start = None
    training.save()
    with np.load(training.checkpoint) as arrays:
        state = json.loads(arrays["state"].tobytes())
        others = {name: arrays[name] for name in arrays.files}
    del state["start"]
    others["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    np.savez(training.checkpoint, **others)
    again = tiny_training(tmp_path, epochs=2)
    again.run(lambda: "")
    assert again.start is None and 0 not in again.conclude().epochs


@pytest.mark.parametrize("select", [True, False])
def test_no_epoch_leaves_the_network_as_it_was(tmp_path: Path, select: bool) -> None:
    training = tiny_training(tmp_path, select=select, epochs=0)
    before = training.classifier.predictor.get_weights()
    assert training.run(lambda: "") == "" and training.ended == "no epoch was asked for"
    assert training.conclude().epochs == (0,) and training.history == []
    for found, wanted in zip(training.classifier.predictor.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_use_of_the_gpus_is_shown_and_counts_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onepass.cache.progress import ProgressUpdate, progress_to
    from onepass.extract.stream.gpu_use import GpuUse
    from onepass.finetune.training import loop as train

    monkeypatch.setattr(train, "watch_gpus", lambda count: GpuUse(lambda: 0.97, period=0.0005))
    training = tiny_training(tmp_path, epochs=1)
    real = training._finish_epoch

    def finish() -> None:
        before = len(training.use.samples)
        real()  # evaluates the epoch
        assert len(training.use.samples) == before

    monkeypatch.setattr(training, "_finish_epoch", finish)
    updates: list[ProgressUpdate] = []
    with progress_to(updates.append):
        training.run(lambda: "")
    assert training.use.mean == pytest.approx(0.97)
    assert str(updates[-1]).endswith(" · GPU 97 %")


def test_without_selection_all_rows_are_trained_on_and_the_average_is_kept(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, select=False, epochs=2)
    training.run(lambda: "")
    assert training.history[-1].selection_accuracy is None
    averages = [np.asarray(v).copy() for v in training.optimizer.averages]
    assert training.conclude().epochs == (2,)
    for average, variable in zip(
        averages, training.classifier.trainer.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(average, np.asarray(variable))
    assert training.plan.steps(2) == math.ceil(2 * 200 / 24)


def test_training_ends_early_where_nothing_gets_better(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, epochs=9, patience=2, learning_rate=1e-12, ema=0.0)
    training.run(lambda: "")
    assert len(training.history) == 2 and "early stopping" in training.ended


def test_a_stop_in_the_middle_of_an_epoch_goes_on_there(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = tiny_training(tmp_path / "whole")
    whole.run(lambda: "")
    questions = iter(range(1000))
    training = tiny_training(tmp_path)
    assert training.run(lambda: "time limit" if next(questions) == 9 else "") == "time limit"
    assert training.place not in (0, training.steps)
    again = tiny_training(tmp_path)
    assert (again.place, len(again.history)) == (training.place, len(training.history))
    assert training.start == again.start == whole.start
    again.run(lambda: "")
    assert [(r.loss, r.accuracy, r.selection_loss) for r in again.history] == [
        (r.loss, r.accuracy, r.selection_loss) for r in whole.history
    ]


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    np.testing.assert_allclose(first_losses(parts=1), first_losses(parts=4), rtol=1e-4)


class FullDevice:
    """A step whose device holds no more than some images."""

    def __init__(self, step: Any, holds: int) -> None:
        self.step, self.parts, self.holds = step, step.parts, holds
        self.devices = step.devices

    def __call__(self, pixels: Any, *others: Any) -> Any:
        if len(pixels) // self.parts > self.holds:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory while trying to allocate")
        return self.step(pixels, *others)

    def sync(self) -> None:
        self.step.sync()


def test_a_full_memory_halves_the_batch_and_keeps_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    import onepass.finetune.training.loop

    real = onepass.finetune.training.loop.TrainStep
    monkeypatch.setattr(
        onepass.finetune.training.loop, "TrainStep", lambda *a: FullDevice(real(*a), 6)
    )
    training = tiny_training(tmp_path, epochs=1)
    assert training.run(lambda: "") == ""
    assert training.step.parts == 4 and int(training.optimizer.iterations) == training.plan.steps(1)
    assert "adding up 4 parts of 6" in said.text
    monkeypatch.setattr(
        onepass.finetune.training.loop, "TrainStep", lambda *a: FullDevice(real(*a), 1)
    )
    (tmp_path / "checkpoint.npz").unlink()
    with pytest.raises(OnepassError, match="smaller --size"):
        tiny_training(tmp_path, epochs=1).run(lambda: "")


def test_a_device_that_fails_keeps_the_last_checkpoint_and_training_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    whole = tiny_training(tmp_path / "whole", epochs=2)
    whole.run(lambda: "")
    training = tiny_training(tmp_path / "failing", epochs=2)
    training.run(lambda: "", until=1)
    step, steps = training.step, []

    def failing(*arrays: Any) -> Any:
        steps.append(1)
        if len(steps) == 3:
            raise tf.errors.InternalError(None, None, "CUDA_ERROR_LAUNCH_FAILED: unspecified")
        return step(*arrays)

    monkeypatch.setattr(training, "step", failing)
    with pytest.raises(DeviceError, match="LAUNCH_FAILED"):
        training.run(lambda: "")
    resumed = tiny_training(tmp_path / "failing", epochs=2)
    assert resumed.run(lambda: "") == ""
    assert [e.loss for e in resumed.history] == pytest.approx([e.loss for e in whole.history])


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from onepass.finetune.training import batches

    drawn: list[int] = []
    real = batches.draw_order
    monkeypatch.setattr(
        batches,
        "draw_order",
        lambda rows, seed, epoch: (drawn.append(epoch), real(rows, seed, epoch))[1],
    )
    plan = StepPlan(np.arange(0, 100, 2), 8, 3, Augmentation(), (4, 4, 1))
    counts = [plan.steps(epoch + 1) - plan.steps(epoch) for epoch in range(3)]
    seen = [plan.step_rows(e, place) for e, count in enumerate(counts) for place in range(count)]
    assert drawn == [0, 1, 2, 3][: len(drawn)] and len(drawn) >= 3
    fresh = StepPlan(plan.rows, 8, 3, Augmentation(), (4, 4, 1))
    np.testing.assert_array_equal(seen[counts[0]], fresh.step_rows(1, 0))


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    from onepass.finetune.session.history import DivergedError

    training = tiny_training(tmp_path, epochs=2)
    training.save()
    before = (tmp_path / "checkpoint.npz").read_bytes()
    training.classifier.head.kernel.assign(np.full(training.classifier.head.kernel.shape, np.nan))
    with pytest.raises(DivergedError, match=r"not a number.*Lower --learning-rate"):
        training.run(lambda: "")
    with pytest.raises(DivergedError, match="a weight"):
        training.save()
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_fused_batchnorms_compute_the_same_and_learn_the_same() -> None:
    import keras
    import tensorflow as tf

    classifier = tiny_classifier(tiny_recipe(dropout=0.0))
    draw = np.random.default_rng(0)
    for i in range(2):
        norm = classifier.backbone.get_layer(f"norm{i}")
        for variable in norm.weights:
            variable.assign(draw.uniform(0.5, 1.5, variable.shape))
    images = draw.uniform(0, 255, (6, 12, 12, 3)).astype(np.float32)
    variables = classifier.trainer.network.trainable_variables
    assert len(variables) == 6
    found = []
    plain = keras.Sequential(
        [classifier.extractor.get_layer(n) for n in ("preprocess", "backbone", "pool_0")]
    )
    for network in (classifier.trainer.network, plain):
        with tf.GradientTape() as tape:
            out = network(images, training=False)
            total = tf.reduce_sum(tf.convert_to_tensor(out) ** 2)
        found.append((out, tape.gradient(total, variables)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_statistics_move_only_where_asked(tmp_path: Path) -> None:
    for mode, moves in (("frozen", False), ("train", True)):
        folder = tmp_path / mode
        folder.mkdir()
        training = tiny_training(folder, epochs=1, batchnorm=mode)
        norm = training.classifier.backbone.get_layer("norm0")
        before = np.asarray(norm.moving_mean).copy()
        training.run(lambda: "")
        assert bool((np.asarray(norm.moving_mean) != before).any()) is moves


def test_frozen_layers_stay_as_they_are() -> None:
    from onepass.finetune.training.optimizer import LayerwiseAdam
    from onepass.finetune.training.step import TrainStep

    classifier = tiny_classifier(tiny_recipe(), which="last:2")
    trainer = classifier.trainer
    assert len(trainer.trainable_variables) == 3 + 2  # conv1, its BatchNorm, and the head
    before = np.asarray(classifier.backbone.get_layer("conv0").kernel).copy()
    optimizer = LayerwiseAdam(learning_rate=0.1, factors=[1.0] * 5)
    step = TrainStep(trainer, optimizer)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
    step(pixels, np.arange(8, dtype=np.int32) % CLASSES, {"flips": np.zeros((8, 2), bool)})
    np.testing.assert_array_equal(before, classifier.backbone.get_layer("conv0").kernel)


def test_of_a_mixed_image_right_is_the_class_of_its_larger_part() -> None:
    from onepass.finetune.training.optimizer import LayerwiseAdam
    from onepass.finetune.training.step import TrainStep

    recipe = tiny_recipe(dropout=0.0, augmentation=Augmentation(mixup=0.4))
    trainer = tiny_classifier(recipe).trainer
    count = len(trainer.trainable_variables)
    step = TrainStep(trainer, LayerwiseAdam(learning_rate=0.0, factors=[1.0] * count))
    pixels, labels = pixels_and_labels(24)
    draws = StepPlan(np.arange(24), 24, 0, recipe.augmentation, (8, 8, 1)).draws(0, 0)
    found = np.argmax(np.asarray(trainer([pixels, draws])), axis=1)
    larger = np.where(draws["mix"][:, 0] > 0.5, np.roll(labels, 1), labels)
    right = int(step(pixels, labels, draws)[1])
    assert right == np.sum(found == larger) != np.sum(found == labels)
