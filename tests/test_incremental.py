"""Whatever happens to the images, their features are those of a fresh store, and only what is new is computed."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from onepass.cache.features import open_features
from onepass.data.dataset import open_dataset

KEY = "tiny@16!float32"
POOL = 40  # different images in all


def onepass(folder: Path, *words: str, store: str) -> dict[str, Any]:
    """Run a command; return what it says as JSON."""
    done = processes.run(*words, "--json", cwd=folder, ONEPASS_CACHE=store, TINY_BACKBONE="1")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PREPARE = ("data", "prepare", "folder", "--source", "images", "--name", "x")
EXTRACT = ("extract", "--dataset", "x", "--backbone", "tiny", "--size", "16", "--dtype", "float32", "--batch", "4", "--shard-rows", "4")  # fmt: skip


def prepare_and_extract(folder: Path, store: str) -> tuple[dict[str, Any], dict[str, Any]]:
    prepared = onepass(folder, *PREPARE, store=store)
    (file,) = onepass(folder, *EXTRACT, store=store)["files"]
    return prepared, file


def by_name(folder: Path, store: str) -> dict[str, tuple[bytes, np.ndarray]]:
    """Return content and vector of each image by the name of its file."""
    dataset = open_dataset(folder / store, "x")
    found = open_features(folder / store / "x" / "features" / f"{KEY}.h5")
    assert found.contents == dataset.contents
    return {
        name: (dataset.content[row].tobytes(), found.X[row])
        for row, name in enumerate(dataset.names)
    }


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    """Different images, and the vector of each by a fresh store."""
    folder = tmp_path_factory.mktemp("pool")
    random = np.random.default_rng(0)
    for number in range(POOL):
        path = folder / "images" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    prepare_and_extract(folder, "store")
    return folder


class Folder:
    """A folder of images to which things happen."""

    def __init__(self, root: Path, pool: Path, draw: Callable[..., int]) -> None:
        self.root, self.draw = root, draw
        self.waiting = sorted((pool / "images").rglob("*.png"), key=lambda path: int(path.stem))
        self.count = 0
        for split, label in [("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")] * 3:
            self._take(split, label)

    def _take(self, split: str, label: str) -> None:
        self._put(self.waiting.pop(0), split, label)

    def _put(self, path: Path, split: str, label: str, *, move: bool = False) -> None:
        self.count += 1
        target = self.root / "images" / split / label / f"{self.draw(0, 9)}-{self.count}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.move if move else shutil.copyfile)(path, target)

    def _any(self) -> Path | None:
        """Return an image without which its class still has two in its split."""
        folders = sorted(path for path in (self.root / "images").glob("*/*"))
        spare = [path for folder in folders for path in sorted(folder.iterdir())[2:]]
        return spare[self.draw(0, len(spare) - 1)] if spare else None

    def add(self) -> None:
        for _ in range(self.draw(1, 3)):
            if self.waiting:
                self._take(("train", "val")[self.draw(0, 1)], "ab"[self.draw(0, 1)])

    def remove(self) -> None:
        if path := self._any():
            path.unlink()

    def rename(self) -> None:
        if path := self._any():
            self._put(path, path.parts[-3], path.parts[-2], move=True)

    def relabel(self) -> None:
        if path := self._any():
            self._put(path, path.parts[-3], "ab"[path.parts[-2] == "a"], move=True)

    def move_between_splits(self) -> None:
        if path := self._any():
            self._put(path, ("train", "val")[path.parts[-3] == "train"], path.parts[-2], move=True)

    def duplicate(self) -> None:
        if path := self._any():
            self._put(path, path.parts[-3], path.parts[-2])


HAPPENINGS = ("add", "remove", "rename", "relabel", "move_between_splits", "duplicate", "kill")


def kill(folder: Path, words: tuple[str, ...], wait: float) -> None:
    """Let a command begin and kill it."""
    process = processes.start(*words, cwd=folder, ONEPASS_CACHE="store", TINY_BACKBONE="1")
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@settings(
    max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)  # fmt: skip
@given(data=st.data())
def test_any_sequence_of_changes(pool: Path, tmp_path_factory, data) -> None:
    root = tmp_path_factory.mktemp("changing")
    folder = Folder(root, pool, lambda low, high: data.draw(st.integers(low, high)))
    expected = dict(by_name(pool, "store").values())
    prepare_and_extract(root, "store")
    before = {content for content, _ in by_name(root, "store").values()}
    for step in range(5):
        names = st.lists(st.sampled_from(HAPPENINGS), min_size=1, max_size=3)
        happened = data.draw(names, label=f"step {step}")
        killed = "kill" in happened
        for name in happened:
            if name != "kill":
                getattr(folder, name)()
        if killed:
            kill(root, PREPARE, folder.draw(0, 30) / 100)
            onepass(root, *PREPARE, store="store")
            kill(root, EXTRACT, folder.draw(0, 200) / 100)
        prepared, file = prepare_and_extract(root, "store")
        found = by_name(root, "store")
        files = {f"{p.parts[-3]}/{p.parts[-2]}/{p.name}" for p in root.glob("images/*/*/*.png")}
        assert {name.split("images/")[-1] for name in found} == files
        contents = {content for content, _ in found.values()}
        if not killed:
            assert file["computed"] == len(contents - before) == prepared["new"], happened
        for name, (content, vector) in found.items():
            np.testing.assert_allclose(
                vector, expected[content], rtol=1e-5, atol=1e-6, err_msg=name
            )
        dataset = open_dataset(root / "store", "x")
        for name, label, split in zip(dataset.names, dataset.labels, dataset.split, strict=True):
            assert name.split("/")[-2] == dataset.class_ids[label]
            assert name.split("/")[-3] == ("train", "val")[split]
        before = contents
