"""What the campaigns share: a small data set, every command that writes, and what it leaves, to be compared.

`kills.py` kills each command at random moments, `flips.py` turns single bits of each file, `soak.py` does all of
it at once for as long as it is told. The commands are real processes on a backbone of 700 weights.
"""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT

sys.path.insert(0, str(ROOT / "tests"))

# What differs between any two runs: times, and the digest that a JSON file with a time in it carries of itself.
TIMES = re.compile(r"\.(seconds|created|command|file_digest)$")
KEY = "tiny@16!float32"
HANG = 10.0  # seconds that a command may take over its usual time
LIMIT = 300.0  # seconds after which a command is killed: it hangs
SIDE = 16  # px


def write_images(folder: Path, counts: dict[str, int], *, seed: int = 0) -> None:
    """Write PNG files of noise around a colour of their class.

    Args:
        folder: Where.
        counts: How many in each folder below, such as {"train/a": 20}.
        seed: Of the noise.
    """
    from PIL import Image

    random = np.random.default_rng(seed)
    for place, count in counts.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        colour = 60 + 50 * (ord(place[-1]) - ord("a"))
        for number in range(count):
            image = np.clip(random.normal(colour, 60, (SIDE, SIDE, 3)), 0, 255)
            Image.fromarray(image.astype(np.uint8)).save(folder / place / f"{seed}-{number}.png")


def _first(folder: Path) -> None:
    write_images(folder / "images", {f"{split}/{c}": n for c in "abc" for split, n in (("train", 16), ("val", 6))})  # fmt: skip
    write_images(folder / "new", {"a": 6, "b": 6}, seed=1)


def _grow(folder: Path) -> None:
    write_images(folder / "images", {"train/a": 4, "train/b": 4, "val/c": 2}, seed=2)


def _correct(folder: Path) -> None:
    lines = [f"train/a/0-{number}.png,{'bc'[number % 2]}" for number in range(4)]
    (folder / "corrections.csv").write_text("\n".join(["file,label", *lines]) + "\n")


@dataclass(frozen=True, slots=True)
class Stage:
    """A command of a user.

    Attributes:
        name: Short.
        words: Behind `onepass`.
        before: What happens to the user's folder before it.
    """

    name: str
    words: tuple[str, ...]
    before: Callable[[Path], None] | None = None


PREPARE = ("data", "prepare", "folder", "--source", "images", "--name", "x")
EXTRACT = ("extract", "--dataset", "x", "--backbone", "tiny", "--size", "16", "--dtype", "float32", "--batch", "4", "--shard-rows", "4")  # fmt: skip
CLASSIFY = ("classify", "--dataset", "x", "--head", "centroid", "ridge", "logistic")
STAGES = (
    Stage("prepare", PREPARE, _first),
    Stage("extract", EXTRACT),
    Stage("classify", CLASSIFY),
    Stage("ensemble", ("classify", "ensemble", "--dataset", "x")),
    Stage("sweep", ("classify", "sweep", "--dataset", "x", "--epochs", "3", "--seeds", "0")),
    Stage("transfer", ("classify", "transfer", "--dataset", "x")),
    Stage("inspect", ("classify", "inspect", "--dataset", "x")),
    Stage("finetune", ("finetune", "--dataset", "x", "--from", "tiny@16!float32", "--run", "a", "--epochs", "2", "--batch", "12", "--checkpoint-every", "1s")),
    Stage("predict", ("predict", "x#1", "new", "--out", "answers.csv")),
    Stage("predict split", ("predict", "x/a", "--split", "val")),
    Stage("export", ("predict", "export", "x/a")),
    Stage("folds", ("classify", "--dataset", "x", "--head", "ridge", "--folds", "3")),
    Stage("curve", ("classify", "curve", "--dataset", "x", "--head", "ridge", "--seeds", "1")),
    Stage("report", ("report", "--dataset", "x")),
    Stage("grow", PREPARE, _grow),
    Stage("carry over", EXTRACT),
    Stage("relabel", ("data", "relabel", "x", "--labels", "corrections.csv"), _correct),
    Stage("classify again", CLASSIFY),
    Stage("frozen", ("finetune", "--dataset", "x", "--from", "tiny@16!float32", "--run", "b", "--epochs", "2", "--batch", "12", "--unfreeze", "last:1", "--set", "flip=true")),
    Stage("hold back", (*PREPARE[:-1], "y", "--hold-back", "6")),
    Stage("run", ("run", "images", "--name", "y", "--backbone", "tiny", "--goal", "frozen")),
    Stage("point", ("classify", "--dataset", "y", "--head", "ridge", "--select", "folds", "--at", "cost=FP:1,FN:5", "--positive", "a")),
    Stage("held out", ("predict", "y/ridge", "store/y/held-out")),
)  # fmt: skip


def onepass(folder: Path, *words: str, **env: str) -> Any:
    """Start a command in a folder; return its process."""
    import processes

    places = {"ONEPASS_CACHE": "store", "ONEPASS_RUNS": "runs"}
    return processes.start(
        *words, cwd=folder, TINY_BACKBONE="1", PLAIN_FIGURES="1", **places, **env
    )


def finished(folder: Path, *words: str) -> tuple[int, str, str, float]:
    """Run a command to its end; return its exit code, output, errors and seconds."""
    start = time.monotonic()
    return *ended(onepass(folder, *words)), time.monotonic() - start


def ended(process: Any) -> tuple[int, str, str]:
    """Wait for a command, and kill it after `LIMIT`; return its exit code, output and errors."""
    limit = threading.Timer(LIMIT, os.kill, (process.pid, signal.SIGKILL))
    limit.start()
    try:
        out, err = process.communicate()
    finally:
        limit.cancel()
    return process.wait(), out, err


