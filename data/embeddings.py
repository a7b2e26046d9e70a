"""Feature vectors with names, labels and splits for other programs: Parquet, NumPy, CSV, TensorFlow's Embedding Projector."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onepass.cache.csv_text import csv_text, harmless
from onepass.cache.errors import UsageError
from onepass.cache.files import atomic_path
from onepass.cache.progress import Progress
from onepass.data.arrow_tables import pyarrow_parquet
from onepass.data.config import EmbeddingsConfig
from onepass.data.dataset import EXCLUDED, SPLITS, ImageDataset
from onepass.data.features import LabelledFeatures, labelled_features
from onepass.data.relabel import EXCLUDE

BLOCK = 4096  # rows in memory at a time
COLUMNS = ("file", "class_id", "class_name", "split")
DIGITS = {"float16": 5, "float32": 9}  # that tell any two numbers of a type apart

Write = Callable[[np.ndarray, list[tuple[str, ...]]], object]


@dataclass(frozen=True, slots=True)
class ExportedEmbeddings:
    """What was written.

    Attributes:
        key: DATASET/KEY.
        format: Of the files.
        paths: They.
        rows: How many images.
        dim: Length of a vector.
    """

    key: str
    format: str
    paths: tuple[Path, ...]
    rows: int
    dim: int


def export_embeddings(config: EmbeddingsConfig) -> ExportedEmbeddings:
    """Write the vectors of every image of a data set, block by block; each file takes its place whole, at the end.

    Raises:
        UsageError: The key names no features.
        UnknownNameError: There are no such features.
        StaleError: They are of other images than the data set has now.
        MissingFileError: pyarrow, which writes Parquet files, is not installed.
        OutOfSpaceError: The disk is full.
    """
    name, _, key = config.key.partition("/")
    if not key:
        raise UsageError(
            f"{config.key}: expected DATASET/BACKBONE@SIZE, as `onepass cache list` prints it"
        )
    features = labelled_features(config.store, name, [key])
    paths = _paths(config, f"{name}-{features.text.replace('/', '_')}")
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_path(path)) for path in paths]
        write = stack.enter_context(WRITERS[config.format](features, *temporary))
        with Progress(len(features.X), "rows", config.key) as progress:
            for start in range(0, len(features.X), BLOCK):
                rows = range(start, min(start + BLOCK, len(features.X)))
                write(features.X[start : rows.stop], [_cells(features.dataset, i) for i in rows])
                progress.advance(len(rows))
    return ExportedEmbeddings(config.key, config.format, paths, *features.X.shape)


def exported_text(result: ExportedEmbeddings) -> str:
    """Return what a person reads at the end."""
    lines = [f"{result.key}: {result.rows:,} vectors of {result.dim:,} numbers as {result.format}"]
    return "\n".join([*lines, *(f"File: {path}" for path in result.paths)])


def _paths(config: EmbeddingsConfig, name: str) -> tuple[Path, ...]:
    if config.format in ("parquet", "csv"):
        return (config.out or Path(f"{name}.{config.format}"),)
    files = {"npy": ("vectors.npy", "rows.csv"), "projector": ("vectors.tsv", "metadata.tsv")}
    folder = config.out or Path(f"{name}-{config.format}")
    return tuple(folder / file for file in files[config.format])


def _cells(dataset: ImageDataset, row: int) -> tuple[str, ...]:
    """Return what is known of an image, in the order of COLUMNS; "" where it has no label."""
    label, split = dataset.labels[row], dataset.split[row]
    known = (dataset.class_ids[label], dataset.class_names[label]) if label >= 0 else ("", "")
    return (dataset.names[row], *known, EXCLUDE if split == EXCLUDED else SPLITS[split])


@contextmanager
def _parquet(features: LabelledFeatures, path: Path) -> Iterator[Write]:
    """Columns of text, and `vector`: lists of float32 of one length, which more programs read than float16."""
    parquet = pyarrow_parquet(path)
    import pyarrow

    dim = features.X.shape[1]
    text = [(column, pyarrow.string()) for column in COLUMNS]
    schema = pyarrow.schema([*text, ("vector", pyarrow.list_(pyarrow.float32(), dim))])
    with parquet.ParquetWriter(path, schema) as writer:

        def write(vectors: np.ndarray, cells: list[tuple[str, ...]]) -> None:
            numbers = pyarrow.array(vectors.astype(np.float32).ravel())
            lists = pyarrow.FixedSizeListArray.from_arrays(numbers, dim)
            columns = [pyarrow.array(map(_storable, column)) for column in zip(*cells, strict=True)]
            writer.write_batch(pyarrow.record_batch([*columns, lists], schema))

        yield write


@contextmanager
def _npy(features: LabelledFeatures, vectors: Path, rows: Path) -> Iterator[Write]:
    """The array as it is stored, (N, D), and the table of its rows."""
    X = features.X
    header = {"descr": X.dtype.str, "fortran_order": False, "shape": X.shape}
    with vectors.open("wb") as file, _text(rows) as table:
        np.lib.format.write_array_header_1_0(file, header)
        table(csv_text(COLUMNS, []))

        def write(block: np.ndarray, cells: list[tuple[str, ...]]) -> None:
            file.write(np.ascontiguousarray(block).tobytes())
            table("".join(map(_line, cells)))

        yield write


@contextmanager
def _csv(features: LabelledFeatures, path: Path) -> Iterator[Write]:
    """One table; the numbers are the columns 0, 1, …"""
    form = _form(features.X, ",")
    with _text(path) as table:
        table(csv_text([*COLUMNS, *range(features.X.shape[1])], []))

        def write(block: np.ndarray, cells: list[tuple[str, ...]]) -> None:
            for row, known in zip(block.tolist(), cells, strict=True):
                table(f"{_line(known)[:-1]},{form % tuple(row)}\n")

        yield write


@contextmanager
def _projector(features: LabelledFeatures, vectors: Path, metadata: Path) -> Iterator[Write]:
    """Two tables without quotes, the first of them without a head."""
    form = _form(features.X, "\t")
    with _text(vectors) as numbers, _text(metadata) as table:
        table("\t".join(COLUMNS) + "\n")

        def write(block: np.ndarray, cells: list[tuple[str, ...]]) -> None:
            for row, known in zip(block.tolist(), cells, strict=True):
                numbers(form % tuple(row) + "\n")
                table("\t".join(" ".join(cell.split()) for cell in known) + "\n")

        yield write


def _line(cells: tuple[str, ...]) -> str:
    return csv_text([harmless(cell) for cell in cells], [])


def _form(X: np.ndarray, separator: str) -> str:
    return separator.join([f"%.{DIGITS[X.dtype.name]}g"] * X.shape[1])


@contextmanager
def _text(path: Path) -> Iterator[Callable[[str], object]]:
    """Yield what writes text; a file name may be any bytes."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield file.write


def _storable(cell: str) -> str:
    """Return text that UTF-8 can hold."""
    return cell.encode("utf-8", "backslashreplace").decode()


WRITERS: dict[str, Callable[..., AbstractContextManager[Write]]] = {
    "parquet": _parquet,
    "npy": _npy,
    "csv": _csv,
    "projector": _projector,
}
