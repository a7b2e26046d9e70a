"""What the resize inside the model costs: alone, as a share of the whole forward pass.

    python benchmarks/resize.py [--size 128] [--backbone efficientnet_lite0]

Both are compiled for the same resident batch of 64 px images and timed in turn. The last line is JSON.
"""

import argparse
import json
import time

import numpy as np
from common import machine

BATCH, ROUNDS = 64, 15


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    options = parser.parse_args()
    import keras

    from onepass.extract.backbones.registry import find_backbone
    from onepass.extract.engines.keras_engine import compile_step
    from onepass.extract.network.model import Resize, build_extractor

    shape = (64, 64, 3)
    pixels = keras.Input(shape, dtype="uint8")
    steps = {
        "resize": compile_step(keras.Model(pixels, Resize(options.size)(pixels)), BATCH),
        "forward": compile_step(
            build_extractor(find_backbone(options.backbone), options.size, shape, inference=True),
            BATCH,
        ),
    }
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, *shape), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(2 + ROUNDS):
        for name, step in steps.items():
            begin = time.monotonic()
            np.asarray(step(batch)[0])
            times[name].append(time.monotonic() - begin)
    medians = {name: float(np.median(values[2:])) for name, values in times.items()}
    share = medians["resize"] / medians["forward"]
    print(machine())
    print(
        f"{options.backbone}@{options.size}: resize {1000 * medians['resize'] / BATCH:.3f} ms an image, "
        f"whole forward {1000 * medians['forward'] / BATCH:.3f} ms: {share:.1%}"
    )
    print(json.dumps({"size": options.size, "share": round(share, 4)}))


if __name__ == "__main__":
    main()
