"""Feature vectors beside the labels and splits of their images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onepass.cache.features import FeatureSet, check_fresh, resolve_features
from onepass.cache.stores import AnyStore
from onepass.data.dataset import ImageDataset, open_dataset


@dataclass(frozen=True, slots=True, repr=False)
class LabelledFeatures:
    """Vectors of every image of a data set, with what is known of the images; row i is image i.

    Attributes:
        X: (N, D) float16 or float32, read-only.
        logits: (N, 1000) the backbone's ImageNet logits, or None.
        text: The feature keys as they are written on a command line, joined by " & ".
        dataset: The images.
    """

    X: np.ndarray
    logits: np.ndarray | None
    text: str
    dataset: ImageDataset

    def __repr__(self) -> str:
        rows, dim = self.X.shape
        return f"<LabelledFeatures {self.text} of {self.dataset.name}: {rows:,} × {dim:,} {self.X.dtype}>"

    @property
    def labels(self) -> np.ndarray:
        """(N,) int32; k means `class_ids[k]`, -1 unknown."""
        return self.dataset.labels

    @property
    def names(self) -> list[str]:
        """N file names."""
        return self.dataset.names

    @property
    def class_ids(self) -> list[str]:
        """Class k's identity, such as a wnid."""
        return self.dataset.class_ids

    @property
    def class_names(self) -> list[str]:
        """Class k's name for people."""
        return self.dataset.class_names

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of a split, int64, ascending.

        Raises:
            UnknownNameError: There is no split of that name.
        """
        return self.dataset.rows(split)


def labelled_features(store: AnyStore, name: str, keys: Sequence[str] = ()) -> LabelledFeatures:
    """Open feature vectors of a data set, several keys side by side; all that are stored where none is named.

    Raises:
        MissingFileError: The data set, or a feature file of it, is not there yet.
        UnknownNameError: There is none of that name.
        StaleError: The vectors are of other images than the data set has now.
    """
    dataset = open_dataset(store, name)
    sets = resolve_features(store, name, keys)
    for one in sets:
        check_fresh(one, dataset.contents)
    joined = FeatureSet.join(sets)
    return LabelledFeatures(joined.X, joined.logits, joined.text, dataset)
