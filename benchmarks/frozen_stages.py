"""Training the upper layers of lite0, images per second: frozen ones computed in each step, and cached as rows.

    python benchmarks/frozen_stages.py [--size 128] [--unfreeze last:33] [--rounds 5] [--steps 16]

Both run the loop of `onepass finetune --unfreeze last:33`, a third of the layers with weights (recipe `default` without mirroring, batches of 64), an epoch each in
turn; the median of the rounds' ratios counts. `one_off` is what the rows cost: opening them and one forward
pass an image of the frozen layers. The last line is JSON; `pays_after` are the epochs after which they have paid for themselves,
`loss_apart` the largest difference between the two histories.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from common import machine, rates_in_turn, write_jpegs

BATCH, BACKBONE = 64, "efficientnet_lite0"


def classifier_of(size: int, dataset, recipe, unfreeze: str):
    """Return the network with the published weights and a head at random, the same in both."""
    from onepass.extract.backbones.registry import find_backbone
    from onepass.extract.network.model import build_extractor
    from onepass.finetune.training.model import assemble

    extractor = build_extractor(find_backbone(BACKBONE), size, dataset.pixels.shape[1:])
    return assemble(extractor, len(dataset.class_ids), recipe, which=unfreeze)


def epoch_of(training):
    """Return a round: one epoch, of which the first step and checkpoints do not count."""

    def once() -> float:
        images, seconds = training.images, training.timed
        training.run(lambda: "", until=len(training.history) + 1)
        return (training.images - images) / (training.timed - seconds)

    return once


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--unfreeze", default="last:33")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16)
    options = parser.parse_args()
    size, rounds, unfreeze = options.size, options.rounds, options.unfreeze
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        source = write_jpegs(folder / "images", BATCH * options.steps)
        import onepass
        from onepass.cache.features import FeatureKey
        from onepass.extract.backbones.registry import find_backbone
        from onepass.finetune.recipes import PLAIN, RECIPES
        from onepass.finetune.training.batches import Examples
        from onepass.finetune.training.frozen_rows import open_frozen_rows
        from onepass.finetune.training.loop import Training

        store = folder / "store"
        onepass.prepare_dataset(
            "folder", source=str(folder / "images"), name="bench", cache_dir=store
        )
        dataset = onepass.open_dataset("bench", cache_dir=store)
        rows = np.arange(len(dataset.labels))
        recipe = replace(RECIPES["default"], epochs=rounds + 1, augmentation=PLAIN)
        key = FeatureKey(BACKBONE, find_backbone(BACKBONE).weights, size)
        start = SimpleNamespace(key=key, random=False)
        examples = Examples(dataset.pixels, dataset.labels, rows)

        cached = classifier_of(size, dataset, recipe, unfreeze)
        begin = time.perf_counter()
        frozen = stack.enter_context(
            open_frozen_rows(cached.trainer, recipe, start, store, dataset, len(rows))
        )
        opened = time.perf_counter() - begin
        frozen.compute(rows, np.zeros_like(rows))
        one_off = time.perf_counter() - begin
        each = (one_off - opened) / len(rows)
        kept = int(np.prod(frozen.network.input.shape[1:])) * 4
        ways, trainings = {}, []
        for name, classifier, some in (
            ("uncached", classifier_of(size, dataset, recipe, unfreeze), examples),
            ("cached", cached, replace(examples, frozen=frozen)),
        ):
            training = Training(classifier, some, recipe, 0, folder / name / "checkpoint.npz")
            ways[name] = epoch_of(training)
            trainings.append(training)
        print(machine(), source, f"size {size}, batch {BATCH}, {unfreeze}, frozen up to {cached.trainer.frozen.name}: {kept:,} bytes an image", sep="; ", flush=True)  # fmt: skip
        rates = rates_in_turn(ways, rounds)
        pairs = zip(*(training.history for training in trainings), strict=True)
        apart = max(abs(one.loss - other.loss) / one.loss for one, other in pairs)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ratio = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
    saved = 1 / middle["uncached"] - 1 / middle["cached"]
    result = {
        **{name: round(value, 1) for name, value in middle.items()},
        "ratio": round(ratio, 2),
        "one_off": round(1 / each, 1),
        "opening_s": round(opened, 1),
        "pays_after": math.ceil(each / saved),
        "loss_apart": float(f"{apart:.1g}"),
    }
    print(
        f"cached: {ratio:.2f} times the images/s; the rows cost {opened:.1f} s and then {1 / each:.0f} images/s once, "
        f"which is made up for after {result['pays_after']} epochs; the losses of the epochs differ by at most "
        f"{apart:.1g} of their values"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
