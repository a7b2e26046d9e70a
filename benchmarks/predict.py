"""How fast new pictures are classified, where the network, the decoder or neither is the limit, beside Keras.

    python benchmarks/predict.py [--regime NAME …] [--rounds 3] [--count 1024] [--large 256] [--memory ZIP] [--work FOLDER]

Data set, features and a ridge probe for each network are made first, of 3,000 images of Tiny ImageNet (64 px), in
`--work` (default: a temporary folder). Pictures are `--count` of its JPEG files, or `--large` photographs of 12
megapixels that are made of them. In each regime, `--rounds` times in turn: (a) rows: the model's network on decoded
rows; (b) decoder: the pictures decoded, nothing more; (c) ours: `onepass predict MODEL PICTURES --out`, compiled before,
with decoding, head, novelty and the answer file; (d) Keras: `image_dataset_from_directory` and `predict` of the same
network, in batches of as many.

What ours is held against is the rows where the network is the limit, the decoder where it is, and
1 / (1 / rows + 1 / decoder) where both want the same cores. Each ratio is the median of those of the rounds, by wall time
and by the processor's: the first shows cores that wait, the second is the same on a busy machine.

`--memory ZIP`: the peak memory of processes of their own, for 500 pictures of the zip and for all. The last line is JSON,
in images per second, milliseconds of the processor an image, and MB.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import ROOT, Cost, cost, machine, prepare, write_jpegs
from PIL import Image

ROWS = 3000  # of the data set; novelty then keeps as many vectors as it ever does
FEW = 500
LARGE = 4000, 3000  # px


class Regime(NamedTuple):
    """Pictures and a network, and which of both is the limit."""

    network: tuple[str, int]
    large: bool
    limit: str  # "rows", "decoder" or "both"


REGIMES = {
    "device-lite2@260": Regime(("efficientnet_lite2", 260), False, "rows"),
    "device-lite0@224": Regime(("efficientnet_lite0", 224), False, "rows"),
    "decoder-lite0@64": Regime(("efficientnet_lite0", 64), True, "decoder"),
    "balanced-lite0@128": Regime(("efficientnet_lite0", 128), False, "both"),
    "balanced-12mp-lite0@128": Regime(("efficientnet_lite0", 128), True, "both"),
}
Way = Callable[[], int]  # does it, and returns to how many pictures


def enlarged(files: list[Path], folder: Path) -> list[Path]:
    """Write pictures as JPEG files of `LARGE` px into a folder, those that are missing; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [folder / f"{file.stem}.jpg" for file in files]
    for file, place in zip(files, places, strict=True):
        if not place.exists():
            with Image.open(file) as image:
                large = image.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
            large.save(place, quality=90)
    return places


def make_model(work: Path, network: tuple[str, int]) -> dict[str, Path]:
    """Extract a network's features and fit a probe on them; return where both are."""
    import onepass

    backbone, size = network
    places = {"cache_dir": work / "store", "runs_dir": work / f"runs-{backbone}@{size}"}
    found = onepass.extract_features("bench", backbone, size=(size,), cache_dir=work / "store")
    features = tuple(file.key for file in found.files)
    onepass.run_probes("bench", features=features, head=("ridge",), **places)
    return places


