"""How close extraction comes to the bare forward pass, by each engine, and what people write today.

    python benchmarks/extract.py [--size 128 224] [--rows 6000] [--backbone efficientnet_lite0] [--rounds 3]

One run, one machine. For each size some rounds, in each of which all of it takes turns: (a) bare: the compiled
model on one resident uint8 batch, of Keras in float32 and of what `--engine auto` takes where that is another;
(b) end to end: `extract_features` with each engine, from the first row read to the finished, synced file; (c) the
naive pipelines: Keras's ImageDataGenerator.flow_from_directory + predict, and tf.data decoding with
tf.image.resize + predict. Reported are the medians of rates and of the ratios of each round. The last line is
JSON, in images per second: `engine_ratio` is end to end with `auto` of bare Keras, `of_own_bare` end to end with
each engine of its own bare rate; `processor_ms` an image and `by_processor`, the same ratios of the processor's time,
which other work on the machine bends less; on a GPU `gpu_use`, the mean share of (b) that it was busy (NVML).
"""

import argparse
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import numpy as np
from common import Cost, cost, machine, prepare, write_jpegs

BATCH = 64
NAIVE_ROWS = 640  # a round; the naive pipelines are slow
BARE_SECONDS = 3.0  # a round


Measure = Callable[[], Cost]


def bare(extractor, batch) -> Measure:
    """The compiled step on one resident batch, as many at a time as the pipeline sends."""
    from onepass.extract.stream.engine import IN_FLIGHT

    def steps() -> int:
        begin, count = time.monotonic(), 0
        flying: deque = deque()
        while time.monotonic() - begin < BARE_SECONDS:
            flying.append(extractor.steps[0](batch))
            count += 1
            if len(flying) == IN_FLIGHT:
                np.asarray(flying.popleft()[0])
        for arrays in flying:
            np.asarray(arrays[0])
        return count * len(batch.pixels)

    return partial(cost, steps)


def ours(store: Path, backbone: str, weights: str, size: int) -> tuple[dict, list[float]]:
    """Return what measures the bare steps and `extract_features`, by name, and where the GPU use is gathered."""
    from onepass.data.dataset import open_dataset
    from onepass.extract.config import ExtractConfig
    from onepass.extract.jobs import make_jobs
    from onepass.extract.pipeline import extract_features
    from onepass.extract.stream.engine import cut_batches
    from onepass.extract.stream.executors import LocalExecutor
    from onepass.extract.stream.extractor import Extractor, settle_engine

    config = ExtractConfig(
        dataset="bench",
        backbone=(backbone,),
        size=(size,),
        batch=BATCH,
        weights=weights,
        cache_dir=store,
        engine="auto",
    )
    dataset, uses = open_dataset(store, "bench"), []
    columns = {"pixels": dataset.pixels, "content": dataset.content}
    batch = next(cut_batches(columns, [(0, np.arange(BATCH))], BATCH))
    job = make_jobs(config, dataset)[0]
    keras = Extractor.build(job, dataset.pixels, BATCH)
    auto, chosen = keras, job
    if job.open:
        chosen, auto = settle_engine(job, keras, dataset.pixels, len(dataset.labels))
    print(f"{job}: auto takes {chosen.precision}, {chosen.why}", flush=True)

    def end_to_end(engine: str) -> Measure:
        run, spent = LocalExecutor.run, []

        def timed(self, *task):  # what is built and compiled before is not of the rate
            begin = time.process_time()
            outcome = run(self, *task)
            spent.append(time.process_time() - begin)
            return outcome

        def measure() -> Cost:
            with patch.object(LocalExecutor, "run", timed):
                report = extract_features(replace(config, engine=engine)).files[0]
            report.path.unlink()
            uses.extend([] if report.gpu_use is None else [report.gpu_use])
            return Cost(1e3 * report.seconds / report.computed, 1e3 * spent[-1] / report.computed)

        return measure

    measures = {"bare": bare(keras, batch)}
    if auto is not keras:
        measures[f"bare_{chosen.precision}"] = bare(auto, batch)
        measures["end_to_end_keras"] = end_to_end("keras")
    measures["end_to_end"] = end_to_end("auto")
    return measures, uses


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


def naive_generator(folder: Path, backbone: str, weights: str, size: int) -> Measure:
    """ImageDataGenerator.flow_from_directory + predict."""
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

    def predict() -> int:
        model.predict(flow, steps=NAIVE_ROWS // BATCH, verbose=0)
        return NAIVE_ROWS

    return partial(cost, predict)


def naive_tfdata(folder: Path, backbone: str, weights: str, size: int) -> Measure:
    """tf.data: read, decode, tf.image.resize, batch, prefetch + predict."""
    import tensorflow as tf
    from keras import ops

    model, preprocessing = naive_model(backbone, weights, size)

    def load(path):
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return preprocessing.apply(tf.image.resize(pixels, (size, size), "bicubic"), ops)

    paths = sorted(str(path) for path in (folder / "train").rglob("*.*"))[:NAIVE_ROWS]
    rows = (
        tf.data.Dataset.from_tensor_slices(paths)
        .map(load, tf.data.AUTOTUNE)
        .batch(BATCH)
        .prefetch(tf.data.AUTOTUNE)
    )
    model.predict(rows.take(2), verbose=0)

    def predict() -> int:
        model.predict(rows, verbose=0)
        return len(paths)

    return partial(cost, predict)


def summary(rounds: dict[str, list[Cost]]) -> dict:
    """Return the medians of the rates and of the ratios within a round."""
    wall, processor = ({n: [c[i] for c in costs] for n, costs in rounds.items()} for i in (0, 1))
    return {
        **{name: round(1e3 / float(np.median(times)), 1) for name, times in wall.items()},
        **ratios(wall),
        "processor_ms": {n: round(float(np.median(times)), 2) for n, times in processor.items()},
        "by_processor": ratios(processor),
    }


def ratios(times: dict[str, list[float]]) -> dict:
    """Return the medians of the ratios of rates within a round, of times an image."""

    def ratio(above: str, below: str) -> float:
        pairs = zip(times[above], times[below], strict=True)
        return round(float(np.median([other / one for one, other in pairs])), 3)

    (fast,) = [name for name in times if name.startswith("bare_")] or ["bare"]
    own = {"end_to_end": fast, "end_to_end_keras": "bare"}
    return {
        "engine_ratio": ratio("end_to_end", "bare"),
        "of_own_bare": {name: ratio(name, of) for name, of in own.items() if name in times},
        "of_naive": {n: ratio("end_to_end", n) for n in times if n.startswith("naive_")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs="+", default=[128, 224])
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
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
            network = options.backbone, options.weights, size
            measures, uses = ours(store, *network)
            measures["naive_generator"] = naive_generator(folder, *network)
            if find_spec("tensorflow"):
                measures["naive_tfdata"] = naive_tfdata(folder, *network)
            rounds: dict[str, list[Cost]] = {name: [] for name in measures}
            for number in range(options.rounds):
                for name, measure in measures.items():
                    rounds[name].append(measure())
                rates = ", ".join(f"{n} {1e3 / c[-1].wall:.0f}" for n, c in rounds.items())
                words = f"{options.backbone}@{size}, round {number + 1}: {rates} images/s"
                print(words, flush=True)
            results.append({"size": size, **summary(rounds)})
            results[-1] |= {"gpu_use": round(sum(uses) / len(uses), 3)} if uses else {}
    print(json.dumps(results if len(results) > 1 else results[0]))


if __name__ == "__main__":
    main()
