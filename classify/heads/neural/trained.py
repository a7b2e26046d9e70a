"""What `dense` and `mlp` have in common: networks on standardised features, trained in epochs."""

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import Head, Note, PathPoint, brief
from onepass.classify.heads.neural.batches import Setting, Training, batches, steps_of
from onepass.classify.heads.neural.network import Networks
from onepass.classify.heads.neural.optimizers import OPTIMIZERS, RATES
from onepass.classify.heads.neural.successive_halving import Plan, Race
from onepass.classify.heads.neural.sweep_state import Judged, Saved, Track
from onepass.classify.heads.scaler import Scaler

STEPS = 2_600  # training steps of a quick path, unless that is less than …
FEWEST = 12  # … epochs
PATIENCE = 2  # judged epochs beyond the peak


@dataclass(frozen=True, slots=True)
class Grid:
    """Hyper-parameters that are tried in every combination.

    Attributes:
        learning_rate: Of the optimiser.
        penalty: (l1, l2) pairs.
        dropout: Of the features.
        seed: Of first weights and dropout.
    """

    learning_rate: tuple[float, ...]
    penalty: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    dropout: tuple[float, ...] = (0.4,)
    seed: tuple[int, ...] = (0,)

    def params(self) -> list[dict[str, Any]]:
        """Return the combinations as hyper-parameters of a head."""
        return [
            {"learning_rate": rate, "l1": l1, "l2": l2, "dropout": dropout, "seed": seed}
            for rate, (l1, l2), dropout, seed in product(
                self.learning_rate, self.penalty, self.dropout, self.seed
            )
        ]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found.

    Attributes:
        params: Hyper-parameters of each head.
        tracks: What became of each.
        points: The heads that were judged after a whole epoch, in the order of `params`.
    """

    params: list[dict[str, Any]]
    tracks: list[Track]
    points: list[PathPoint]


class TrainedHead(Head):
    """A network trained in epochs; a subclass has these parameters, and says how it keeps the arrays.

    Class attributes:
        FULL: What `path` tries with the budget "full".
    """

    FULL: ClassVar[Grid]
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

    def adopt_arrays(self, scaler: Scaler, arrays: list[np.ndarray]) -> Self:
        """Take over weights and biases that were learnt for features that `scaler` standardised."""
        raise NotImplementedError

    def layers(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the hidden layers' outputs and the dropout before each layer."""
        return (), (self.dropout,)

    def fit(self, X: Any, y: Any) -> Self:
        """Train for `epochs`; see `Head.fit`.

        Raises:
            InvalidInputError: A parameter makes no sense, or the weights grew beyond all bounds.
        """
        self.check_params()
        X, numbers = self.check_training(X, y)
        scaler = Scaler.fit(X)
        training = self._training()
        networks = Networks([self._setting()], training, X.shape[1], len(self.classes_))
        source = batches(scaler.apply(X), numbers, training)
        networks.train(source, self.epochs * steps_of(len(X), self.batch_size))
        arrays = networks.arrays(0)
        if not all(np.isfinite(array).all() for array in arrays):
            raise InvalidInputError(
                f"{self.kind}: the weights grew beyond all bounds; expected a learning_rate below "
                f"{self._setting().learning_rate:g}"
            )
        return self.adopt_arrays(scaler, arrays)

    def path(
        self,
        X: np.ndarray,
        y: np.ndarray,
        X_selection: np.ndarray,
        y_selection: np.ndarray,
        *,
        budget: str = "quick",
        note: Note | None = None,
    ) -> list[PathPoint]:
        """Judge one head after more and more epochs; with the budget "full", those of a grid."""
        self.check_params()
        if budget == "full":
            params, plan = self.FULL.params(), Plan(epochs=27)
            params = [{**p, "seed": self.seed} for p in params]
        else:
            limit = max(FEWEST, STEPS // steps_of(len(X), self.batch_size))
            params, plan = [{}], Plan(epochs=limit, patience=PATIENCE)
        return self.sweep(X, y, X_selection, y_selection, params, plan, note).points

    def sweep(
        self,
        X: np.ndarray,
        y: np.ndarray,
        X_selection: np.ndarray,
        y_selection: np.ndarray,
        params: list[dict[str, Any]],
        plan: Plan,
        note: Note | None = None,
        saved: Saved | None = None,
    ) -> Sweep:
        """Train heads of other hyper-parameters together, and judge them on the selection rows.

        They see the rows in the order of this head's seed, whatever their own: one read of each
        batch serves them all.

        Args:
            X, y: Rows to fit on, (n, D) and (n,).
            X_selection, y_selection: Rows to judge on.
            params: What differs from this head: any of learning_rate, l1, l2, dropout, seed.
            plan: How long, and who goes on.
            note: Called with the state of the sweep as text.
            saved: Where an interrupted sweep goes on from.
        """
        heads = [clone(self).set_params(**own) for own in params]
        for head in heads:
            head.check_params()
        X, numbers = self.check_training(X, y)
        scaler = Scaler.fit(X)
        selection = scaler.apply(X_selection), np.searchsorted(self.classes_, y_selection)
        tracks = Race(
            [head._setting() for head in heads],
            self._training(),
            plan,
            (scaler.apply(X), numbers),
            selection,
            len(self.classes_),
            note,
            saved,
        ).run()
        points = [
            self._point(scaler, own, judged)
            for own, track in zip(params, tracks, strict=True)
            for judged in track.judged
        ]
        if not points:
            raise InvalidInputError(f"{self.kind}: no head came through with finite weights; expected lower learning rates than {brief(params[0])}")  # fmt: skip
        return Sweep(params, tracks, points)

    def _point(self, scaler: Scaler, own: dict[str, Any], judged: Judged) -> PathPoint:
        """Return a head of a sweep as it was when it was judged."""
        params = {**own, "epochs": judged.epochs}
        head = clone(self).set_params(**params)
        head.classes_, head.n_features_in_ = self.classes_, self.n_features_in_
        head.adopt_arrays(scaler, judged.arrays)
        return PathPoint(params, judged.accuracy, judged.loss, head)

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

    def _setting(self) -> Setting:
        rate = RATES[self.optimizer] if self.learning_rate is None else self.learning_rate
        return Setting(rate, self.layers()[1], self.l1, self.l2, self.seed)

    def _training(self) -> Training:
        hidden, _ = self.layers()
        return Training(
            hidden,
            self.optimizer,
            self.batch_size,
            self.label_smoothing,
            self.mixup,
            order=self.seed,
            ema=self.ema,
        )
