"""How fast new pictures are classified, beside extraction from decoded rows and Keras' own folder prediction.

    python benchmarks/predict.py MODEL PICTURES [--count 2000] [--cache-dir …] [--runs-dir …]

MODEL is a probe or a run, PICTURES a zip or folder of images. One run, one machine, ROUNDS times in turn: (a) rows: the
model's networks on decoded rows of its data set; (b) decoder: the pictures decoded, nothing more; (c) ours:
`onepass predict MODEL PICTURES --out`, compiled before, with decoding, heads, novelty and the answer file; (d)
Keras: `image_dataset_from_directory` and `predict` of the same network, in batches of as many. Peak memory
of processes of their own, for 500 pictures and for all. The last line is JSON, in images per second and MB.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from common import machine

ROUNDS = 3
FEW = 500


def rate(count: int, work: Callable[[], object]) -> float:
    """Return how many images a second a piece of work takes."""
    begin = time.monotonic()
    work()
    return count / (time.monotonic() - begin)


def unpacked(pictures: Path, folder: Path, count: int) -> int:
    """Write the first pictures of a zip or folder into one folder; return how many."""
    folder.mkdir(parents=True)
    if pictures.is_dir():
        files = [(f.name, f.read_bytes()) for f in sorted(pictures.rglob("*.*"))[:count]]
    else:
        with zipfile.ZipFile(pictures) as archive:
            names = [n for n in archive.namelist() if n.lower().endswith((".jpg", ".jpeg", ".png"))]
            files = [(Path(n).name, archive.read(n)) for n in names[:count]]
    for number, (name, content) in enumerate(files):
        (folder / f"{number:06d}-{name}").write_bytes(content)
    return len(files)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return the median rate of each way, in images per second."""
    import keras

    from onepass.predict.config import PredictConfig
    from onepass.predict.models import load_predictor
    from onepass.predict.network import whole_network
    from onepass.predict.pictures.batches import decoded_batches
    from onepass.predict.pictures.pipeline import predict_pictures
    from onepass.predict.pictures.sources import find_pictures

    places = {"cache_dir": options.cache_dir, "runs_dir": options.runs_dir}
    predictor = load_predictor(PredictConfig(models=(options.model,), **places))
    pictures = predictor.on_pictures()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "pictures" / "all"
        count = unpacked(options.pictures, folder, options.count)
        rows = np.arange(count) % len(predictor.dataset.pixels)
        pixels, batch = predictor.dataset.pixels[rows], pictures.batch

        def from_rows() -> None:
            waiting = [
                pictures.forward(pixels[i : i + batch]) for i in range(0, count - batch + 1, batch)
            ]
            for arrays in waiting:
                np.asarray(arrays[0])

        def decoder() -> None:
            with ExitStack() as stack:
                found = find_pictures([str(folder)], "", stack).found
                for _ in decoded_batches(found, pictures.geometry, batch):
                    pass

        config = PredictConfig(
            models=(options.model,), images=(str(folder),), out=Path(work) / "o.csv", **places
        )

        def ours() -> None:
            predict_pictures(config, predictor)

        network = whole_network(pictures)
        side, channels = pictures.geometry.side, pictures.geometry.channels

        def plain_keras() -> None:
            dataset = keras.utils.image_dataset_from_directory(
                folder.parent, labels=None, image_size=(side, side), batch_size=batch, shuffle=False,
                interpolation="bicubic", color_mode="rgb" if channels == 3 else "grayscale", verbose=False,
            )  # fmt: skip
            network.predict(dataset.map(lambda x: keras.ops.cast(x, "uint8")), verbose=0)

        ways = {"rows": from_rows, "decoder": decoder, "ours": ours, "keras": plain_keras}
        whole = (count // batch) * batch
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS + 1):
            for name, way in ways.items():
                value = rate(whole if name == "rows" else count, way)
                if turn:  # the first one compiles
                    found[name].append(value)
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def peak_memory(options: argparse.Namespace, pictures: Path, count: int) -> float:
    """Return the greatest memory (MB) of `onepass predict` on pictures, in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        if count:
            unpacked(pictures, Path(work) / "some", count)
            pictures = Path(work) / "some"
        words = [sys.executable, "-m", "onepass", "predict", options.model, str(pictures)]
        words += [
            f"--out={work}/o.csv",
            f"--cache-dir={options.cache_dir}",
            f"--runs-dir={options.runs_dir}",
        ]
        root = Path(__file__).resolve().parent.parent
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        subprocess.run(words, check=True, capture_output=True, cwd=root)
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert after >= before  # the greatest of all children so far: few pictures are measured first
    return round(after / 1000, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache/store"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    for name in ("pictures", "cache_dir", "runs_dir"):
        setattr(options, name, getattr(options, name).resolve())
    few, all_of_them = (
        peak_memory(options, options.pictures, FEW),
        peak_memory(options, options.pictures, 0),
    )
    found = measure(options)
    limit = min(found["rows"], found["decoder"])
    print(machine())
    for name, value in found.items():
        print(f"{name:<8} {value:8.1f} images/s")
    print(
        f"ours / the slower of rows and decoder: {found['ours'] / limit:.2f}; ours / keras: {found['ours'] / found['keras']:.2f}"
    )
    print(f"memory: {few} MB for {FEW} pictures, {all_of_them} MB for all")
    print(json.dumps({**found, "memory_few": few, "memory_all": all_of_them}))


if __name__ == "__main__":
    main()
