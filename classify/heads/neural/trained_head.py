"""What `dense` and `mlp` have in common: networks on standardised features, trained in epochs."""

from typing import Any, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import Head
from onepass.classify.heads.neural.batches import HeadSettings, SharedSettings, batches, steps_of
from onepass.classify.heads.neural.network import Networks
from onepass.classify.heads.neural.optimizers import OPTIMIZERS, RATES
from onepass.classify.heads.scaler import Scaler


class TrainedHead(Head):
    """A network trained in epochs; a subclass has these parameters, and says how it keeps the arrays."""

    dropout: float
    epochs: int
    learning_rate: float | None
    l1: float
    l2: float
    optimizer: str
    label_smoothing: float
    mixup: float
    ema: float
    batch_size: int
    seed: int
    class_weight: str | None

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
