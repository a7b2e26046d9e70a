"""How fast new pictures are classified, beside extraction from decoded rows and Keras' own folder prediction.

    python benchmarks/predict.py MODEL PICTURES [--count 2000] [--large 64] [--cache-dir …] [--runs-dir …]

MODEL is a probe or a run, PICTURES a zip or folder of images. One run, one machine, `--rounds` times in turn: (a)
rows: the model's networks on decoded rows of its data set; (b) decoder: the pictures decoded, nothing more; (c) ours:
`onepass predict MODEL PICTURES --out`, compiled before, with decoding, heads, novelty and the answer file; (d)
Keras: `image_dataset_from_directory` and `predict` of the same network, in batches of as many. First with the pictures
as they are, where the device is the limit, then with `--large` JPEG files of 12 megapixels that are made of them,
where the decoder is. Then the peak memory of processes of their own, for 500 pictures and for all of PICTURES. The
last line is JSON, in images per second and MB.
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
from PIL import Image

FEW = 500
LARGE = 4000, 3000  # px
Ways = dict[str, tuple[int, Callable[[], object]]]  # pictures, and what is done to them


def rate(count: int, work: Callable[[], object]) -> float:
    """Return how many images a second a piece of work takes."""
    begin = time.monotonic()
    work()
    return count / (time.monotonic() - begin)


def medians(ways: Ways, rounds: int) -> dict[str, float]:
    """Return the median rate of each way; a first round, that compiles, does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, (count, work) in ways.items():
            value = rate(count, work)
            if turn:
                found[name].append(value)
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


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


def enlarged(source: Path, folder: Path, count: int) -> int:
    """Write the first pictures of a folder as JPEG files of `LARGE` px into another one; return how many."""
    folder.mkdir(parents=True)
    files = sorted(source.iterdir())[:count]
    for file in files:
        with Image.open(file) as image:
            large = image.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
        large.save(folder / f"{file.stem}.jpg", quality=90)
    return len(files)


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the median rate of each way in images per second, of the pictures as they are and of large ones."""
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
    network, batch = whole_network(pictures), pictures.batch
    side, channels = pictures.geometry.side, pictures.geometry.channels

    def from_rows(count: int) -> None:
        rows = np.arange(count) % len(predictor.dataset.pixels)
        pixels = predictor.dataset.pixels[rows]
        waiting = [pictures.forward(pixels[i : i + batch]) for i in range(0, count, batch)]
        for arrays in waiting:
            np.asarray(arrays[0])

    def decoder(folder: Path) -> None:
        with ExitStack() as stack:
            found = find_pictures([str(folder)], "", stack).found
            for _ in decoded_batches(found, pictures.geometry, batch):
                pass

    def ours(folder: Path) -> None:
        config = PredictConfig(
            models=(options.model,), images=(str(folder),), out=folder.with_suffix(".csv"), **places
        )
        predict_pictures(config, predictor)

    def plain_keras(folder: Path) -> None:
        dataset = keras.utils.image_dataset_from_directory(
            folder.parent, labels=None, image_size=(side, side), batch_size=batch, shuffle=False,
            interpolation="bicubic", color_mode="rgb" if channels == 3 else "grayscale", verbose=False,
        )  # fmt: skip
        network.predict(dataset.map(lambda x: keras.ops.cast(x, "uint8")), verbose=0)

    def rates_of(folder: Path, count: int) -> dict[str, float]:
        whole = max(1, count // batch) * batch
        ways: Ways = {
            "rows": (whole, lambda: from_rows(whole)),
            "decoder": (count, lambda: decoder(folder)),
            "ours": (count, lambda: ours(folder)),
            "keras": (count, lambda: plain_keras(folder)),
        }
        return medians(ways, options.rounds)

    with tempfile.TemporaryDirectory() as work:
        small, large = Path(work) / "small" / "all", Path(work) / "large" / "all"
        found = {"small": rates_of(small, unpacked(options.pictures, small, options.count))}
        if options.large:
            found["large"] = rates_of(large, enlarged(small, large, options.large))
    return found


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
    parser.add_argument("--large", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache/store"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    for name in ("pictures", "cache_dir", "runs_dir"):
        setattr(options, name, getattr(options, name).resolve())
    found = measure(options)
    print(machine())
    for kind, rates in found.items():
        limit = min(rates["rows"], rates["decoder"])
        print(
            f"{kind}: "
            + ", ".join(f"{name} {value}" for name, value in rates.items())
            + " images/s"
        )
        print(f"  ours / the slower of rows and decoder: {rates['ours'] / limit:.2f}")
        print(f"  ours / keras: {rates['ours'] / rates['keras']:.2f}", flush=True)
    memory = {"few": peak_memory(options, options.pictures, FEW)}
    memory["all"] = peak_memory(options, options.pictures, 0)
    print(f"memory: {memory['few']} MB for {FEW} pictures, {memory['all']} MB for all")
    print(json.dumps({**found, "memory": memory}))


if __name__ == "__main__":
    main()