def ways_of(places: dict[str, Path], files: list[Path], work: Path) -> dict[str, Way]:
    """Return the ways that are compared, of a model and pictures."""
    import keras

    from onepass.predict.config import PredictConfig
    from onepass.predict.models import load_predictor
    from onepass.predict.network import whole_network
    from onepass.predict.pictures.batches import decoded_batches
    from onepass.predict.pictures.pipeline import predict_pictures
    from onepass.predict.pictures.sources import find_pictures

    words = tuple(map(str, files))
    config = PredictConfig(models=("bench",), images=words, out=work / "answers.csv", **places)
    predictor = load_predictor(config)
    pictures = predictor.on_pictures()
    network, batch = whole_network(pictures), pictures.batch
    side, whole = pictures.geometry.side, -(-len(files) // batch) * batch

    def rows() -> int:
        pixels = predictor.dataset.pixels[np.arange(whole) % len(predictor.dataset.pixels)]
        waiting = [pictures.forward(pixels[i : i + batch]) for i in range(0, whole, batch)]
        for arrays in waiting:
            np.asarray(arrays[0])
        return whole

    def decoder() -> int:
        with ExitStack() as stack:
            found = find_pictures(words, "", stack).found
            for _ in decoded_batches(found, pictures.geometry, batch):
                pass
        return len(files)

    def ours() -> int:
        return predict_pictures(config, predictor).pictures

    def plain_keras() -> int:
        dataset = keras.utils.image_dataset_from_directory(
            files[0].parent, labels=None, image_size=(side, side), batch_size=batch, shuffle=False,
            interpolation="bicubic", verbose=False,
        )  # fmt: skip
        network.predict(dataset.map(lambda x: keras.ops.cast(x, "uint8")), verbose=0)
        return len(files)

    return {"rows": rows, "decoder": decoder, "ours": ours, "keras": plain_keras}


def compared(ways: dict[str, Way], limit: str, rounds: int) -> dict[str, float]:
    """Return median rates and costs, and the medians of the ratios of the rounds."""
    for way in ways.values():
        way()  # compiles
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(cost(way))
    array = {name: np.array(costs) for name, costs in found.items()}  # (rounds, 2)
    array["both"] = array["rows"] + array["decoder"]

    def median(values: np.ndarray) -> float:
        return round(float(statistics.median(values)), 2)

    result = {f"{name}_rate": median(1e3 / costs[:, 0]) for name, costs in array.items()}
    result |= {f"{name}_processor_ms": median(costs[:, 1]) for name, costs in array.items()}
    for number, time_ in enumerate(Cost._fields):
        for other in dict.fromkeys((limit, "both", "keras")):
            ratio = array[other][:, number] / array["ours"][:, number]
            result[f"ours_of_{other}_by_{time_}"] = median(ratio)
    return result


def peak_memory(places: dict[str, Path], archive: Path, count: int) -> float:
    """Return the greatest memory (MB) of `onepass predict` on pictures of a zip, in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        if count:
            with zipfile.ZipFile(archive) as file:
                names = [n for n in file.namelist() if n.lower().endswith((".jpg", ".jpeg"))]
                file.extractall(Path(work) / "some", names[:count])
            archive = Path(work) / "some"
        words = [sys.executable, "-m", "onepass", "predict", "bench", str(archive), f"--out={work}/o.csv"]  # fmt: skip
        words += [f"--{name.replace('_', '-')}={path}" for name, path in places.items()]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert after >= before  # the greatest of all children so far: few pictures are measured first
    return round(after / 1000, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regime", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--large", type=int, default=256)
    parser.add_argument("--memory", type=Path, metavar="ZIP")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    print(machine())
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        if not (work / "jpeg").exists():
            print(write_jpegs(work / "jpeg", ROWS), flush=True)
        prepare(work / "jpeg", work / "store")
        small = sorted((work / "jpeg").rglob("*.*"))[: options.count]
        (work / "small").mkdir(exist_ok=True)
        small = [(work / "small" / f"{n:05}{file.suffix}", file) for n, file in enumerate(small)]
        for place, file in small:
            place.write_bytes(file.read_bytes())
        small = [place for place, _ in small]
        for name in options.regime:
            regime = REGIMES[name]
            places = make_model(work, regime.network)
            files = enlarged(small[: options.large], work / "large") if regime.large else small
            found = compared(ways_of(places, files, work), regime.limit, options.rounds)
            results[name] = found
            rates = ", ".join(
                f"{way} {found[f'{way}_rate']:.0f}"
                for way in ("rows", "decoder", "both", "ours", "keras")
            )
            wall, processor = (found[f"ours_of_{regime.limit}_by_{t}"] for t in Cost._fields)
            print(f"{name}: {rates} images/s")
            print(
                f"  ours of {regime.limit}: {wall:.2f} by wall, {processor:.2f} by processor",
                flush=True,
            )
        if options.memory:
            few = peak_memory(places, options.memory, FEW)
            results["memory"] = {"few": few, "all": peak_memory(places, options.memory, 0)}
            print(f"memory: {results['memory']}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
