"""Runs on disk: what each is, which rows it never trained on, and what it predicted for them.

Nothing here needs Keras, so that listing runs costs no start-up.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onepass.cache.arrays import unpack_arrays, write_arrays
from onepass.cache.content import CONTENT_BYTES, first_of_each
from onepass.cache.errors import CorruptFileError, MissingFileError, StaleError
from onepass.cache.files import read_bytes
from onepass.cache.names import check_run
from onepass.cache.stores import AnyStore
from onepass.data.dataset import ImageDataset, manifest_of, open_dataset
from onepass.data.history import changes_since
from onepass.finetune.session.result import RESULT, FinetuneResult
from onepass.finetune.session.run_identity import CONFIG, RunConfig, RunIdentity

LEARNT_FROM = "learnt_from.npz"  # which images a run saw, in its folder


@dataclass(frozen=True, slots=True)
class Run:
    """One run of `onepass finetune`, finished or not, as its folder holds it.

    Attributes:
        folder: Where it lies.
        config: What it is.
        result: What it found; None while it is not finished.
    """

    folder: Path
    config: RunConfig
    result: FinetuneResult | None

    @property
    def name(self) -> str:
        """The name without the data set."""
        return self.folder.name

    @property
    def full_name(self) -> str:
        """DATASET/RUN."""
        return f"{self.identity.dataset}/{self.name}"

    @property
    def identity(self) -> RunIdentity:
        """What its course depends on."""
        return self.config.identity


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run of `onepass finetune` that is finished, with its data set.

    Attributes:
        name: DATASET/RUN.
        folder: Where it lies.
        identity: What its course depended on.
        result: What it found.
        dataset: The data set as it is today.
        state: In a sentence, from which state of it the run learnt, where that is another; else "".
    """

    name: str
    folder: Path
    identity: RunIdentity
    result: FinetuneResult
    dataset: ImageDataset
    state: str = ""

    @property
    def short(self) -> str:
        """The name without the data set."""
        return self.folder.name

    def logits(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return its logits of "selection", "val" or "test": float32 (n, K), and their rows (n,).

        Raises:
            MissingFileError: It kept none of that split.
            CorruptFileError: The file is damaged, or of another number of classes.
        """
        dataset = self.dataset
        return load_logits(
            logits_path(self.folder, split), len(dataset.class_ids), len(dataset.labels)
        )

    def held_out(self) -> np.ndarray | None:
        """Return the selection rows that it never trained on, ascending; None where it took them all."""
        path = logits_path(self.folder, "selection")
        if not path.exists():
            return None
        return np.intersect1d(self.logits("selection")[1], self.dataset.rows("train"))


def logits_path(folder: Path, split: str) -> Path:
    """Return where a run keeps its logits of a split."""
    return folder / f"{split}_logits.npz"


def load_logits(path: Path, classes: int, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Read what `onepass.finetune.training.inference.save_logits` wrote: logits (n, classes) and their rows (n,).

    Args:
        path: The file.
        classes: How many there are.
        total: Rows of the data set.

    Raises:
        MissingFileError: There is no such file.
        CorruptFileError: The file is damaged, or of another number of classes.
    """
    try:
        arrays = unpack_arrays(read_bytes(path))
        logits, rows = arrays["logits"], arrays["rows"]
        if logits.shape != (len(rows), classes):
            raise ValueError(f"shape {logits.shape} for {len(rows)} rows")
        if (logits.dtype.kind, rows.dtype.kind, rows.ndim) != ("f", "i", 1):
            raise ValueError(f"logits {logits.dtype}, rows {rows.dtype} {rows.shape}")
        if rows.size and not 0 <= rows.min() <= rows.max() < total:
            raise ValueError(f"rows {rows.min()} to {rows.max()} of {total}")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: the run kept no logits of these rows") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{path}: expected the logits of a run, but they cannot be read ({error})"
        ) from error
    return logits, rows


def record_learnt_from(folder: Path, content: np.ndarray) -> None:
    """Note which images a run learns from.

    Args:
        folder: Of the run.
        content: Their identities, uint8 (n, 16); each counts once.
    """
    if not (folder / LEARNT_FROM).exists():
        write_arrays(folder / LEARNT_FROM, {"content": content[np.unique(first_of_each(content))]})


