"""How close extraction comes to the bare forward pass, and what people write today.

    python benchmarks/extract.py [--size 96 128 224] [--rows 10000] [--backbone efficientnet_lite0]

One run, one machine, for each size: (a) bare: the compiled model on one resident uint8 batch, before and
after each of five rounds of (b); (b) end to end: `extract_features`, from the first row read to the finished, synced file;
(c) the naive pipelines: Keras's ImageDataGenerator.flow_from_directory + predict, and tf.data decoding
with tf.image.resize + predict. The last line is JSON, in images per second; on a GPU with `gpu_use`, the
mean share of (b), all rounds, that it was busy (NVML).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine, prepare, write_jpegs

BATCH = 64
NAIVE_ROWS = 2560  # enough for a steady rate; the naive pipelines are slow
BARE_SECONDS = 3.0  # before and after each round
ROUNDS = 5  # the one with the median ratio is reported: other work on the machine comes and goes


def bare_seconds(extractor, batch, seconds: float) -> tuple[int, float]:
    """Run the compiled step on one resident batch; return images and seconds."""
    begin, images = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        for array in extractor.steps[0](batch):
            np.asarray(array)
        images += len(batch.pixels)
    return images, time.monotonic() - begin


def measure_ours(
    store: Path, backbone: str, weights: str, size: int
) -> tuple[float, float, float | None]:
    """Return the bare rate, that of `extract_features`, which computes every row here, and its GPU use."""
    from onepass.data.dataset import open_dataset
    from onepass.extract.config import ExtractConfig
    from onepass.extract.jobs import make_jobs
    from onepass.extract.pipeline import extract_features
    from onepass.extract.stream.engine import cut_batches
    from onepass.extract.stream.extractor import Extractor

    config = ExtractConfig(
        dataset="bench",
        backbone=(backbone,),
        size=(size,),
        batch=BATCH,
        weights=weights,
        cache_dir=store,
    )
    dataset = open_dataset(store, "bench")
    extractor = Extractor.build(make_jobs(config, dataset)[0], dataset.pixels, BATCH)
    columns = {"pixels": dataset.pixels, "content": dataset.content}
    batch = next(cut_batches(columns, [(0, np.arange(BATCH))], BATCH))
    bare_seconds(extractor, batch, 2.0)
    rounds = []
    for _ in range(ROUNDS):
        first = bare_seconds(extractor, batch, BARE_SECONDS)
        report = extract_features(config).files[0]
        second = bare_seconds(extractor, batch, BARE_SECONDS)
        report.path.unlink()
        bare = (first[0] + second[0]) / (first[1] + second[1])
        whole = report.computed / report.seconds
        rounds.append((whole / bare, bare, whole, report.gpu_use))
    print("rounds, end to end of bare: " + ", ".join(f"{ratio:.3f}" for ratio, *_ in rounds))
    uses = [use for *_, use in rounds if use is not None]
    bare, whole = sorted(rounds, key=lambda one: one[0])[ROUNDS // 2][1:3]
    return bare, whole, sum(uses) / len(uses) if uses else None


def naive_model(backbone: str, weights: str, size: int):
    """The frozen backbone as a tutorial builds it: float pixels in, pooled vectors out."""
    import keras

    from onepass.extract.backbones.registry import build_backbone, find_backbone, preprocessing_of

    spec = find_backbone(backbone)
    network = build_backbone(spec, size, weights)
    network.trainable = False
    vectors = (
        keras.layers.GlobalAveragePooling2D()(network.output)
        if len(network.output.shape) == 4
        else network.output
    )
    return keras.Model(network.input, vectors), preprocessing_of(spec, weights)


def measure_generator(folder: Path, backbone: str, weights: str, size: int) -> float:
    """ImageDataGenerator.flow_from_directory + predict."""
    import numpy as np
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    model, preprocessing = naive_model(backbone, weights, size)
    generator = ImageDataGenerator(preprocessing_function=lambda x: preprocessing.apply(x, np))
    flow = generator.flow_from_directory(
        folder / "train",
        (size, size),
        batch_size=BATCH,
        class_mode=None,
        shuffle=False,
        interpolation="bicubic",
    )
    model.predict(flow, steps=2, verbose=0)
    steps = min(NAIVE_ROWS, flow.samples) // BATCH
    begin = time.monotonic()
    model.predict(flow, steps=steps, verbose=0)
    return steps * BATCH / (time.monotonic() - begin)


def measure_tfdata(folder: Path, backbone: str, weights: str, size: int) -> float:
    """tf.data: read, decode, tf.image.resize, batch, prefetch + predict."""
    import tensorflow as tf
    from keras import ops

    model, preprocessing = naive_model(backbone, weights, size)

    def load(path):
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return preprocessing.apply(tf.image.resize(pixels, (size, size), "bicubic"), ops)

    paths = sorted(str(path) for path in (folder / "train").rglob("*.*"))[
        : NAIVE_ROWS // BATCH * BATCH
    ]
    rows = (
        tf.data.Dataset.from_tensor_slices(paths)
        .map(load, tf.data.AUTOTUNE)
        .batch(BATCH)
        .prefetch(tf.data.AUTOTUNE)
    )
    model.predict(rows.take(2), verbose=0)
    begin = time.monotonic()
    model.predict(rows, verbose=0)
    return len(paths) / (time.monotonic() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs="+", default=[96, 128, 224])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument(
        "--weights", default="imagenet", help="none: random, where speed alone is asked for"
    )
    options = parser.parse_args()
    print(machine())
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name) / "jpeg", Path(name) / "store"
        print(write_jpegs(folder, options.rows), flush=True)
        prepare(folder, store)
        for size in options.size:
            bare, whole, use = measure_ours(store, options.backbone, options.weights, size)
            generator = measure_generator(folder, options.backbone, options.weights, size)
            tfdata = measure_tfdata(folder, options.backbone, options.weights, size)
            print(
                f"{options.backbone}@{size}: bare {bare:.0f}, end to end {whole:.0f} ({whole / bare:.3f} of bare), "
                f"ImageDataGenerator {generator:.0f} (ours {whole / generator:.2f} times), "
                f"tf.data {tfdata:.0f} (ours {whole / tfdata:.2f} times) images/s",
                flush=True,
            )
            rates = {
                "bare": bare,
                "end_to_end": whole,
                "naive_generator": generator,
                "naive_tfdata": tfdata,
            }
            results.append({"size": size, **{name: round(rate, 1) for name, rate in rates.items()}})
            results[-1] |= {} if use is None else {"gpu_use": round(use, 3)}
    print(json.dumps(results if len(results) > 1 else results[0]))


if __name__ == "__main__":
    main()
