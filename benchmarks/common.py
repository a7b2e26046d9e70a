"""What the benchmarks share: real JPEG files, a data set made of them, a line about the machine."""

import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# of Tiny ImageNet's lite0@128, standardised: axis of the covariance within the classes, variance along it
# within them, and of their centres
MEASURED = (
    (0, 19.8, 4.6), (1, 14.6, 7.6), (2, 12.2, 5.9), (4, 10.8, 3.9), (9, 9.0, 5.7), (19, 6.35, 2.2),
    (49, 3.82, 1.67), (99, 2.37, 0.46), (199, 1.28, 0.149), (399, 0.55, 0.024), (799, 0.302, 0.007),
    (1199, 0.171, 0.003), (1279, 0.087, 0.003),
)  # fmt: skip
# groups of classes, and their share of a centre: the centres' covariance then falls as the real one does
LEVELS = ((4, 0.2), (16, 0.3), (64, 0.25), (200, 0.25))


def machine() -> str:
    """Return processor, cores, memory and GPU in one line."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    smi = shutil.which("nvidia-smi")
    query = [smi, "--query-gpu=name", "--format=csv,noheader"]
    gpu = subprocess.run(query, check=False, capture_output=True, text=True).stdout if smi else ""  # type: ignore[list-item]
    parts = [cpu or platform.processor(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB"]
    return ", ".join([*parts, *gpu.splitlines(), f"Python {platform.python_version()}"])


class Cost(NamedTuple):
    """Milliseconds an image: by the clock, and of the processor, which other work on the machine bends less."""

    wall: float
    processor: float


def cost(way: Callable[[], int]) -> Cost:
    """Return what a way takes that returns how many images it had."""
    wall, processor = time.monotonic(), time.process_time()
    count = way()
    wall, processor = time.monotonic() - wall, time.process_time() - processor
    return Cost(1e3 * wall / count, 1e3 * processor / count)


def rates_in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the images per second of each way, round by round; the first, that compiles, does not count."""
    for way in ways.values():
        way()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
        print(number + 1, *(f"{n} {r[-1]:.1f} images/s" for n, r in rates.items()), flush=True)
    return rates


def tiny_imagenet() -> Path | None:
    """Return the real archive (ONEPASS_TINY_IMAGENET names it), or None."""
    default = ROOT.parent / "shared" / "datasets" / "tiny-imagenet-200.zip"
    path = Path(os.environ.get("ONEPASS_TINY_IMAGENET", default))
    return path if path.exists() else None


def write_jpegs(folder: Path, count: int) -> str:
    """Write `count` JPEG files as train/<class>/<name> and return where they come from."""
    archive = tiny_imagenet()
    if archive is None:
        _write_noise(folder, count)
        return f"{count} images of noise, 64 px (Tiny ImageNet is not here)"
    rest = archive.with_name("tiny-imagenet-200-rest.zip")  # only where the first has too few
    left = count
    for place in (archive, rest):
        if left and place.exists():
            left -= _unpack_jpegs(place, folder, left)
    return f"{count - left} training images of Tiny ImageNet, 64 px"


def _unpack_jpegs(archive: Path, folder: Path, count: int) -> int:
    """Write training images, evenly spread over the archive; return how many."""
    with zipfile.ZipFile(archive) as file:
        names = [n for n in file.namelist() if "/train/" in n and n.endswith(".JPEG")]
        count = min(count, len(names))
        for name in [names[i] for i in np.linspace(0, len(names) - 1, count).astype(int)]:
            path = folder / "train" / name.split("/")[2] / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read(name))
    return count


def _write_noise(folder: Path, count: int) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / "train" / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)


def prepare(folder: Path, store: Path, name: str = "bench") -> None:
    """Make a data set of such a folder."""
    from onepass.data.config import PrepareConfig
    from onepass.data.prepare import prepare_dataset

    prepare_dataset(PrepareConfig(kind="folder", source=(str(folder),), name=name, cache_dir=store))


def feature_rows(features: str, rows: int) -> tuple:
    """Return words, X, y, X_val, y_val: stored features of Tiny ImageNet, else synthetic ones.

    The synthetic rows are 1280 correlated numbers in 200 overlapping classes, as those features are.
    """
    from onepass.cache.commandline.flags import StoreConfig
    from onepass.cache.errors import OnepassError
    from onepass.data.features import labelled_features

    try:
        found = labelled_features(StoreConfig().store, "tiny-imagenet", [features])
    except OnepassError:
        return _synthetic(rows)
    train, val = found.rows("train"), found.rows("val")
    words = f"Tiny ImageNet, {features}: {len(train):,} rows to fit on, {len(val):,} to evaluate on"
    return words, found.X[train], found.labels[train], found.X[val], found.labels[val]


def _synthetic(rows: int, features: int = 1280, classes: int = 200) -> tuple:
    """Gaussian rows in the shape that MEASURED and LEVELS give. A row shows its class to a varying degree (1 ± 0.53,
    as measured) and half as much of another one, so that classes overlap."""
    random = np.random.default_rng(0)
    count, logs = rows + rows // 9, np.log1p(np.arange(features))
    axes, inside, between = np.array(MEASURED).T
    inside, between = (
        np.exp(np.interp(logs, np.log1p(axes), np.log(variances)) / 2).astype(np.float32)
        for variances in (inside, between)
    )
    centres = np.zeros((classes, features), np.float32)
    for groups, share in LEVELS:
        members = np.arange(classes) * groups // classes
        centres += np.sqrt(share) * random.normal(size=(groups, features))[members]
    centres = (centres - centres.mean(axis=0)) * between
    y, other = random.integers(0, classes, (2, count))
    shown = random.gamma(3.5, 1 / 3.5, size=(2, count, 1)).astype(np.float32)
    X = inside * random.normal(size=(count, features)).astype(np.float32)
    X += shown[0] * centres[y]
    X += shown[1] / 2 * centres[other]
    X = (X @ np.linalg.qr(random.normal(size=(features, features)))[0].astype(np.float32)).astype(
        np.float16
    )
    words = (
        f"synthetic: {rows:,} × {features} in {classes} classes, {count - rows:,} to evaluate on"
    )
    return words, X[:rows], y[:rows], X[rows:], y[rows:]
