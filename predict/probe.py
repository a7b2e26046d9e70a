"""The classes that a probe gives to a split, as a file to hand in."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.files import write_atomic
from onepass.classify.config import PredictConfig
from onepass.classify.ensemble import member_inputs
from onepass.classify.heads.storage import load_head, pack_arrays
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.classify.leaderboard.records import model_digest
from onepass.classify.metrics import apply_temperature
from onepass.classify.protocol.inputs import inputs_of
from onepass.classify.protocol.scorings import record_scoring
from onepass.classify.protocol.views import mean_probabilities
from onepass.data.dataset import ImageDataset, open_dataset


@dataclass(frozen=True, slots=True)
class PredictResult:
    """Where the predictions lie.

    Attributes:
        dataset: Name of the data set.
        split: Which rows.
        path: The file.
        format: How it is written.
        rows: How many lines of predictions it has.
        probe: Id of the probe.
        features: What the probe looks at.
        head: Kind of head.
        accuracy: Top-1 where all labels of the split are known, else None.
    """

    dataset: str
    split: str
    path: Path
    format: str
    rows: int
    probe: str
    features: tuple[str, ...]
    head: str
    accuracy: float | None


def predict_split(config: PredictConfig) -> PredictResult:
    """Write the class of every row of a split, in row order, by a probe of the leaderboard.

    Args:
        config: Data set, split, probe, format, file.

    Raises:
        OnepassError: No leaderboard, no such probe, no such rows, stale or damaged files.
    """
    dataset = open_dataset(config.store, config.dataset)
    folder = config.runs / dataset.name
    board = Leaderboard.load(folder, dataset.name, dataset.digest)
    result = board.find(config.probe)
    rows = dataset.rows(config.split)
    if not len(rows):
        raise InvalidInputError(
            f"{dataset.name} has no {config.split} rows; name another split with --split"
        )
    classes, probabilities = probabilities_of(config.store, board, dataset, result, rows)
    path = config.out or folder / "predictions" / _file_name(config, result.id)
    if path.is_dir():
        raise UsageError(f"--out {path}: expected a file, received a folder")
    write_atomic(path, content_of(dataset, rows, classes, probabilities, config))
    labels = dataset.labels[rows]
    predicted = classes[probabilities.argmax(axis=1)]
    accuracy = float(np.mean(predicted == labels)) if labels.min() >= 0 else None
    if config.split == "val" and accuracy is not None:
        record_scoring(
            folder, probe=result.id, model=model_digest(load_head(board.head_folder(result))),
            features=result.features_text, inputs=result.features_digest, head=result.head,
            dataset_digest=dataset.digest, seed=result.seed, accuracy=accuracy,
        )  # fmt: skip
    return PredictResult(
        dataset.name, config.split, path, config.format, len(rows),
        result.id, result.features, result.head, accuracy,
    )  # fmt: skip


def probabilities_of(
    store: Path, board: Leaderboard, dataset: ImageDataset, result: ProbeResult, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes (K,) and the calibrated probabilities (n, K) of some rows by a probe.

    An ensemble asks its members' heads on their own features.

    Args:
        store: Root of the store.
        board: Holds the probe, and the members of an ensemble.
        dataset: What they were made from.
        result: The probe's line.
        rows: (n,) ascending.

    Raises:
        OnepassError: A head or a feature file is missing, damaged or another than it was.
    """
    head = load_head(board.head_folder(result))
    if result.members:
        parts = [
            probabilities_of(store, board, dataset, board.find(member), rows)[1]
            for member in result.members
        ]
        probabilities = head.predict_proba(member_inputs(parts))
    else:
        views = inputs_of(store, dataset, result).all_views()
        if views[0].shape[1] != head.n_features_in_:
            raise InvalidInputError(
                f"probe {result.id}: expected vectors of {head.n_features_in_} numbers, "
                f"received {views[0].shape[1]}; run the classify command again"
            )
        probabilities = mean_probabilities(head, views, rows)
    return head.classes_, apply_temperature(probabilities, result.temperature)


def content_of(
    dataset: ImageDataset,
    rows: np.ndarray,
    classes: np.ndarray,
    probabilities: np.ndarray,
    config: PredictConfig,
) -> bytes:
    """Return the bytes of a file of predictions: text in UTF-8, or the arrays of --format npz.

    The arrays: names (n,) file names, rows (n,) row numbers of the data set, classes (n,) ids of the
    most probable class, class_ids (K,) of each column, probabilities (n, K) float32.

    Args, Raises: As `render`.
    """
    if config.format != "npz":
        return render(dataset, rows, classes, probabilities, config).encode()
    ids = np.array([dataset.class_ids[label] for label in classes])
    return pack_arrays(
        {
            "names": np.array([dataset.names[row] for row in rows]),
            "rows": np.asarray(rows, np.int64),
            "classes": ids[probabilities.argmax(axis=1)],
            "class_ids": ids,
            "probabilities": probabilities.astype(np.float32),
        }
    )


def render(
    dataset: ImageDataset,
    rows: np.ndarray,
    classes: np.ndarray,
    probabilities: np.ndarray,
    config: PredictConfig,
) -> str:
    """Return the text of a file of predictions, in one of the formats that are text.

    Args:
        dataset: Gives file names, class ids and class names.
        rows: (n,) the rows that were predicted.
        classes: (K,) label of each column.
        probabilities: (n, K).
        config: Format and header.

    Raises:
        InvalidInputError: A name holds a space, and the format parts its columns by one.
    """
    best = probabilities.argmax(axis=1)
    labels, chance = classes[best], probabilities[np.arange(len(best)), best]
    names = [dataset.names[row] for row in rows]
    ids = [dataset.class_ids[label] for label in labels]
    if config.format == "course":
        for text in (*names, *ids):
            if len(text.split()) != 1:
                raise InvalidInputError(
                    f"--format course parts name and class by a space, but {text!r} is not one word; "
                    "use --format csv"
                )
        return "".join(f"{name} {identity}\n" for name, identity in zip(names, ids, strict=True))
    if config.format == "kaggle":
        return _csv(config.header, zip(names, ids, strict=True))
    words = [dataset.class_names[label] for label in labels]
    shares = [f"{share:.6f}" for share in chance]
    table = zip(names, ids, words, shares, strict=True)
    return _csv(("file", "class_id", "class_name", "probability"), table)


def _csv(header: tuple[str, ...], table: zip) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(table)
    return buffer.getvalue()


def file_ending(form: str) -> str:
    """Return what the name of a file of that --format ends in."""
    return {"course": ".txt", "kaggle": "-kaggle.csv", "csv": ".csv", "npz": ".npz"}[form]


def _file_name(config: PredictConfig, probe: str) -> str:
    return f"{config.split}-{probe}{file_ending(config.format)}"
