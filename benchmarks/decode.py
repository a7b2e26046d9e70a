"""How fast images become rows: one thread, all cores, and what people write today.

    python benchmarks/decode.py [--photographs 200] [--small 20000] [--rounds 3]

One run, one machine. 64 px: training images of Tiny ImageNet, as they are. 12 megapixels: JPEG files of
4,000 x 3,000 px (collages of Tiny ImageNet, enlarged, under the noise of a camera), made rows of 320 px. In each
round, of which each has photographs of its own, take turns: (a) a loop of Pillow in one thread, read, decode, resize; (b) `decode_row` in one thread;
(c) `prepare_dataset`, the files of a folder to the finished, synced row file; (d) the same in this process alone, however
many images there are. Reported are medians. The last line is
JSON, in images per second; `gain` is (c) of (a), `processor` the milliseconds of processor time an image, which
other work bends less, and `apart` how far the rows of (b) lie from those of (a):
share of the numbers more than one grey level apart, and the largest difference.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
from common import machine, prepare, write_jpegs
from PIL import Image

WIDTH, HEIGHT, ENLARGED = 4000, 3000, 5
COLLAGES = 20  # that the photographs are made of


def write_photographs(tiles: list[Path], folders: list[Path], each: int) -> None:
    """Write train/<class>/<number>.jpg, each with pixels of its own: collages, moved to another place each time."""
    random = np.random.default_rng(0)
    collages = [_collage(tiles, random) for _ in range(min(each, COLLAGES))]
    for number in range(each * len(folders)):
        turn, place = divmod(number, len(collages))
        path = folders[number // each] / "train" / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        moved = np.roll(collages[place], (37 * turn, 53 * turn), (0, 1))
        Image.fromarray(moved).save(path, quality=90)


def _collage(tiles: list[Path], random: np.random.Generator) -> np.ndarray:
    """Return enlarged pictures side by side, under the noise of a camera."""
    step = 64 * ENLARGED
    whole = Image.new("RGB", (WIDTH, HEIGHT))
    for left in range(0, WIDTH, step):
        for top in range(0, HEIGHT, step):
            tile = Image.open(tiles[random.integers(len(tiles))])
            whole.paste(tile.resize((step, step), Image.Resampling.BICUBIC), (left, top))
    noise = random.normal(0, 4, (HEIGHT, WIDTH, 1)).astype(np.float32)
    return np.clip(np.asarray(whole) + noise, 0, 255).astype(np.uint8)


def pillow_rows(files: list[Path], side: int) -> np.ndarray:
    rows = []
    for file in files:
        image = Image.open(file).convert("RGB")
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        rows.append(np.asarray(image))
    return np.stack(rows)


def our_rows(files: list[Path], side: int) -> np.ndarray:
    from onepass.data.images import decode_row

    return np.stack(
        [decode_row(file.read_bytes(), file.name, side, 3, "stretch") for file in files]
    )


def prepare_here(folder: Path, store: Path) -> None:
    from onepass.data.cluster import decoders

    with patch.object(decoders, "MANY", sys.maxsize):
        prepare(folder, store)


def measure(folders: list[Path], store: Path, side: int, alone: int) -> dict:
    """Return the median rates over rounds with a folder each, and how far the rows of the last are apart."""
    rates: dict[str, list[float]] = {
        "pillow_loop": [],
        "decode_row": [],
        "prepare": [],
        "one_process": [],
    }
    processor: dict[str, list[float]] = {name: [] for name in rates}

    def timed(name: str, count: int, work: Callable, *given):
        begin, used = time.monotonic(), time.process_time()
        found = work(*given)
        rates[name].append(count / (time.monotonic() - begin))
        processor[name].append(1000 * (time.process_time() - used) / count)
        return found

    theirs = ours = np.zeros(0)
    for folder in folders:
        files = sorted(folder.rglob("*.*"))
        some = [files[i] for i in np.linspace(0, len(files) - 1, alone).astype(int)]
        theirs = timed("pillow_loop", len(some), pillow_rows, some, side)
        ours = timed("decode_row", len(some), our_rows, some, side)
        for name, work in (("prepare", prepare), ("one_process", prepare_here)):
            shutil.rmtree(store, ignore_errors=True)
            timed(name, len(files), work, folder, store)
        print(*(f"{name} {values[-1]:.1f}" for name, values in rates.items()), flush=True)
    apart = np.abs(ours.astype(int) - theirs)
    gains = [one / other for one, other in zip(rates["prepare"], rates["pillow_loop"], strict=True)]
    return {
        **{name: round(float(np.median(values)), 1) for name, values in rates.items()},
        "gain": round(float(np.median(gains)), 2),
        "processor": {name: round(float(np.median(ms)), 2) for name, ms in processor.items()},
        "apart": [float((apart > 1).mean()), int(apart.max())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from onepass.data.config import MAX_SIDE

    print(machine())
    with tempfile.TemporaryDirectory() as name:
        small, large, store = (Path(name) / part for part in ("small", "large", "store"))
        print(write_jpegs(small, options.small), flush=True)
        parts = [large / str(number) for number in range(options.rounds)]
        each = options.photographs // options.rounds
        write_photographs(sorted(small.rglob("*.*")), parts, each)
        found = {
            "64 px": measure([small] * options.rounds, store, 64, min(2000, options.small)),
            "12 megapixels": measure(parts, store, MAX_SIDE, min(20, each)),
        }
    for kind, rates in found.items():
        print(
            f"{kind}: Pillow loop {rates['pillow_loop']}, decode_row {rates['decode_row']}, prepare "
            f"{rates['prepare']} images/s ({rates['gain']} times the loop), in one process {rates['one_process']}; more than a grey level apart: "
            f"{rates['apart'][0]:.1e} of the numbers, at most {rates['apart'][1]}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
