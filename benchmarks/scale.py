"""What a row costs at 10⁴, 10⁵ and 10⁶ rows, and how much memory each stage takes.

    python benchmarks/scale.py FOLDER [--rows 10000 100000 1000000] [--classes 100] [--memory 2GB]

Each stage runs in a process of its own, on one core; what FOLDER has (`scale.json`, stores) is not done again. What is
prepared is JPEG noise of 16 px in a zip; all other stages read a store of noise of 8 px and 1280 float16 numbers a row,
by our own writers. The backbone of the extraction has 700 weights. Seconds are the processor's, of the processes that a stage starts
as well: a busy machine changes them little. Memory is the peak of what they have of their own together, mapped file
pages apart. The last line is JSON.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common import ROOT, machine

NAME, FEATURES, JPEG_SIDE, SIDE, QUERIES = "big", 1280, 16, 8, 256
LIMIT_MB, FLAT = 2_000, 1.15
TICKS = os.sysconf("SC_CLK_TCK")


def family() -> list[Path]:
    """Return what the system says of this process and of those that it has started."""
    found = [Path(f"/proc/{os.getpid()}")]
    for process in found:
        with suppress(OSError):  # it has ended
            children = (process / "task" / process.name / "children").read_text().split()
            found += [Path(f"/proc/{child}") for child in children]
    return found


def own_mb(process: Path) -> float:
    """Return the memory of a process but for mapped files."""
    lines = (process / "status").read_text().splitlines()
    return sum(float(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon"))


def cpu_seconds(process: Path) -> float:
    """Return the processor time of a process, and of the children that it has waited for."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


class Meter:
    """Seconds of the processor, seconds of the clock and own memory of what is done, by all processes, while it counts."""

    def __init__(self) -> None:
        self.cpu = self.wall = self.peak = 0.0

    @contextmanager
    def counting(self) -> Iterator[None]:
        done, cpu, wall = threading.Event(), self._sum(cpu_seconds), time.monotonic()
        watch = threading.Thread(target=self._watch, args=(done,), daemon=True)
        watch.start()
        yield
        done.set()
        watch.join()
        self.cpu, self.wall = self._sum(cpu_seconds) - cpu, time.monotonic() - wall

    def _watch(self, done: threading.Event) -> None:
        while not done.is_set():
            self.peak = max(self.peak, self._sum(own_mb))
            done.wait(0.02)

    @staticmethod
    def _sum(what: Callable[[Path], float]) -> float:
        total = 0.0
        for process in family():
            with suppress(OSError):  # it has ended
                total += what(process)
        return total