def learnt_from(run: Run, dataset: ImageDataset) -> np.ndarray:
    """Return the identities of the images that a run, or those that it went on from, learnt from: uint8 (n, 16).

    What a run of a version that did not note them learnt from follows from its data set, as long as that is as it was.

    Raises:
        StaleError: It is not.
        CorruptFileError: The file is damaged.
    """
    path = run.folder / LEARNT_FROM
    try:
        content = unpack_arrays(read_bytes(path))["content"]
        if (content.dtype, content.shape[1:]) != (np.uint8, (CONTENT_BYTES,)):
            raise ValueError(f"{content.dtype}, shape {content.shape}")
        return content
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"{path}: expected the identities of images, but they cannot be read ({error})"
        ) from error
    if run.identity.dataset_digest != dataset.digest:
        raise StaleError(
            f"{run.folder}: trained by a version that did not note on which images, and {dataset.name} has changed since; "
            "train from a probe"
        )
    rows = dataset.rows("train")
    if run.identity.select and run.identity.recipe.epochs:
        path = logits_path(run.folder, "selection")
        _, held_out = load_logits(path, len(dataset.class_ids), len(dataset.labels))
        rows = np.setdiff1d(rows, held_out)
    return dataset.content[rows]


def find_run(runs: Path, text: str) -> Run:
    """Read the finished run that DATASET/RUN names, whatever became of its data set.

    Args:
        runs: Root of the results.
        text: DATASET/RUN.

    Raises:
        UsageError: It is written in another way.
        MissingFileError: There is no such run, or it is not finished; the finished ones are named.
        CorruptFileError: One of its files is not what a run writes.
    """
    name, run = check_run("run", text)
    folder = runs / name / "finetune" / run
    if not (folder / RESULT).exists():
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{RESULT}"))
        raise MissingFileError(
            f"{folder}: no finished run; finished ones: {', '.join(known) or 'none'}"
        )
    return read_run(folder)


def state_words(store: AnyStore, run: Run, dataset: ImageDataset) -> str:
    """Say in a sentence from which state of its data set a run learnt, where that is another than today's; else ""."""
    learnt = run.identity.dataset_digest
    if learnt == dataset.digest:
        return ""
    since = "; ".join(changes_since(manifest_of(store, dataset.name), learnt))
    return f"{run.full_name} learnt from the state {learnt[:8]} of {dataset.name}" + (
        f"; since then: {since}" if since else ""
    )


def read_run(folder: Path) -> Run:
    """Read the run in a folder.

    Raises:
        MissingFileError: No run was begun there.
        CorruptFileError: One of its files is not what a run writes.
    """
    result = FinetuneResult.read_optional(folder / RESULT)
    return Run(
        folder,
        RunConfig.read(folder / CONFIG),
        None if result is None else replace(result, folder=folder),
    )


def run_folders(place: Path) -> list[Path]:
    """Return the folders of all runs that were begun under `runs/<data set>/finetune`, by name."""
    return sorted(path.parent for path in place.glob(f"*/{CONFIG}"))


def by_start(runs: Iterable[Run]) -> list[Run]:
    """Return runs in the order they were started."""
    return sorted(runs, key=lambda run: (run.config.made_by.created, run.name))


def finished_runs(place: Path) -> list[Run]:
    """Return the finished runs under `runs/<data set>/finetune`, by name.

    Raises:
        CorruptFileError: A file of one of them is not what a run writes.
    """
    return [read_run(folder) for folder in run_folders(place) if (folder / RESULT).exists()]


def open_run(store: AnyStore, runs: Path, text: str, *, any_state: bool = False) -> FinishedRun:
    """Open the run that DATASET/RUN names.

    Args:
        store: Root of the store.
        runs: Root of the results.
        text: DATASET/RUN.
        any_state: Open it also where labels, splits or names changed since it was trained. With other images
            or classes its numbers would be of other rows or columns.

    Raises:
        UsageError: It is written in another way.
        MissingFileError: There is no such run, or it is not finished; the finished ones are named.
        StaleError: The data set has changed since, or for `any_state` its images or classes have.
    """
    found = find_run(runs, text)
    assert found.result is not None
    name = check_run("run", text)[0]
    dataset, learnt = open_dataset(store, name), found.identity.dataset_digest
    state = state_words(store, found, dataset)
    if state:
        config = found.config
        same_classes = config.class_ids == tuple(dataset.class_ids)
        if not (any_state and same_classes and config.contents == dataset.contents):
            onward = f", or go on from its network with --from {text}" if same_classes else ""
            raise StaleError(
                f"{found.folder}: trained on data set {learnt[:8]}, but {name} is now "
                f"{dataset.digest[:8]}; train it again under another name with --run{onward}"
            )
    return FinishedRun(text, found.folder, found.identity, found.result, dataset, state)
