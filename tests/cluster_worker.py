"""Loaded by every worker of a test's cluster: the backbone `tiny`, and what goes wrong on purpose.

Dask loads it with `--preload`; Ray's workers find it as `sitecustomize`. The files of the folder $FAULTS say what
goes wrong now: `slowly` (seconds a shard), `raises` (the first row of a shard), `blind` (the store is elsewhere).
Each leaves files there with the number of its process, when it has shown itself and when it computes.
"""

import os
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def fault(name: str) -> str:
    path = Path(os.environ["FAULTS"]) / name
    return path.read_text() if path.exists() else ""


def install() -> None:
    sys.path[:0] = [str(TESTS)]
    import tiny_backbone

    from onepass.extract.backbones import lite
    from onepass.extract.cluster import tasks

    if "tests' own" in tasks.TASKS:  # Dask loads a file several times
        return
    tiny_backbone.install(lite)
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


if any("dask" in word or "default_worker" in word for word in sys.orig_argv):
    install()