def images(place: Path, rows: int, classes: int) -> None:
    """Write a zip of JPEG noise, nine in ten of them for training."""
    import numpy as np
    from PIL import Image

    random, part = np.random.default_rng(0), place.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for row in range(rows):
            buffer = io.BytesIO()
            pixels = random.integers(0, 256, (JPEG_SIDE, JPEG_SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
            split = "val" if row % 10 == 9 else "train"
            archive.writestr(f"{split}/c{row // 10 % classes:04d}/{row:08d}.jpg", buffer.getvalue())
    part.replace(place)


def make_store(store: Path, rows: int, classes: int) -> None:
    """Write a data set of noise, and vectors that show its classes, as `data prepare` and `extract` would."""
    import numpy as np

    from onepass.cache.content import CONTENT_BYTES, content_of
    from onepass.cache.features import FeatureKey
    from onepass.cache.rowfile import write_rows
    from onepass.cache.rows import inputs_of
    from onepass.data.dataset import dataset_path
    from onepass.data.manifest import Manifest, manifest_path
    from onepass.data.record import DatasetRecord

    random = np.random.default_rng(0)
    split = np.repeat([0, 1, 2], [rows - 2 * (rows // 20), rows // 20, rows // 20]).astype(np.int8)
    drawn = random.integers(0, classes, rows)
    drawn = drawn[np.lexsort([drawn, split])]
    pixels = random.integers(0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8)
    content = content_of(pixels)
    geometry = {"side": SIDE, "channels": 3, "fit": "stretch", "native": 0}
    columns = {"pixels": pixels, "content": content, "source": np.zeros((rows, CONTENT_BYTES), np.uint8)}  # fmt: skip
    inputs = inputs_of({"kind": "pixels", "geometry": geometry, "rules": 1}, content)
    write_rows(dataset_path(store, NAME), columns, inputs=inputs)
    ids = [f"n{k:08d}" for k in range(classes)]
    Manifest(
        path=manifest_path(store, NAME), content=content, labels=np.where(split == 2, -1, drawn).astype(np.int32),
        split=split, names=[f"{ids[k]}/image_{row:08d}.jpg" for row, k in enumerate(drawn.tolist())], class_ids=ids,
        class_names=ids, record=DatasetRecord(),
    ).write()  # fmt: skip
    spread = np.geomspace(2, 0.2, FEATURES, dtype=np.float32)
    centres = random.standard_normal((classes, FEATURES), np.float32) * spread / 3
    scratch = store / "vectors.npy"
    X = np.lib.format.open_memmap(scratch, "w+", np.float16, (rows, FEATURES))
    for start in range(0, rows, 8192):
        own = drawn[start : start + 8192]
        X[start : start + 8192] = (
            random.standard_normal((len(own), FEATURES), np.float32) * spread + centres[own]
        )
    key = FeatureKey("toy", "sha256:0", SIDE)
    path, inputs = key.file(store, NAME), inputs_of(key.recipe(), content)
    write_rows(path, {"features": X, "content": content}, inputs=inputs)
    scratch.unlink()


class Stages:
    """What is measured; each method returns how many rows it worked on."""

    def __init__(self, folder: Path, rows: int, classes: int, memory: int, meter: Meter) -> None:
        self.folder, self.count, self.classes, self.meter = folder, rows, classes, meter
        self.memory = memory
        self.store = folder / f"store-{rows}"

    def make(self) -> int:
        """What the other stages read; it is not one of those that are compared."""
        if not self._path().exists():
            make_store(self.store, self.count, self.classes)
        return self.count

    def prepare(self) -> int:
        """JPEGs in a zip become rows and a manifest."""
        from onepass.data.config import PrepareConfig
        from onepass.data.prepare import prepare_dataset

        place = self.folder / f"images-{self.count}.zip"
        if not place.exists():
            images(place, self.count, self.classes)
        config = PrepareConfig(
            kind="folder",
            source=(str(place),),
            name="jpeg",
            cache_dir=self.store,
            memory=self.memory,
        )
        with self.meter.counting():
            prepare_dataset(config)
        return self.count

    def extract(self) -> int:
        """A trivial backbone: what is left is what Onepass itself costs."""
        sys.path.insert(0, str(ROOT / "tests"))
        import tiny_backbone

        from onepass.extract.config import ExtractConfig
        from onepass.extract.pipeline import extract_features

        config = ExtractConfig(
            dataset=NAME, backbone=("tiny",), size=(JPEG_SIDE,), weights="none", engine="keras", cache_dir=self.store,
        )  # fmt: skip
        with tiny_backbone.installed(), self.meter.counting():
            extract_features(config)
        return self.count

    def consolidate(self) -> int:
        """Shards become one file."""
        X = self._vectors()
        path = self._path().with_name("again.h5")
        with self._writer(path) as writer:
            for positions in writer.missing:
                part = slice(int(positions[0]), int(positions[-1]) + 1)
                writer.write(positions, {"features": X[part], "content": writer.wanted[part]})
            with self.meter.counting():
                writer.finish()
        path.unlink()
        return self.count

    def carry(self) -> int:
        """The same rows in another order are copied from that file."""
        import numpy as np

        from onepass.cache.rowfile import RowFile

        order = np.random.default_rng(2).permutation(self.count)
        path = self._path().with_name("carried.h5")
        with self.meter.counting(), self._writer(path, order, [RowFile.open(self._path())]) as writer:  # fmt: skip
            writer.finish()
        path.unlink()
        return self.count

    def verify(self) -> int:
        """Every byte is compared with its digest."""
        from onepass.cache.rowfile import RowFile

        with self.meter.counting():
            RowFile.open(self._path()).verify()
        return self.count

    def ridge(self) -> int:
        """One fit on scattered training rows."""
        from onepass.classify.heads.linear.ridge import Ridge

        X, labels = self._training()
        with self.meter.counting():
            Ridge().fit(X, labels)
        return len(X)

    def logistic(self) -> int:
        """The log-loss and its gradient, once."""
        import numpy as np

        from onepass.classify.heads.linear.softmax_objective import SoftmaxObjective

        X, labels = self._training()
        objective = SoftmaxObjective(self._scaler(X).rows(X), labels, self.classes)
        weights = np.full((FEATURES + 1, self.classes), 1e-3, np.float32)
        with self.meter.counting():
            objective.evaluate(weights)
        return len(X)

    def dense(self) -> int:
        """One epoch."""
        from onepass.classify.heads.neural.batches import batches, steps_of
        from onepass.classify.heads.neural.dense import Dense
        from onepass.classify.heads.neural.network import Networks

        X, labels = self._training()
        head = Dense()
        shared = head.shared_settings()
        networks = Networks([head.head_settings()], shared, FEATURES, self.classes, labels)
        source = batches(self._scaler(X).rows(X), labels, shared)
        with self.meter.counting():
            networks.train(source, steps_of(len(X), shared.batch_size))
        return len(X)

    def knn(self) -> int:
        """Some queries against all training rows; a row is a stored row."""
        from onepass.classify.heads.neighbours.knn import Neighbours

        X, labels = self._training()
        head = Neighbours().fit(X, labels)
        with self.meter.counting():
            head.logits(X[:QUERIES])
        return len(X)

    def predict(self) -> int:
        """The probabilities of all rows, block by block, as they are written."""
        from onepass.classify.heads.lazy_rows import blocks
        from onepass.classify.heads.linear.ridge import Ridge

        X, labels = self._training()
        head = Ridge().fit(X[:20_000], labels[:20_000])
        with self.meter.counting():
            for block in blocks(X):
                head.predict_proba(X[block])
        return len(X)

    def _dataset(self) -> Any:
        from onepass.data.dataset import open_dataset

        return open_dataset(self.store, NAME)

    def _path(self) -> Path:
        from onepass.cache.features import FeatureKey

        return FeatureKey("toy", "sha256:0", SIDE).file(self.store, NAME)

    def _writer(self, path: Path, order: Any = slice(None), donors: Any = ()) -> Any:
        from onepass.cache.features import FeatureKey
        from onepass.cache.rows import Column, RowWriter, ShardKind

        columns = {"features": Column((FEATURES,), "float16"), "content": Column((16,), "uint8")}
        kind = ShardKind(columns, "content", FeatureKey("toy", "sha256:0", SIDE).recipe())
        wanted = self._dataset().content[order]
        return RowWriter(path, kind, wanted, shard_rows=4096, donors=donors)

    def _training(self) -> tuple[Any, Any]:
        """Return nine in ten of the training rows, scattered as those of a selection split are, and their classes."""
        import numpy as np

        from onepass.classify.heads.lazy_rows import take

        dataset = self._dataset()
        train = dataset.rows("train")
        rows = train[np.random.default_rng(3).random(len(train)) < 0.9]
        return take(self._vectors(), rows), dataset.labels[rows].astype(np.int64) % self.classes

    def _vectors(self) -> Any:
        from onepass.cache.rowfile import RowFile

        return RowFile.open(self._path()).columns["features"]

    def _scaler(self, X: Any) -> Any:
        from onepass.classify.heads.scaler import Scaler

        return Scaler.fit(X)


STAGES = ("verify", "ridge", "logistic", "dense", "knn", "predict", "consolidate", "carry", "extract", "prepare")  # fmt: skip


def measure(folder: Path, stage: str, rows: int, classes: int, memory: int) -> dict[str, float]:
    """Run one stage in this process."""
    from onepass.cache.memory import memory_budget

    meter = Meter()
    with memory_budget(memory):
        done = getattr(Stages(folder, rows, classes, memory, meter), stage)()
    each = 1e6 / done
    return {"cpu_us": meter.cpu * each, "wall_us": meter.wall * each, "own_mb": meter.peak}


def in_process(options: argparse.Namespace, stage: str, rows: int) -> dict[str, float]:
    """Run one stage in a process of its own, on one core."""
    words = [str(options.folder), "--classes", str(options.classes), "--memory", options.memory]
    one = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, *words, "--stage", stage, "--rows", str(rows)],
        env={**os.environ, **one}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--memory", default="2GB", help="budget of the work")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--stage", choices=("make", *STAGES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        from onepass.cache.commandline.flags import parse_bytes

        memory, (rows,) = parse_bytes(options.memory), options.rows
        found = measure(options.folder, options.stage, rows, options.classes, memory)
        print(json.dumps({name: round(value, 3) for name, value in found.items()}))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    record = options.folder / "scale.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    print(machine(), flush=True)
    for rows in options.rows:
        in_process(options, "make", rows)
        for stage in options.only:
            name = f"{stage} {rows}"
            if name not in known:
                known[name] = in_process(options, stage, rows)
                record.write_text(json.dumps(known, indent=1))
            one = known[name]
            print(f"{stage:>12} {rows:>9,} rows: {one['cpu_us']:8.2f} µs a row, {one['own_mb']:6.0f} MB", flush=True)  # fmt: skip
    few, many = options.rows[-2:] if len(options.rows) > 1 else options.rows * 2
    ratios = {s: round(known[f"{s} {many}"]["cpu_us"] / known[f"{s} {few}"]["cpu_us"], 3) for s in options.only}  # fmt: skip
    most = max(known[f"{s} {many}"]["own_mb"] for s in options.only)
    print(json.dumps({"ratios": ratios, "flat": max(ratios.values()) <= FLAT, "most_mb": round(most), "small": most <= LIMIT_MB}))  # fmt: skip


if __name__ == "__main__":
    main()
