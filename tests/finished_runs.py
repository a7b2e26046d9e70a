"""Finished runs of fine-tuning, without a network: what they leave on disk, with logits made up."""

from pathlib import Path

import numpy as np
from classify_store import NAME, digits, write_dataset

from onepass.cache.arrays import pack_arrays
from onepass.cache.made_by import MadeBy
from onepass.classify.protocol.evaluate import selection_rows
from onepass.data.dataset import ImageDataset
from onepass.finetune.recipes import RECIPES
from onepass.finetune.session.history import EpochRow
from onepass.finetune.session.result import FinetuneResult
from onepass.finetune.session.run_identity import RunConfig, RunIdentity


def write_runs(folder: Path) -> tuple[Path, Path, ImageDataset]:
    """Write a data set and three finished runs: r1 and r3 held rows out, r2 did not.

    Returns:
        Store, results, data set.
    """
    store, runs = folder / "store", folder / "runs"
    dataset = write_dataset(store, digits())
    for name, noise in (("r1", 1.0), ("r2", 2.0), ("r3", 3.0)):
        write_run(runs, dataset, name, noise, held_out=name != "r2")
    return store, runs, dataset


def write_run(runs: Path, dataset: ImageDataset, name: str, noise: float, held_out: bool) -> Path:
    """Leave on disk what a finished run leaves, with logits that are right but for noise."""
    run = runs / NAME / "finetune" / name
    run.mkdir(parents=True)
    labels = digits().labels
    random = np.random.default_rng(int(noise * 10))
    parts = {"val": dataset.rows("val"), "test": dataset.rows("test")}
    if held_out:
        parts["selection"] = selection_rows(dataset, seed=0)[1]
    for part, rows in parts.items():
        logits = noise * random.standard_normal((len(rows), 10)).astype(np.float32)
        logits[np.arange(len(rows)), labels[rows]] += 2
        (run / f"{part}_logits.npz").write_bytes(pack_arrays({"logits": logits, "rows": rows}))
    identity = RunIdentity(
        NAME, dataset.digest, "gone-0", {}, RECIPES["default"], "all", held_out, 0, "none", 0
    )
    known = dataset.contents, tuple(dataset.class_ids)
    RunConfig(identity, MadeBy.now(), None, *known).write(run / "config.json")
    row = EpochRow(1, 1.0, 0.75, 1.0, selection_accuracy=0.5 if held_out else None)
    FinetuneResult(f"{NAME}/{name}", Path(name), "", None, (row,), "", 0.5).write(
        run / "result.json"
    )
    return run
