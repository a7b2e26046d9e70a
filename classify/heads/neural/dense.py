"""Dropout and one dense softmax layer: the first head of De (2020)."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.neural.trained_head import TrainedHead
from onepass.classify.heads.scaler import Scaler


@dataclass(eq=False, repr=False)
class Dense(TrainedHead, LinearHead):
    """Softmax regression by stochastic gradients with dropout on its features; see `TrainedHead`."""

    kind = "dense"
    version = 3

    def adopt_arrays(self, scaler: Scaler, arrays: list[np.ndarray]) -> Self:
        """See `TrainedHead.adopt_arrays`."""
        return self.adopt(scaler, *arrays)