def stages(
    root: Path, wanted: list[str] | None = None
) -> tuple[list[tuple[Stage, Path, Path, float]], "Volatile"]:
    """Run the stages twice, undisturbed.

    Args:
        root: A folder for all of it.
        wanted: Names of those that matter; without any, all.

    Returns:
        Each that is wanted stage with the folder before it, the folder after it and its seconds; and what differs between two
        runs that nobody disturbed, such as times.
    """
    runs = []
    finished(root, "data", "list")  # starts the process that others are forked from
    for name in ("first", "second"):
        folder, states = root / "x", []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number, stage in enumerate(up_to(wanted)):
            if stage.before:
                stage.before(folder)
            before, after = (root / name / f"{number}-{which}" for which in ("before", "after"))
            shutil.copytree(folder, before)
            code, _, err, took = finished(folder, *stage.words)
            if code:
                raise SystemExit(f"{stage.name}: exit code {code}: {err}")
            shutil.copytree(folder, after)
            states.append((stage, before, after, took))
        runs.append(states)
    volatile = Volatile()
    for (_, _, after, _), (_, _, other, _) in zip(*runs, strict=True):
        volatile.learn(contents(after), contents(other))
    return [state for state in runs[0] if not wanted or state[0].name in wanted], volatile


def up_to(wanted: list[str] | None) -> tuple[Stage, ...]:
    """Return the stages to the last that is wanted, in their order; without any, all."""
    last = max(
        (n for n, stage in enumerate(STAGES) if stage.name in (wanted or ())), default=len(STAGES)
    )
    return STAGES[: last + 1]


def contents(folder: Path, *, without: str = "", only: str = "") -> dict[str, Any]:
    """Return what each file below a folder holds, by its name: values of JSON, digests of everything else."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {
        name: _content(path)
        for name, path in files.items()
        if path.is_file() and name != without and only in ("", name)
    }


def _content(path: Path) -> Any:
    from onepass.cache.errors import EarlierFormatError
    from onepass.cache.provenance import digest_bytes
    from onepass.cache.rowfile import RowFile

    if path.suffix == ".json":
        return flat(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        # a model that was looked at before a kill, or is made again, is looked at again: one line more
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [{k: v for k, v in line.items() if k not in ("time", "chain")} for line in lines]
        return {k: v for line in lines for k, v in flat(line, line["model"]).items()}
    if path.suffix == ".h5" and ".parts" not in str(path):
        with suppress(EarlierFormatError):
            rows = RowFile.open(path)
            rows.verify()
            return {"rows": rows.digest}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {n: digest_bytes(arrays[n].tobytes()) for n in arrays.files}
    return {"bytes": digest_bytes(path.read_bytes())}


class Copy:
    """A copy of a folder that is brought back to what it was: only what a command changed is copied, or read, again.

    Args:
        source: The folder.
        work: Where its copy lies.
    """

    def __init__(self, source: Path, work: Path) -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source, work)
        self.source, self.work = source, work
        self._stamps = self._now()
        self._known = contents(work)

    def restore(self) -> None:
        """Bring it back."""
        found = self._now()
        changed = {name for name, stamp in found.items() if self._stamps.get(name) != stamp}
        for name in sorted(changed, reverse=True):  # what is in a folder before it
            path = self.work / name
            path.rmdir() if path.is_dir() else path.unlink()
        for name in sorted(name for name in self._stamps if name in changed or name not in found):
            if (self.source / name).is_dir():
                (self.work / name).mkdir()
            else:
                shutil.copy2(self.source / name, self.work / name)
            self._stamps[name] = _stamp(self.work / name)

    def contents(self, *, without: str = "") -> dict[str, Any]:
        """Return what each file holds now, as `contents` does."""
        now = {n: stamp for n, stamp in self._now().items() if stamp and n != without}
        return {
            name: self._known[name] if stamp == self._stamps.get(name) else _content(self.work / name)
            for name, stamp in now.items()
        }  # fmt: skip

    def _now(self) -> dict[str, tuple]:
        return {str(path.relative_to(self.work)): _stamp(path) for path in self.work.rglob("*")}


def _stamp(path: Path) -> tuple:
    """Return what differs once a file was written again; nothing for a folder."""
    found = path.stat()
    return () if path.is_dir() else (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)  # fmt: skip


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the values of nested JSON by their paths."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, part in items for k, v in flat(part, f"{name}.{key}").items()}
    return {name: value}


class Volatile:
    """What differs between two undisturbed runs, so that a third may differ there as well."""

    def __init__(self) -> None:
        self.values: set[tuple[str, str]] = set()

    def learn(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        """Take note of all that differs; both must have the same files."""
        if one.keys() != other.keys():
            raise SystemExit(f"two undisturbed runs have other files: {one.keys() ^ other.keys()}")
        for name in one:
            for key in one[name].keys() | other[name].keys():
                if one[name].get(key) != other[name].get(key):
                    self.values.add((name, key))

    def differences(self, found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
        """Return in words what is other than expected, times and the like aside."""
        told = [f"{name}: left over" for name in found.keys() - expected.keys()]
        told += [f"{name}: lost" for name in expected.keys() - found.keys()]
        for name in found.keys() & expected.keys():
            for key in found[name].keys() | expected[name].keys():
                same = found[name].get(key) == expected[name].get(key)
                if not (same or TIMES.search(key) or (name, key) in self.values):
                    told.append(f"{name}{key}: {found[name].get(key)} instead of {expected[name].get(key)}")  # fmt: skip
        return told
