"""A network small enough to be trained in a second, through the real training loop.

As a program it is the trainer of the kill test: `finetune_tiny.py FOLDER KILLS` trains once without
interruption and once with KILLS kills at random moments, and prints whether both ended alike;
`finetune_tiny.py shared FOLDER` trains on all devices that Keras' backend has, with a stop on the way.
"""

import io
import json
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 4
EPOCHS = 8  # of the kill test: 56 steps of 10 ms at least


def pixels_and_labels(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return images whose class is the quarter of the height that is bright."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, count).astype(np.int32)
    pixels = draw.integers(0, 120, (count, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[2 * label : 2 * label + 2] += 100
    return pixels, labels


def tiny_recipe(**changes: Any) -> Any:
    """Return a recipe with everything in it that has a state."""
    from onepass.finetune.recipes import Augmentation, Recipe

    common = {"epochs": 4, "batch": 24, "learning_rate": 1e-2, "weight_decay": 0.05,
              "layer_decay": 0.9, "clip": 1.0, "ema": 0.9, "dropout": 0.2, "soup": 2,
              "label_smoothing": 0.05, "augmentation": Augmentation(flip=True)}  # fmt: skip
    return Recipe(**{**common, **changes})


def tiny_classifier(recipe: Any, which: str = "all", side: int = 12) -> Any:
    """Return two convolutions with BatchNorm and a head, for images of 12 px or another side."""
    import keras

    from onepass.extract.network.model import Pool, Preprocess, Resize
    from onepass.finetune.training.model import assemble

    x = inputs = keras.Input((side, side, 3))
    for i in range(2):
        start = keras.initializers.GlorotUniform(seed=i)
        x = keras.layers.Conv2D(
            8, 3, 2, "same", use_bias=False, kernel_initializer=start, name=f"conv{i}"
        )(x)
        x = keras.layers.BatchNormalization(name=f"norm{i}")(x)
        x = keras.layers.ReLU(name=f"relu{i}")(x)
    backbone = keras.Model(inputs, x, name="backbone")
    pixels = keras.Input((8, 8, 1), dtype="uint8")
    x = Preprocess(False, (1 / 128,) * 3, (-1.0,) * 3, name="preprocess")(
        Resize(side, name="resize")(pixels)
    )
    extractor = keras.Model(pixels, Pool(name="pool_0")(backbone(x)), name="extractor")
    return assemble(extractor, CLASSES, recipe, which=which)


def tiny_training(
    folder: Path,
    select: bool = True,
    every: float = 1e9,
    start_counts: bool = True,
    metric: str = "top1",
    uneven: str = "",
    **changes: Any,
) -> Any:
    """Return a training of 160 images, evaluated on 40 others.

    Args:
        uneven: A class weight, to train on all images of three classes but few of the other.
    """
    from onepass.classify.heads.class_weight import class_weights
    from onepass.classify.metrics import find_metric
    from onepass.finetune.training.batches import Examples
    from onepass.finetune.training.loop import Training

    pixels, labels = pixels_and_labels()
    recipe = tiny_recipe(**changes)
    rows = np.arange(len(labels))
    fit, weights = rows[40:] if select else rows, None
    if uneven:
        fit = np.sort(np.concatenate([fit[labels[fit] != 0], fit[labels[fit] == 0][:6]]))
        weights = class_weights(None if uneven == "none" else uneven, labels[fit], CLASSES)
    return Training(
        tiny_classifier(recipe),
        Examples(pixels, labels, fit, rows[:40] if select else None, find_metric(metric), weights),
        recipe, 0, folder / "checkpoint.npz", every, start_counts,
    )  # fmt: skip


def first_losses(parts: int = 1) -> list[float]:
    """Return the losses of the first steps from weights that do not depend on the backend."""
    import keras

    from onepass.finetune.training.batches import StepPlan
    from onepass.finetune.training.optimizer import build_optimizer
    from onepass.finetune.training.parallel import devices_for
    from onepass.finetune.training.step import TrainStep

    recipe = tiny_recipe(dropout=0.0)
    classifier = tiny_classifier(recipe)
    draw = np.random.default_rng(3)
    for variable in classifier.predictor.weights:
        value = draw.normal(0, 0.3, variable.shape)
        variable.assign(np.abs(value) + 0.5 if "norm" in variable.path else value)
    pixels, labels = pixels_and_labels()
    plan = StepPlan(np.arange(len(labels)), 24, 0, recipe.augmentation, (8, 8, 1))
    count = len(classifier.trainer.trainable_variables)
    optimizer = build_optimizer(recipe, [1.0] * count, [False] * count, plan.steps)
    devices = devices_for(24 // parts)
    step = TrainStep(classifier.trainer, optimizer, recipe.label_smoothing, parts, devices)
    losses = []
    for place in range(5):
        rows = plan.step_rows(0, place)
        loss, _ = step(pixels[rows], labels[rows], plan.draws(0, place))
        losses.append(float(keras.ops.convert_to_numpy(loss)))
    step.sync()
    return losses


def shared(folder: Path) -> dict[str, Any]:
    """Train with everything that looks at a whole batch; on several devices with a stop on the way.

    Returns:
        The devices, how many images of a batch each has, on how many the weights lie, the history, the
        losses of the first steps (in four parts on several devices), and what is made and said of a
        batch of 25.
    """
    from onepass.finetune.recipes import Augmentation
    from onepass.finetune.training.parallel import Sharing, devices_for

    folder.mkdir()
    augmentation = Augmentation(flip=True, rotation=10, erase=0.3, mixup=0.2, cutmix=0.5)
    changes = {"epochs": 2, "batchnorm": "train", "augmentation": augmentation}
    questions = iter(range(1000))
    training = tiny_training(folder, **changes)
    if len(training.devices) > 1:
        training.run(lambda: "stop" if next(questions) == 9 else "")
        training = tiny_training(folder, **changes)
    training.run(lambda: "")
    training.step(*next(training.feed.epoch(0, 0)))
    weights = training.step._state[0][0]
    images = Sharing(len(training.devices)).divide(np.zeros((24, 8)), 24)
    each = [len(part.data) for part in getattr(images, "addressable_shards", [])]
    rows = [[r.loss, r.accuracy, r.selection_loss, r.selection_accuracy] for r in training.history]
    said = io.StringIO()
    logging.basicConfig(stream=said, level=logging.INFO, format="%(message)s", force=True)
    odd, several = devices_for(25), len(training.devices) > 1
    return {
        "devices": training.devices, "each": each, "weights": len(weights.devices()), "history": rows,
        "losses": first_losses(parts=4 if several else 1), "odd": odd, "said": said.getvalue(),
    }  # fmt: skip


def _train(folder: Path) -> None:
    training = tiny_training(folder, every=0.02, epochs=EPOCHS)
    training.run(lambda: time.sleep(0.01) or "")  # type: ignore[func-returns-value]
    chosen = training.conclude()
    history = [[row.loss, row.accuracy, row.selection_accuracy] for row in training.history]
    weights = [np.asarray(v).ravel().tolist() for v in training.classifier.predictor.variables]
    facts = {
        "history": history,
        "start": training.start.loss,
        "kept": chosen.epochs,
        "weights": weights,
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def _forked(folder: Path, seconds: float | None) -> bool:
    """Train in a process of its own; say whether it came to its end.

    Args:
        folder: Of the run.
        seconds: Kill it so long after it has written a checkpoint; None lets it live.
    """
    checkpoint = folder / "checkpoint.npz"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    child = os.fork()  # before TensorFlow has started a thread: a fresh start without the import
    if not child:
        try:
            logging.basicConfig(filename=folder / "log.txt", level=logging.INFO)
            os.dup2(os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            _train(folder)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    end = None
    while end is None or time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError((folder / "log.txt").read_text()[-2000:])
            return True
        written = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        if end is None and seconds is not None and written != before:
            end = time.monotonic() + seconds
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _main(folder: Path, kills: int) -> None:
    import onepass.finetune.training.loop  # noqa: F401  (imported once for all the children)

    whole, killed = folder / "whole", folder / "killed"
    for path in (whole, killed):
        path.mkdir(parents=True)
    _forked(whole, None)
    chance, done, count = random.Random(0), False, 0
    while count < kills and not done:
        done = _forked(killed, chance.uniform(0, 0.12))
        count += not done
    if not done:
        _forked(killed, None)
    went_on = (killed / "log.txt").read_text().count("resuming after epoch")
    equal = (whole / "facts.json").read_text() == (killed / "facts.json").read_text()
    print(json.dumps({"kills": count, "went_on": went_on, "equal": equal}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    if sys.argv[1] == "shared":
        print(json.dumps(shared(Path(sys.argv[2]))))
    else:
        _main(Path(sys.argv[1]), int(sys.argv[2]))
