"""What a second thread gives where images are read and decoded, by their size.

    python benchmarks/threads.py [--widths 32 64 128 256 500 1000] [--images 400] [--rounds 3]

Square JPEG files are read and looked at, then read and decoded to rows of their own size, at most 224 px, by one thread
and by two of the same process, in turn. Printed: the medians of microseconds an image, and of how many times as long two threads
take.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine
from PIL import Image

from onepass.data.look import read_images
from onepass.data.pack import Geometry, decoded
from onepass.data.sources import open_source
from onepass.data.sources.base import Item, Request

LARGEST, SHARD = 224, 200


def write_images(folder: Path, count: int, width: int) -> None:
    """Write JPEG files of two classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % 2}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (width // 8, width // 8, 3), np.uint8))
        coarse.resize((width, width)).save(path, quality=90)


def timed(items: list[Item], width: int, threads: int) -> dict[str, float]:
    """Return the microseconds an image."""
    side = min(width, LARGEST)
    parts = [items[low : low + SHARD] for low in range(0, len(items), SHARD)]
    begin = time.perf_counter()
    for _ in read_images(items, None, threads):
        pass
    between = time.perf_counter()
    for _ in decoded(parts, Geometry(side, 3, "square", width), threads):
        pass
    each = 1e6 / len(items)
    return {
        "looking": (between - begin) * each,
        "decoding": (time.perf_counter() - between) * each,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 500, 1000])
    parser.add_argument(
        "--images", type=int, default=400, help="of 256 px; of others as many as take as long"
    )
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    print(f"{flags.rounds} rounds; {machine()}")
    for width in flags.widths:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            count = flags.images * max(1, 256 // width)
            write_images(folder, count, width)
            request = Request(str(folder), "", folder)
            with open_source("folder", [request]) as source:
                timed(source.items, width, 1)  # what is imported and cached
                rounds = [
                    {threads: timed(source.items, width, threads) for threads in order}
                    for order in [(1, 2), (2, 1)] * flags.rounds
                ][: flags.rounds]
        for stage in ("looking", "decoding"):
            one, two = (statistics.median(r[n][stage] for r in rounds) for n in (1, 2))
            ratio = statistics.median(r[2][stage] / r[1][stage] for r in rounds)
            print(
                f"{width:>5} px, {stage}: {one:7.0f} and {two:7.0f} µs: two threads take {ratio:.2f} times as long"
            )


if __name__ == "__main__":
    main()
