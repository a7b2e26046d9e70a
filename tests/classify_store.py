"""A small data set and its features, written through the real row store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from stored import store_dataset, store_features

from onepass.cache.content import content_of
from onepass.cache.features import FeatureKey
from onepass.data.dataset import ImageDataset
from onepass.data.record import DatasetRecord

NAME = "digits-test"


@dataclass(frozen=True)
class Digits:
    """1,797 digits: 1,200 train, 397 val, 200 test, in mixed order.

    Attributes:
        pixels: (N, 8, 8, 1) uint8.
        labels: (N,) int32, of all rows.
        split: (N,) int8.
    """

    pixels: np.ndarray
    labels: np.ndarray
    split: np.ndarray

    @property
    def X(self) -> np.ndarray:
        """The pixels as vectors, float16 (N, 64)."""
        return (self.pixels.reshape(len(self.labels), -1) / 16).astype(np.float16)

    def opened(self, **changes: Any) -> ImageDataset:
        """The digits as a data set that lies nowhere; the labels of the test rows are known."""
        ids = [f"n{k:02d}" for k in range(int(self.labels.max()) + 1)]
        fields = {
            "name": NAME,
            "path": Path("nowhere"),
            "pixels": self.pixels,
            "content": content_of(self.pixels),
            "labels": self.labels,
            "split": self.split,
            "names": [str(row) for row in range(len(self.labels))],
            "groups": None,
            "class_ids": ids,
            "class_names": ids,
            "digest": "",
            "record": DatasetRecord(),
            "extra": {},
        }
        return ImageDataset(**{**fields, **changes})


def digits(classes: int = 10) -> Digits:
    """Return the digits of the first classes."""
    bunch = load_digits()
    keep = bunch.target < classes
    order = np.random.default_rng(0).permutation(int(keep.sum()))
    count = len(order)
    split = np.repeat([0, 1, 2], [count - count // 4 - count // 8, count // 4, count // 8])
    pixels = (bunch.images[keep][order][..., None] * 15).astype(np.uint8)
    return Digits(pixels, bunch.target[keep][order].astype(np.int32), split.astype(np.int8))


def rare_digits(rare: int = 8, share: float = 0.05) -> Digits:
    """Return two classes: 0 is one digit, a share of all rows; 1 is every other digit."""
    whole = digits()
    others = whole.labels != rare
    few = np.flatnonzero(~others)
    few = few[np.linspace(0, len(few) - 1, round(share / (1 - share) * others.sum())).astype(int)]
    rows = np.sort(np.concatenate([np.flatnonzero(others), few]))
    return Digits(whole.pixels[rows], others[rows].astype(np.int32), whole.split[rows])


def write_dataset(
    store: Path,
    data: Digits,
    name: str = NAME,
    record: dict[str, Any] | None = None,
    ids: list[str] | None = None,
    held: np.ndarray | None = None,
) -> ImageDataset:
    """Store pixels and labels as `onepass data prepare` does; those of test rows are unknown, or in `held`."""
    labels = np.where(data.split == 2, -1, data.labels).astype(np.int32)
    ids = ids or [f"n{k:02d}" for k in range(int(data.labels.max()) + 1)]
    texts = [f"digit {k}" for k in range(len(ids))]
    names = [f"{('train', 'val', 'test')[s]}_{row}.png" for row, s in enumerate(data.split)]
    columns = {} if held is None else {"held_labels": held}
    return store_dataset(
        store, name, data.pixels, labels, data.split, names, ids, texts, record, **columns
    )


def write_features(
    store: Path, dataset: ImageDataset, X: np.ndarray, backbone: str = "toy", **other: Any
) -> FeatureKey:
    """Store vectors (N, D) float16 as `onepass extract` does."""
    key = FeatureKey(**{"backbone": backbone, "weights": "sha256:0", "size": 8, **other})
    store_features(store, dataset, X, key)
    return key
