"""Training, images per second: the loop end to end, its bare step, and a Keras loop with ImageDataGenerator.

    python benchmarks/finetune.py [--size 128] [--rounds 3] [--steps 8]

All three train EfficientNet-Lite0 with a head of 200 classes in batches of 64, round by round in turn;
the round in the middle counts. `bare` repeats the compiled step on one batch that is in memory;
`end_to_end` is what `onepass finetune` runs, `default` recipe (order, draws, reading, fetching the
loss; the first step after a pause and checkpoints, which come every two minutes, apart);
`naive_generator` is `Model.fit` on JPEG files read, enlarged and augmented by Keras' ImageDataGenerator.
The last line is JSON; on a GPU with `gpu_use`, the mean share of `end_to_end` that it was busy (NVML).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import machine, rates_in_turn, write_jpegs

BATCH, CLASSES = 64, 200


def pixels_of(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Return images (count, 64, 64, 3) uint8 and labels, and write them as files for the generator."""
    from PIL import Image

    source = write_jpegs(folder, count)
    paths = sorted(folder.rglob("train/**/*.*"))
    paths = [path for path in paths if path.is_file()][:count]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    names = sorted({path.parent.name for path in paths})
    labels = np.array([names.index(path.parent.name) for path in paths], np.int32)
    return pixels, labels, source


def classifier_of(size: int, recipe):
    """Return the network; random weights are as fast as trained ones."""
    from onepass.extract.backbones.registry import WeightsChoice, find_backbone
    from onepass.extract.network.model import build_extractor
    from onepass.finetune.training.model import assemble

    spec = find_backbone("efficientnet_lite0")
    return assemble(
        build_extractor(spec, size, (64, 64, 3), weights=WeightsChoice("none")), CLASSES, recipe
    )


def bare(size: int, recipe, pixels, labels, steps: int) -> Callable[[], float]:
    """Return a round of the compiled step on one resident batch."""
    import keras

    from onepass.finetune.augmentation import draw
    from onepass.finetune.training.optimizer import build_optimizer
    from onepass.finetune.training.parallel import devices_for
    from onepass.finetune.training.step import TrainStep

    trainer = classifier_of(size, recipe).trainer
    count = len(trainer.trainable_variables)
    optimizer = build_optimizer(recipe, [1.0] * count, [False] * count, lambda epochs: 10_000)
    step = TrainStep(trainer, optimizer, recipe.label_smoothing, devices=devices_for(BATCH))
    draws = draw(recipe.augmentation, (64, 64, 3), 0, 0, 0, BATCH)
    batch = [keras.ops.convert_to_tensor(a) for a in (pixels[:BATCH], labels[:BATCH])]
    draws = {name: keras.ops.convert_to_tensor(value) for name, value in draws.items()}

    def once() -> float:
        begin = time.perf_counter()
        losses = [step(*batch, draws)[0] for _ in range(steps)]
        float(losses[-1])
        return steps * BATCH / (time.perf_counter() - begin)

    return once


def training_of(size: int, recipe, pixels, labels, rounds: int, folder: Path):
    """Return the training of `onepass finetune`, for as many epochs as there are rounds."""
    from dataclasses import replace

    from onepass.finetune.training.batches import Examples
    from onepass.finetune.training.loop import Training

    return Training(
        classifier_of(size, recipe), Examples(pixels, labels, np.arange(len(labels))),
        replace(recipe, epochs=rounds + 1), 0, folder / "checkpoint.npz",
    )  # fmt: skip


def end_to_end(training) -> Callable[[], float]:
    """Return a round of the training loop: one epoch."""

    def once() -> float:
        images, seconds = training.images, training.timed
        training.run(lambda: "", until=len(training.history) + 1)
        return (training.images - images) / (training.timed - seconds)

    return once


def naive_generator(size: int, recipe, folder: Path, steps: int) -> Callable[[], float]:
    """Return a round of what De (2020) did: ImageDataGenerator from files, Model.fit."""
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    from onepass.extract.backend import as_list

    classifier = classifier_of(size, recipe)
    images = keras.Input((size, size, 3))
    vectors = classifier.extractor.get_layer("preprocess")(images)
    (features,) = as_list(classifier.backbone(vectors, training=False))
    vectors = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(images, classifier.head(vectors))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss)
    generator = ImageDataGenerator(
        horizontal_flip=True, rotation_range=10, shear_range=10, brightness_range=(0.8, 1.2)
    )
    flow = generator.flow_from_directory(
        folder / "train",
        (size, size),
        batch_size=BATCH,
        class_mode="sparse",
        interpolation="bicubic",
    )

    def batches():
        while True:
            images, labels = next(flow)
            if len(images) == BATCH:  # the last one of an epoch would be compiled anew
                yield images, labels

    stream = batches()

    def once() -> float:
        begin = time.perf_counter()
        model.fit(stream, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False)
        return steps * BATCH / (time.perf_counter() - begin)

    return once


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    size, steps, rounds = options.size, options.steps, options.rounds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pixels, labels, source = pixels_of(folder, BATCH * steps)
        from onepass.finetune.recipes import RECIPES

        recipe = RECIPES["default"]
        training = training_of(size, recipe, pixels, labels, rounds, folder)
        ways = {
            "bare": bare(size, recipe, pixels, labels, steps),
            "end_to_end": end_to_end(training),
            "naive_generator": naive_generator(size, recipe, folder, steps),
        }
        print(machine(), source, f"size {size}, batch {BATCH}", sep="; ", flush=True)
        rates = rates_in_turn(ways, rounds)
    middle = sorted(range(rounds), key=lambda i: rates["end_to_end"][i] / rates["bare"][i])
    chosen = middle[rounds // 2]
    result = {name: round(values[chosen], 1) for name, values in rates.items()}
    if training.use.mean is not None:
        result["gpu_use"] = round(training.use.mean, 3)
    ratio = statistics.median(
        a / b for a, b in zip(rates["end_to_end"], rates["naive_generator"], strict=True)
    )
    print(
        f"end to end: {result['end_to_end'] / result['bare']:.3f} of the bare step, "
        f"{ratio:.2f} times the generator"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
