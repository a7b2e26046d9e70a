"""Data sets and features, written into a store as the commands leave them."""

from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.artifacts import from_json
from onepass.cache.content import CONTENT_BYTES, content_of
from onepass.cache.features import FeatureKey
from onepass.cache.rowfile import RowFile, write_rows
from onepass.cache.rows import inputs_of
from onepass.data.dataset import ImageDataset, dataset_path, open_dataset
from onepass.data.manifest import Manifest, manifest_path
from onepass.data.record import DatasetRecord


def store_dataset(  # noqa: PLR0913
    store: Path,
    name: str,
    pixels: np.ndarray,
    labels: np.ndarray,
    split: np.ndarray,
    names: list[str],
    class_ids: list[str],
    class_names: list[str] | None = None,
    record: DatasetRecord | dict[str, Any] | None = None,
    **columns: Any,
) -> ImageDataset:
    """Store pixels (N, H, W, C) uint8 and what is known of them as `onepass data prepare` does."""
    contents = content_of(pixels)
    unknown = np.zeros((len(pixels), CONTENT_BYTES), np.uint8)
    arrays = {"pixels": pixels, "content": contents, "source": unknown}
    geometry = {"side": pixels.shape[1], "channels": pixels.shape[3], "fit": "stretch", "native": 0}
    recipe = {"kind": "pixels", "geometry": geometry, "rules": 1}
    write_rows(dataset_path(store, name), arrays, inputs=inputs_of(recipe, contents))
    known = record if isinstance(record, DatasetRecord) else from_json(DatasetRecord, record or {})
    Manifest(
        path=manifest_path(store, name),
        content=contents,
        labels=np.asarray(labels, np.int32),
        split=np.asarray(split, np.int8),
        names=names,
        class_ids=class_ids,
        class_names=class_names or class_ids,
        record=known,
        columns=columns,
    ).write()
    return open_dataset(store, name)


def store_features(
    store: Path,
    dataset: ImageDataset,
    X: np.ndarray,
    key: FeatureKey,
    attributes: dict[str, Any] | None = None,
) -> RowFile:
    """Store vectors (N, D) as `onepass extract` does."""
    inputs = inputs_of(key.recipe(), dataset.content)
    arrays = {"features": X, "content": dataset.content}
    return write_rows(
        key.file(store, dataset.name), arrays, inputs=inputs, attributes=attributes or {}
    )
