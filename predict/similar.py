"""The stored images that are most like others, which may be stored as well or new: by the cosine of their vectors."""

import glob
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.commandline.table import table
from onepass.cache.commandline.terminal import one_line
from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.features import FeatureSet, check_fresh, resolve_features
from onepass.cache.rows import RowFile
from onepass.classify.heads.float16 import widen
from onepass.classify.heads.neighbours.nearest import NONE, largest, unit_length
from onepass.data.contact_sheet import INK, RIGHT, Cell, contact_sheet
from onepass.data.dataset import EXCLUDED, SPLITS, ImageDataset, open_dataset
from onepass.data.relabel import EXCLUDE
from onepass.predict.config import SimilarConfig, on_disk
from onepass.predict.pictures.addresses import is_address
from onepass.predict.pictures.sources import STDIN, find_pictures
from onepass.predict.pixel_classifier import BATCH, PictureGeometry, PixelClassifier
from onepass.predict.pixel_models import Arrays, VectorSpec, Wanted

BLOCK = 1 << 13  # stored vectors of which the nearest are kept at a time
PART = 1 << 9  # that are compared at a time: they stay in the processor's cache
MANY = 1_000_000  # stored vectors from which on usearch finds the candidates, where it is installed
FEW = 8  # images at most that are asked for then: of more, one product with each block is faster
SPARE = 16  # candidates beside those that are asked for


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored image.

    Attributes:
        row: Of the data set.
        file: Its name.
        class_name: Its class; "" where it has no label.
        split: Its split.
        cosine: Of its vector and the one that was asked for, -1 … 1.
    """

    row: int
    file: str
    class_name: str
    split: str
    cosine: float


@dataclass(frozen=True, slots=True)
class SimilarResult:
    """The images most like some others.

    Attributes:
        dataset: Where they are stored.
        features: Key of the vectors.
        found: The nearest of each image that was asked for, by its name, the nearest first.
        sheet: A picture of them; None where none was asked for.
    """

    dataset: str
    features: str
    found: dict[str, tuple[Neighbour, ...]]
    sheet: Path | None


def find_similar(config: SimilarConfig) -> SimilarResult:
    """Compare each image with every stored one: exact, and a few seconds for a million (with usearch, less than one).

    Raises:
        UsageError: Several features are stored, and none is named.
        InvalidInputError: A picture cannot be read.
        OnepassError: Data set or features are missing, stale or damaged.
    """
    dataset = open_dataset(config.store, config.dataset)
    features = _features(config, dataset)
    queries = _queries(config, dataset, features)
    own = np.array([query.row for query in queries])
    vectors = np.stack([query.vector for query in queries])
    rows, cosines = nearest_rows(features.X, vectors, config.count, own)
    found = {
        query.name: tuple(map(_neighbour, [dataset] * len(near), near.tolist(), close.tolist()))
        for query, near, close in zip(queries, rows, cosines, strict=True)
    }
    if config.out:
        _draw(config.out, dataset, queries, found)
    return SimilarResult(dataset.name, features.text, found, config.out)


def nearest_rows(
    X: np.ndarray, queries: np.ndarray, count: int, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n, k) of X (N, D) nearest to each query (n, D), and their cosines, the nearest first.

    Args:
        X: May be a memory map; it is read once.
        queries: Of any length.
        count: How many; fewer where there are no more.
        own: (n,) row that is the query itself and is left out; -1 for none.
    """
    queries = unit_length(queries.astype(np.float32))
    most = min(count, len(X) - bool((own >= 0).any()))
    if len(X) >= MANY and len(queries) <= FEW and find_spec("usearch"):
        found = [_nearest(X, query, row, most) for query, row in zip(queries, own, strict=True)]
        return np.stack([near for near, _ in found]), np.stack([close for _, close in found])
    rows: np.ndarray = np.empty((len(queries), 0), np.int64)
    cosines: np.ndarray = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(X), BLOCK):
        close = _cosines(queries, X[start : start + BLOCK])
        lines = np.flatnonzero((own >= start) & (own < start + close.shape[1]))
        close[lines, own[lines] - start] = NONE
        near = largest(close, min(count, close.shape[1]))
        rows = np.hstack([rows, near + start])
        cosines = np.hstack([cosines, np.take_along_axis(close, near, axis=1)])
        best = largest(cosines, min(count, cosines.shape[1]))
        rows, cosines = (np.take_along_axis(part, best, axis=1) for part in (rows, cosines))
    return rows[:, :most], cosines[:, :most]


