"""A finished run on disk: what it is, which rows it never trained on, and what it said of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError, StaleError
from onepass.cache.files import read_json
from onepass.classify.heads.storage import unpack_arrays
from onepass.data.dataset import ImageDataset, open_dataset


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run of `onepass finetune` that is done.

    Attributes:
        name: DATASET/RUN.
        folder: Where it lies.
        identity: What its course depended on, as its `config.json` says.
        result: Its `result.json`.
        dataset: The data set, in the state it was trained on.
    """

    name: str
    folder: Path
    identity: dict[str, Any]
    result: dict[str, Any]
    dataset: ImageDataset

    @property
    def short(self) -> str:
        """The name without the data set."""
        return self.folder.name

    def logits(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what it said of "selection", "val" or "test": logits (n, K) and their rows (n,).

        Raises:
            MissingFileError: It kept none of that split.
            CorruptFileError: The file is damaged, or of another number of classes.
        """
        path = self.folder / f"{split}_logits.npz"
        if not path.exists():
            raise MissingFileError(f"{path}: the run kept no logits of its {split} rows")
        return load_logits(path, len(self.dataset.class_ids))

    def held_out(self) -> np.ndarray | None:
        """Return the selection rows that it never trained on, ascending; None where it took them all."""
        path = self.folder / "selection_logits.npz"
        return np.sort(self.logits("selection")[1]) if path.exists() else None


def load_logits(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read what `onepass.finetune.training.inference.save_logits` wrote: logits (n, classes) and their rows (n,).

    Raises:
        CorruptFileError: The file is damaged, or of another number of classes.
    """
    try:
        arrays = unpack_arrays(path.read_bytes())
        logits, rows = arrays["logits"], arrays["rows"]
        if logits.shape != (len(rows), classes):
            raise ValueError(f"shape {logits.shape} for {len(rows)} rows")
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"{path}: expected the logits of a run, but they cannot be read ({error})"
        ) from error
    return logits, rows


def open_run(store: Path, runs: Path, text: str) -> FinishedRun:
    """Open the run that DATASET/RUN names.

    Raises:
        MissingFileError: There is no such run, or it is not finished; the finished ones are named.
        StaleError: The data set has changed since.
    """
    name, run = text.split("/")
    folder = runs / name / "finetune" / run
    if not (folder / "result.json").exists():
        known = sorted(path.parent.name for path in folder.parent.glob("*/result.json"))
        raise MissingFileError(
            f"{folder}: no finished run; finished ones: {', '.join(known) or 'none'}"
        )
    identity = read_json(folder / "config.json")["identity"]
    dataset = open_dataset(store, name)
    if dataset.digest != identity["dataset_digest"]:
        raise StaleError(
            f"{folder}: trained on data set {identity['dataset_digest'][:8]}, but {name} is now "
            f"{dataset.digest[:8]}; train it again under another name with --run"
        )
    return FinishedRun(text, folder, identity, read_json(folder / "result.json"), dataset)


def rows_of(dataset: ImageDataset, split: str) -> np.ndarray:
    """Return the rows of a split.

    Raises:
        InvalidInputError: There are none.
    """
    rows = dataset.rows(split)
    if not len(rows):
        raise InvalidInputError(
            f"{dataset.name} has no {split} rows; name another split with --split"
        )
    return rows
