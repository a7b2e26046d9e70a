"""What several tests share."""

import fcntl
import gc
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import processes
import pytest

from onepass.cache.artifacts import DIGEST
from onepass.cache.commandline.advice import with_advice
from onepass.cache.errors import OnepassError
from onepass.classify import config as classify_config

# Every machine tries the same cases: what passes here passes there.
hypothesis.settings.register_profile("same cases everywhere", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same cases everywhere")


ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["ONEPASS_ENGINE"] = (
    "keras"  # the same numbers on every processor; tests of OpenVINO ask for it
)

# Heads are chosen on a tenth of the training rows also where they are few, which is five times as fast; tests of
# the choice by folds ask for it.
classify_config.FEW_ROWS = 0


def pytest_configure(config: pytest.Config) -> None:
    """Let one process fork for all workers; without workers it starts when a test asks for it."""
    if getattr(config.option, "numprocesses", None):
        processes.begin()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: many tests wait for processes that they have started."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests: a worker that comes to one last works alone on it."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


MODULES = pytest.StashKey[int]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let collections of garbage pass over what was imported: each would take 0.3 s for TensorFlow and its like."""
    if len(sys.modules) > item.config.stash.get(MODULES, 0) + 500:
        item.config.stash[MODULES] = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def tiny_imagenet_zip() -> Path:
    """The real Tiny ImageNet archive; tests that need it are skipped where it is absent."""
    default = ROOT.parent / "shared" / "datasets" / "tiny-imagenet-200.zip"
    path = Path(os.environ.get("ONEPASS_TINY_IMAGENET", default))
    if not path.exists():
        pytest.skip("Tiny ImageNet is not here (set ONEPASS_TINY_IMAGENET to its zip)")
    return path


def randomise(model: Any, seed: int = 0) -> None:
    """Give a model's BatchNorms statistics that a mistake in using them would show in."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            for variable in layer.weights:
                variable.assign(random.uniform(0.5, 1.5, variable.shape))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that is filled once for all workers; whoever changes it makes a copy."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, whole = base / name, base / f"{name}.whole"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker whose attempt failed
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


def fields_of(path: Path) -> Any:
    """Return what an artifact's file holds without its digest, to be written again with a change."""
    value = json.loads(path.read_text())
    del value[DIGEST]
    return value


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face's hub, without a network."""
    from huggingface_hub import constants

    from onepass.extract.backbones import kerashub

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kerashub.spec_of.cache_clear()
    return tmp_path / "hub"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the library logs for a person, from INFO up; `said.text` holds it."""
    caplog.set_level(logging.INFO, "onepass")
    return caplog


@contextmanager
def refused(kind: type[OnepassError], pattern: str) -> Iterator[None]:
    """Expect an error whose line at the command line, its advice included, matches a pattern."""
    with pytest.raises(kind) as caught:
        yield
    line = with_advice(str(caught.value), caught.value.remedy)
    assert re.search(pattern, line) and "\n" not in line, line
