"""Dropout and one dense softmax layer: the first head of De (2020)."""

from typing import Self

import numpy as np

from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.neural.trained_head import TrainedHead
from onepass.classify.heads.scaler import Scaler


class Dense(TrainedHead, LinearHead):
    """Softmax regression by stochastic gradients with dropout on its standardised features.

    Args:
        dropout: Share of the features that each step drops, in [0, 1).
        epochs: Passes over the rows.
        learning_rate: Of the optimiser; None: 1e-3 for Adam, 0.01 for SGD, as in De (2020).
        l1, l2: `l1 · Σ|w| + l2 · Σw²` is added to the mean log-loss (weights of standardised
            features, not the bias), as Keras's regularisers do.
        optimizer: "adam", or "sgd": Nesterov momentum 0.9, decay 1e-6.
        label_smoothing: Share of each target that is spread over all classes, in [0, 1).
        mixup: α of mixup between feature vectors (Zhang et al. 2018); 0: none.
        ema: The head is an exponential moving average of the weights, of which a step keeps this
            share (Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992);
            0, as in De (2020): the weights of the last step.
        batch_size: Approximate rows of a step; all steps of a fit have the same number. Fewer where an
            epoch would have less than 32 steps.
        seed: Of shuffling, dropout and mixup.
        class_weight: What a row of each class counts; see `onepass.classify.heads.class_weight`.
    """

    kind = "dense"
    version = 3

    def __init__(  # noqa: PLR0913  an estimator's hyper-parameters are keywords of its own
        self,
        dropout: float = 0.4,
        epochs: int = 10,
        learning_rate: float | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        optimizer: str = "adam",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        ema: float = 0.99,
        batch_size: int = 256,
        seed: int = 0,
        class_weight: str | None = None,
    ) -> None:
        self.dropout = dropout
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.l1 = l1
        self.l2 = l2
        self.optimizer = optimizer
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.ema = ema
        self.batch_size = batch_size
        self.seed = seed
        self.class_weight = class_weight

    def adopt_arrays(self, scaler: Scaler, arrays: list[np.ndarray]) -> Self:
        """See `TrainedHead.adopt_arrays`."""
        return self.adopt(scaler, *arrays)
