"""What the stages left on disk, read as files. What cannot be used is left out, and that is said."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.errors import CorruptFileError, OnepassError
from onepass.cache.features import list_features
from onepass.cache.files import read_json
from onepass.cache.rowfile import RowFile
from onepass.classify.heads.storage import unpack_arrays
from onepass.classify.metrics import softmax
from onepass.data.dataset import ImageDataset
from onepass.report.numbers import percent


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """One feature file of the store.

    Attributes:
        key: As it is written on a command line.
        inputs: What its rows depend on: the fields of `onepass.cache.features.FeatureKey`.
        rows: Images.
        dim: Length of a vector.
        bytes: Size on disk.
        computed: Rows that the last extraction computed; 0 where it was not measured.
        rate: Rows per second of that extraction; 0 where it was not measured.
        bound: What held the extraction up.
        devices: What it ran on, and how busy its GPUs were.
        digest: Of its vectors (hex).
        made: Command, time, machine and versions.
    """

    key: str
    inputs: dict[str, Any]
    rows: int
    dim: int
    bytes: int
    computed: int
    rate: float
    bound: str
    devices: str
    digest: str
    made: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Time of the last extraction; 0 where it was not measured."""
        return self.computed / self.rate if self.rate else 0.0

    @property
    def job(self) -> tuple[Any, ...]:
        """What files that came out of the same forward passes have in common."""
        names = ("backbone", "weights", "size", "view", "precision")
        return (self.made.get("command"), *(self.inputs.get(name) for name in names))


@dataclass(frozen=True, slots=True)
class FinetuneRun:
    """One run of `onepass finetune`, finished or not.

    Attributes:
        folder: Where it lies.
        name: Its name.
        identity: What its course depends on: features, probe, recipe, rows, seed.
        result: What `result.json` says; empty where it is not finished.
        errors: What `errors.json` says; empty where the errors were not looked at.
        made: Command, time, machine and versions.
    """

    folder: Path
    name: str
    identity: dict[str, Any]
    result: dict[str, Any]
    errors: dict[str, Any]
    made: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it was scored."""
        return self.result.get("val_top1") is not None

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch: epoch, loss, accuracy, seconds, and what else was measured."""
        return self.result.get("history", [])

    @property
    def command(self) -> str:
        """The command that made it."""
        return str(self.made.get("command", ""))

    def rows(self, dataset: ImageDataset) -> int:
        """Return how many images it was trained on."""
        if trained := self.result.get("trained_rows"):
            return int(trained)
        train = len(dataset.rows("train"))
        return min(self.identity.get("rows") or train, train)

    def val_probabilities(self, dataset: ImageDataset) -> np.ndarray:
        """Return (n, K) float32 probabilities of the reported rows, in their order.

        Raises:
            CorruptFileError: They cannot be read, or are of other rows.
        """
        path = self.folder / "val_logits.npz"
        try:
            arrays = unpack_arrays(path.read_bytes())
            logits, rows = arrays["logits"], dataset.rows("val")
            if not np.array_equal(arrays["rows"], rows):
                raise ValueError("they are of other rows than the reported ones of today")
            if logits.shape != (len(rows), len(dataset.class_ids)):
                raise ValueError(f"shape {logits.shape}")
            return softmax(logits)
        except (OSError, ValueError, KeyError) as error:
            raise CorruptFileError(
                f"{path}: expected the logits of a run, but they cannot be used ({error})"
            ) from error


def devices_text(speed: Mapping[str, Any]) -> str:
    """Return the devices that a stage recorded, and the use of its GPUs where it is known."""
    use = speed.get("gpu_use")
    busy = [] if use is None else [f"GPU use {percent(use)}"]
    return ", ".join([*map(str, speed.get("devices") or []), *busy])


def feature_files(store: Path, dataset: ImageDataset) -> tuple[list[FeatureFile], list[str]]:
    """Return the data set's feature files by name, and what was left out and why."""
    files, notes = [], []
    for path in list_features(store, dataset.name):
        try:
            found = _feature_file(path)
        except OnepassError as error:
            notes.append(str(error))
            continue
        if found.inputs.get("dataset_digest") == dataset.digest:
            files.append(found)
        else:
            notes.append(f"{path.name} was made from another state of the data set.")
    return files, notes


def _feature_file(path: Path) -> FeatureFile:
    rows = RowFile.open(path)
    speed = rows.attributes.get("extraction", {})
    return FeatureFile(
        key=path.stem,
        inputs=rows.inputs,
        rows=rows.layout.rows,
        dim=rows.columns["features"].shape[1],
        bytes=path.stat().st_size,
        computed=int(speed.get("computed_rows", 0)),
        rate=float(speed.get("rows_per_second", 0.0)),
        bound=str(speed.get("bound", "")),
        devices=devices_text(speed),
        digest=rows.digest,
        made=rows.made,
    )


def finetune_runs(folder: Path, dataset: ImageDataset) -> tuple[list[FinetuneRun], list[str]]:
    """Return the runs under `folder` in the order they were begun, and what was left out and why."""
    runs, notes = [], []
    for path in sorted(folder.glob("*/config.json")):
        try:
            run = _finetune_run(path)
        except (OnepassError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{path.parent.name}: this run cannot be read ({error}).")
            continue
        if run.identity.get("dataset_digest", dataset.digest) == dataset.digest:
            runs.append(run)
        else:
            notes.append(f"{run.name}: this run was made from another state of the data set.")
    return sorted(runs, key=lambda run: (str(run.made.get("created", "")), run.name)), notes


def _finetune_run(path: Path) -> FinetuneRun:
    config, result, errors = (
        read_json(path),
        path.with_name("result.json"),
        path.with_name("errors.json"),
    )
    return FinetuneRun(
        folder=path.parent,
        name=path.parent.name,
        identity=dict(config["identity"]),
        result=dict(read_json(result)) if result.exists() else {},
        errors=dict(read_json(errors)) if errors.exists() else {},
        made=dict(config["made_by"]),
    )
