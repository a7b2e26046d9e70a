"""Loaded by every worker of a test's cluster: the backbone `tiny`, and what goes wrong on purpose.

Dask loads it with `--preload`; Ray's workers find it as `sitecustomize`. The files of the folder $FAULTS say what
goes wrong now: `slowly` (seconds a shard), `raises` (the first row of a shard), `blind` (the store is elsewhere).
Each leaves files there with the number of its process, when it has shown itself and when it computes.
"""

import os
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

TESTS = Path(__file__).resolve().parent


def fault(name: str) -> str:
    path = Path(os.environ["FAULTS"]) / name
    return path.read_text() if path.exists() else ""


def install_backbone() -> None:
    """Let this process know the backbone `tiny`."""
    sys.path[:0] = [str(TESTS)]
    import tiny_backbone

    from onepass.extract.backbones import lite

    tiny_backbone.install(lite)


def install() -> None:
    """Do all of it, once: Dask loads a file several times."""
    from onepass.extract.cluster import tasks

    if "tests' own" not in tasks.TASKS:
        install_backbone()
        install_faults()


def install_faults() -> None:
    """Put what goes wrong on purpose around the tasks."""
    from onepass.extract.cluster import tasks

    compute, look = tasks.TASKS["compute"], tasks.TASKS["look"]

    def computed(unit: dict) -> str:
        (Path(os.environ["FAULTS"]) / f"pid-{os.getpid()}").touch()
        begin = time.monotonic()
        while time.monotonic() - begin < float(fault("slowly") or 0):
            time.sleep(0.05)
        if fault("raises") == str(unit["rows"][0]):
            raise ValueError("no such luck")
        return compute(unit)

    def looked(pixels: str) -> dict:
        (Path(os.environ["FAULTS"]) / f"look-{os.getpid()}").touch()
        return look("/elsewhere" + pixels if fault("blind") else pixels)

    tasks.TASKS.update({"compute": computed, "look": looked, "tests' own": looked})


class Later(MetaPathFinder):
    """Lets `install_faults` follow the import of the tasks: Ray starts workers that never compute, and each would load Keras."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != "onepass.extract.cluster.tasks":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        assert spec and spec.loader
        execute = spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            install_faults()

        spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


if any("dask" in word for word in sys.orig_argv):
    install()
elif any("default_worker" in word for word in sys.orig_argv):
    install_backbone()
    sys.meta_path.insert(0, Later())