def _nearest(
    X: np.ndarray, query: np.ndarray, own: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `nearest_rows` does for one query: usearch compares all rows, in fewer digits; we the nearest of them."""
    from usearch.index import MetricKind, search

    many = min(count + SPARE, len(X))
    found = search(X, query.astype(X.dtype), many, MetricKind.Cos, exact=True)
    rows = np.sort(np.asarray(found.keys, np.int64))
    rows = rows[rows != own]
    close = _cosines(query[None], X[rows])
    (best,) = largest(close, count)
    return rows[best], close[0, best]


def _cosines(queries: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return the cosines (n, m) of queries (n, D) of length 1 and rows X (m, D), part by part of these."""
    cosines = np.empty((len(queries), len(X)), np.float32)
    wide = np.empty((min(PART, len(X)), X.shape[1]), np.float32)
    for start in range(0, len(X), PART):
        rows = X[start : start + PART]
        base = widen(rows, wide[: len(rows)])
        lengths = np.sqrt(np.einsum("ij,ij->i", base, base))
        cosines[:, start : start + PART] = queries @ base.T / np.maximum(lengths, 1e-12)
    return cosines


@dataclass(frozen=True, slots=True)
class _Query:
    """An image that is asked for: its row, -1 for a new one, its vector (D,) and its pixels."""

    name: str
    row: int
    vector: np.ndarray
    pixels: np.ndarray


def _features(config: SimilarConfig, dataset: ImageDataset) -> FeatureSet:
    keys = [config.features] if config.features else []
    sets = resolve_features(config.store, dataset.name, keys)
    if len(sets) > 1:
        raise UsageError(
            f"expected --features KEY, as {dataset.name} has several: {', '.join(one.text for one in sets)}"
        )
    check_fresh(sets[0], dataset.contents)
    return sets[0]


def _queries(config: SimilarConfig, dataset: ImageDataset, features: FeatureSet) -> list[_Query]:
    """Return what each word names: a row of the data set, else new pictures."""
    row_of = {name: row for row, name in reversed(list(enumerate(dataset.names)))}
    stored = {word: row_of[word] for word in config.images if word in row_of}
    new = [word for word in config.images if word not in stored]
    for word in new:
        if not (on_disk(word) or is_address(word) or glob.has_magic(word) or word == STDIN):
            raise InvalidInputError(
                f"{word}: expected an image of {dataset.name}, such as {dataset.names[0]}, or a file; found neither"
            )
    rows = [_Query(word, row, features.X[row], dataset.pixels[row]) for word, row in stored.items()]
    return rows + (_new(new, config, dataset, features) if new else [])


def _new(
    words: Sequence[str], config: SimilarConfig, dataset: ImageDataset, features: FeatureSet
) -> list[_Query]:
    """Decode new pictures as `onepass data prepare` does, and compute their vectors as the stored ones were."""
    geometry = PictureGeometry.of(dataset)
    with ExitStack() as stack:
        pictures = find_pictures(words, "", stack).found
        decoded = {one.name: geometry.pixels(one.read(), one.name) for one in pictures}
    spec = VectorSpec.of(features.keys[0])
    batch = RowFile.open(features.path).made_by.batch or BATCH

    def build(specs: Sequence[VectorSpec], shape: tuple[int, int, int]) -> Any:
        from onepass.predict.extractors import build_extractor

        return build_extractor(specs, shape, config.backbone_weights)

    network = PixelClassifier(_Vectors((spec,)), geometry, build, {spec: batch})
    pixels = np.stack(list(decoded.values()))
    vectors = network.arrays(pixels)[spec]
    return [
        _Query(name, -1, vector, own)
        for (name, own), vector in zip(decoded.items(), vectors, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Vectors without a head: see `onepass.predict.pixel_models.PixelModel`."""

    wanted: tuple[Wanted, ...]
    temperature: float = 1.0
    runs: dict[str, Any] = field(default_factory=dict)
    novelty_vectors: tuple[Wanted, ...] = ()

    def probabilities(self, arrays: Arrays) -> np.ndarray:
        raise InvalidInputError("vectors alone give no probabilities")


def _neighbour(dataset: ImageDataset, row: int, cosine: float) -> Neighbour:
    label, split = dataset.labels[row], dataset.split[row]
    return Neighbour(
        row,
        dataset.names[row],
        dataset.class_names[label] if label >= 0 else "",
        EXCLUDE if split == EXCLUDED else SPLITS[split],
        cosine,
    )


def _draw(
    path: Path,
    dataset: ImageDataset,
    queries: Sequence[_Query],
    found: dict[str, tuple[Neighbour, ...]],
) -> None:
    cells = []
    for query in queries:
        cells.append(Cell(query.pixels, ((query.name, RIGHT), ("", INK))))
        for near in found[query.name]:
            what = f"{near.cosine:.3f} {near.class_name}"
            cells.append(Cell(dataset.pixels[near.row], ((what, INK), (near.file, INK))))
    contact_sheet(path, cells, columns=len(cells) // len(queries))


def similar_text(result: SimilarResult) -> str:
    """Return a table of what was found, and where the picture of it lies."""
    head = ("image", "similar", "cosine", "class", "split")
    rows = [
        (one_line(name), one_line(near.file), f"{near.cosine:.3f}", one_line(near.class_name), near.split)
        for name, nearest_ones in result.found.items()
        for near in nearest_ones
    ]  # fmt: skip
    lines = [*table([head, *rows], right=(2,)), f"By the cosine of {result.features}."]
    return "\n".join(lines + ([f"Contact sheet: {result.sheet}"] if result.sheet else []))
