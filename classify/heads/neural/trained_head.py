"""What `dense` and `mlp` have in common: networks on standardised features, trained in epochs."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import StandardisedHead
from onepass.classify.heads.neural.batches import HeadSettings, SharedSettings, batches, steps_of
from onepass.classify.heads.neural.network import Networks
from onepass.classify.heads.neural.optimizers import OPTIMIZERS, RATES
from onepass.classify.heads.scaler import Scaler


@dataclass(eq=False, repr=False)
class TrainedHead(StandardisedHead):
    """A network trained in epochs; a subclass says how it keeps the arrays.

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
        seed: Of first weights, shuffling, dropout and mixup.
        class_weight: What a row of each class counts; see `onepass.classify.heads.class_weight`.
    """

    dropout: float = 0.4
    epochs: int = 10
    learning_rate: float | None = None
    l1: float = 0.0
    l2: float = 0.0
    optimizer: str = "adam"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float = 0.99
    batch_size: int = 256
    seed: int = 0
    class_weight: str | None = None

    def adopt_arrays(self, scaler: Scaler, arrays: list[np.ndarray]) -> Self:
        """Take over weights and biases that were learnt for features that `scaler` standardised."""
        raise NotImplementedError

    def layers(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the hidden layers' outputs and the dropout before each layer."""
        return (), (self.dropout,)

    def fit(self, X: Any, y: Any) -> Self:
        """Train for `epochs`; see `Head.fit`.

        Raises:
            InvalidInputError: A parameter makes no sense, or the weights diverged.
        """
        self.check_params()
        X, numbers = self.check_training(X, y)
        scaler = Scaler.fit(X)
        settings, shared = self.head_settings(), self.shared_settings()
        networks = Networks([settings], shared, X.shape[1], len(self.classes_), numbers)
        source = batches(scaler.rows(X), numbers, shared)
        networks.train(source, self.epochs * steps_of(len(X), self.batch_size))
        arrays = networks.arrays(0)
        if not all(np.isfinite(array).all() for array in arrays):
            raise InvalidInputError(
                f"{self.kind}: the weights diverged; expected a learning_rate below "
                f"{settings.learning_rate:g}"
            )
        return self.adopt_arrays(scaler, arrays)

    def check_params(self) -> None:
        """Refuse hyper-parameters that make no sense.

        Raises:
            InvalidInputError: Names the expected range and what was received.
        """
        (hidden, dropout), rate = self.layers(), self.learning_rate
        shares, whole = (
            (*dropout, self.label_smoothing, self.ema),
            (self.epochs, self.batch_size, *hidden),
        )
        weights = (self.l1, self.l2, self.mixup)
        for good, wanted, received in (
            (self.optimizer in OPTIMIZERS, f"optimizer {' or '.join(OPTIMIZERS)}", self.optimizer),
            (rate is None or 0 < rate < np.inf, "a learning_rate above 0", rate),
            (all(0 <= s < 1 for s in shares), "dropout, label_smoothing and ema in [0, 1)", shares),
            (min(whole) >= 1, "epochs, batch_size and hidden of at least 1", whole),
            (all(0 <= w < np.inf for w in weights), "l1, l2 and mixup of at least 0", weights),
        ):
            if not good:
                raise InvalidInputError(f"{self.kind}: expected {wanted}, received {received}")

    def head_settings(self) -> HeadSettings:
        """Return what may differ between this head and those that are trained together with it."""
        rate = RATES[self.optimizer] if self.learning_rate is None else self.learning_rate
        return HeadSettings(rate, self.layers()[1], self.l1, self.l2, self.seed)

    def shared_settings(self) -> SharedSettings:
        """Return what this head shares with those that are trained together with it."""
        hidden, _ = self.layers()
        return SharedSettings(
            hidden,
            self.optimizer,
            self.batch_size,
            self.label_smoothing,
            self.mixup,
            order=self.seed,
            ema=self.ema,
            class_weight=self.class_weight,
        )
