"""The backbone's own ImageNet classes, taken as they are: no training at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.cache.memory import scratch
from onepass.classify.heads.base import Head
from onepass.classify.heads.lazy_rows import blocks
from onepass.data.imagenet import imagenet_wnids

ABSENT = -1  # no ImageNet class
BEHIND = 1.0  # how far (nats) a class without a logit lies behind the last one that has one


@dataclass(eq=False, repr=False)
class ImageNet(Head):
    """Picks among the classes' own ImageNet logits; learns nothing from the rows.

    Args:
        columns: For each class, in ascending order, its column of the logits, or -1 where ImageNet
            does not know it. Such a class is never predicted.
    """

    kind = "imagenet"
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {**Head.ARRAYS, "columns_": ("K", "i")}

    columns: Sequence[int] = ()

    def fit(self, X: Any, y: Any) -> Self:
        """Check that the columns are there; see `Head.fit`."""
        X, _ = self.check_training(X, y)
        columns = np.asarray(self.columns, dtype=np.int64)
        if len(columns) != len(self.classes_) or columns.max() >= X.shape[1]:
            raise InvalidInputError(
                f"imagenet: expected a column below {X.shape[1]} for each of {len(self.classes_)} "
                f"classes, received {len(columns)} up to {columns.max(initial=ABSENT)}"
            )
        if not np.any(columns != ABSENT):
            raise InvalidInputError("imagenet: none of the classes is one of ImageNet's")
        self.columns_ = columns
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the logits of the classes, (n, K) float32."""
        X = self.check_features(X)
        known = self.columns_ != ABSENT
        out = scratch((len(X), len(known)), np.float32)
        for block in blocks(X):
            own = X[block][:, self.columns_[known]].astype(np.float32)
            out[block] = own.min(axis=1, keepdims=True) - BEHIND
            out[block, known] = own
        return out


def imagenet_columns(class_ids: Sequence[str], width: int) -> list[int]:
    """Return each class's column of ImageNet logits, -1 where its id is no ImageNet wnid.

    Args:
        class_ids: K identities.
        width: Columns of the logits; none is known unless they are the 1000 of ILSVRC2012.
    """
    wnids = imagenet_wnids()
    if width != len(wnids):
        return [ABSENT] * len(class_ids)
    column = {wnid: k for k, wnid in enumerate(wnids)}
    return [column.get(identity, ABSENT) for identity in class_ids]
