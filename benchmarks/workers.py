"""What two workers give: two processes of Dask, each on a core of its own, against one command on one core.

    python benchmarks/workers.py [--images 12000] [--width 500] [--epochs 400] [--rounds 3] [--two-only]

Images of 500 x 375 px, or as wide as is said, are decoded to rows of 224 px, their vectors computed, and heads swept on
two kinds of vectors: by a command that is pinned to a core, and by two workers that are pinned to a core each and were
asked for little before, in turn. The commands that hand out the work share the two cores. Printed: the median of how
much longer one takes, by the wall clock and by the processor time, of the busiest worker where there are two, which says
the same where other work shares the cores. And, unless with `--two-only`, the most that the machine gives: what two such
commands, a core each, that know nothing of each other do in the time of one; cores may share memory and clock.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from common import machine
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
DASK = str(Path(sys.executable).with_name("dask"))
EXTRACT = ("extract", "--dataset", "x", "--backbone", "efficientnet_lite0", "--size", "224", "--pooling", "avg", "max", "--engine", "keras", "--batch", "64")  # fmt: skip
PREPARE = ("--name", "x", "--max-side", "224")
STAGES = ("decoding", "extraction", "sweep")
SWEEP = ("classify", "sweep", "--dataset", "x")
TICKS = os.sysconf("SC_CLK_TCK")


def write_images(folder: Path, count: int, width: int) -> None:
    """Write JPEG files of two classes."""
    for number in range(2):
        (folder / f"class{number}").mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(write_image, folder, width), range(count), chunksize=64))


def write_image(folder: Path, width: int, number: int) -> None:
    random, size = np.random.default_rng(number), (width, 3 * width // 4)
    coarse = Image.fromarray(random.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8))
    coarse.resize(size).save(folder / f"class{number % 2}" / f"{number:06}.jpg", quality=90)


@contextmanager
def dask(*words: str, core: int | None = None) -> Iterator[subprocess.Popen]:
    """Run a process of Dask, pinned to a core, for as long as the block runs."""
    pin = [] if core is None else ["taskset", "-c", str(core)]
    process = subprocess.Popen(
        [*pin, DASK, *words], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def processor_seconds(process: subprocess.Popen) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def alone(
    folder: Path, epochs: int, cores: tuple[int, ...] = (0,)
) -> dict[str, tuple[float, float]]:
    """Return wall and processor seconds of each stage on one core; of several, each does all of it in a store of its own."""

    def run(*words: str) -> tuple[float, float]:
        before, begin = os.times(), time.monotonic()
        started = []
        for core in cores:
            places = ("--cache-dir", str(folder / f"store-{core}"))
            command = ["taskset", "-c", str(core), sys.executable, "-m", "onepass", *words, *places]
            env = {**ENV, "ONEPASS_RUNS": str(folder / f"runs-{core}")}
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True))  # fmt: skip
        for process in started:
            _, err = process.communicate()
            assert process.returncode == 0, err
        after = os.times()
        used = sum(after[k] - before[k] for k in (2, 3))  # of children: the user's, the system's
        return time.monotonic() - begin, used / len(cores)

    for core in cores:
        shutil.rmtree(folder / f"store-{core}", ignore_errors=True)
        shutil.rmtree(folder / f"runs-{core}", ignore_errors=True)
    prepare = ("data", "prepare", "many", *PREPARE)
    sweep = (*SWEEP, "--epochs", str(epochs))
    return dict(zip(STAGES, [run(*prepare), run(*EXTRACT), run(*sweep)], strict=True))


def timed(folder: Path, epochs: int, workers: int, rows: int) -> dict[str, tuple[float, float]]:
    """Return wall and processor seconds (of the busiest worker) of each stage by workers with a core each."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    host, port = address.split(":")
    where = ("--executor", "dask", "--address", address)
    with ExitStack() as stack:
        stack.enter_context(dask("scheduler", "--host", host, "--port", port, "--no-dashboard"))
        started = [
            stack.enter_context(
                dask(
                    "worker", address, "--no-nanny", "--no-dashboard", "--nthreads", "1", core=core
                )
            )
            for core in range(workers)
        ]
        while True:  # the scheduler takes a moment
            with socket.socket() as one:
                if not one.connect_ex((host, int(port))):
                    break
            time.sleep(0.2)

        def run(store: Path, *words: str) -> tuple[float, float]:
            before, begin = [processor_seconds(w) for w in started], time.monotonic()
            places = ("--cache-dir", str(store))
            command = [sys.executable, "-m", "onepass", *words, *where, *places]
            done = subprocess.run(
                command, check=False, cwd=folder, env=ENV, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            used = [processor_seconds(w) - b for w, b in zip(started, before, strict=True)]
            return time.monotonic() - begin, max(used)

        took = {}
        for pictures in ("few", "many"):  # the first time each worker imports, opens and compiles
            store = folder / "store"
            shutil.rmtree(store, ignore_errors=True)
            took["decoding"] = run(store, "data", "prepare", pictures, *PREPARE)
            took["extraction"] = run(store, *EXTRACT, "--shard-rows", str(rows // 24))
            shutil.rmtree(folder / "runs", ignore_errors=True)
            took["sweep"] = run(store, *SWEEP, "--epochs", str(epochs))
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--width", type=int, default=500, help="of the images (px)")
    parser.add_argument("--epochs", type=int, default=400, help="of the sweep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--two-only", action="store_true", help="do not measure the most that the machine gives"
    )
    flags = parser.parse_args()
    print(
        f"{flags.images:,} images {flags.width} px wide, {flags.epochs:,} epochs, {flags.rounds} rounds; {machine()}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "few", 128, flags.width)
        write_images(folder / "many", flags.images, flags.width)
        ratios: dict[str, list[list[float]]] = {stage: [] for stage in STAGES}
        for number in range(flags.rounds):
            runs = {
                "one": lambda: alone(folder, flags.epochs),
                "workers": lambda: timed(folder, flags.epochs, 2, flags.images),
            }
            if not flags.two_only:
                runs["most"] = lambda: alone(folder, flags.epochs, (0, 1))
            by = {name: runs[name]() for name in (list(runs) if number % 2 else reversed(runs))}
            for stage, found in ratios.items():
                one, workers = by["one"][stage], by["workers"][stage]
                found.append([one[0] / workers[0], one[1] / workers[1]])
                if "most" in by:
                    found[-1].append(2 * one[0] / by["most"][stage][0])
                print(
                    f"  {stage}: {one[0]:.1f} and {workers[0]:.1f} s: {said(found[-1])}", flush=True
                )
        for stage, found in ratios.items():
            medians = [statistics.median(values) for values in zip(*found, strict=True)]
            print(f"{stage}: one core takes as many times as long as two workers: {said(medians)}")


def said(ratios: Sequence[float]) -> str:
    """Return the figures of a stage in words."""
    words = ("by the clock", "by processor time", "at most")
    return ", ".join(f"{ratio:.2f} {word}" for ratio, word in zip(ratios, words, strict=False))


if __name__ == "__main__":
    main()
