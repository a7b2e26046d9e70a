"""How networks are searched: the epochs of one head, or a grid of heads that are trained together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from sklearn.base import clone

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import brief
from onepass.classify.heads.neural.batches import steps_of
from onepass.classify.heads.neural.trained_head import TrainedHead
from onepass.classify.heads.scaler import Scaler
from onepass.classify.search.learning_curve import LearningCurve
from onepass.classify.search.search import Search, Trial
from onepass.classify.search.successive_halving import Part, Schedule, SuccessiveHalving
from onepass.classify.search.sweep_state import StateFile

QUICK_STEPS = 2_600  # training steps of a quick search
FEWEST_EPOCHS = 12  # however many steps an epoch has
PATIENCE = 2  # checkpoints beyond the peak
FULL_EPOCHS = 27  # of the grid that a full search tries


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


FULL_GRIDS = {
    "dense": Grid(
        learning_rate=(3e-4, 1e-3, 2e-3),
        penalty=((0.0, 0.0), (0.0, 1e-3), (0.0, 4e-3)),
        dropout=(0.2, 0.4, 0.65),
    ),
    "mlp": Grid(
        learning_rate=(3e-4, 1e-3),
        penalty=((0.0, 0.0), (0.0, 1e-4)),
        dropout=(0.25, 0.45, 0.65),
    ),
}


def search_network(search: Search[TrainedHead]) -> list[Trial]:
    """Evaluate one head after more and more epochs; with the budget "full", the heads of a grid."""
    head = search.head
    if search.budget == "full":
        params = [{**p, "seed": head.seed} for p in FULL_GRIDS[head.kind].params()]
        return JointTraining(params, Schedule(FULL_EPOCHS))(search)
    limit = max(FEWEST_EPOCHS, QUICK_STEPS // steps_of(len(search.split.X), head.batch_size))
    return JointTraining([{}], Schedule(limit, patience=PATIENCE))(search)


@dataclass(slots=True)
class JointTraining:
    """A strategy: many heads are trained at once, and what became of each is remembered.

    They see the rows in the order of the searched head's seed, whatever their own: one read of each
    batch serves them all. In several folds they are trained side by side, and compared by the means over these.

    Attributes:
        params: What differs from the searched head: any of learning_rate, l1, l2, dropout, seed.
        schedule: How long they are trained, and how many stay.
        state: Where an interrupted search resumes from.
        curves: What became of each head, in the order of `params`; after the search.
    """

    params: list[dict[str, Any]]
    schedule: Schedule
    state: StateFile | None = None
    curves: list[LearningCurve] = field(default_factory=list)

    def __call__(self, search: Search[TrainedHead]) -> list[Trial]:
        """Return the heads as they were at their checkpoints, in the order of `params`; see `in_folds`."""
        (trials,) = self.in_folds([search])
        return trials

    def in_folds(self, searches: Sequence[Search[TrainedHead]]) -> list[list[Trial]]:
        """Return the heads of each fold as they were at the same checkpoints, in the order of `params`.

        The figures of a trial are the means over all folds.

        Args:
            searches: That of each fold; they differ in their rows only.

        Raises:
            InvalidInputError: Hyper-parameters make no sense, or every head diverged.
        """
        first = searches[0]
        heads = [clone(first.head).set_params(**own) for own in self.params]
        for one in heads:
            one.check_params()
        parts, prepared = [], []
        for search in searches:
            head, X, numbers = search.prepare()
            scaler, split = Scaler.fit(X), search.split
            truth = np.searchsorted(head.classes_, split.y_selection)
            held = scaler.rows(split.X_selection)
            parts.append(Part((scaler.rows(X), numbers), (held, truth)))
            prepared.append((head, scaler))
        self.curves = SuccessiveHalving(
            [one.head_settings() for one in heads],
            first.head.shared_settings(),
            self.schedule,
            parts,
            classes=len(head.classes_),
            note=first.note,
            metric=first.metric,
            state=self.state,
        ).run()
        trials: list[list[Trial]] = [[] for _ in searches]
        for own, curve in zip(self.params, self.curves, strict=True):
            for one in curve.snapshots:
                params, layers = {**own, "epochs": one.epochs}, len(one.arrays) // len(searches)
                for fold, (head, scaler) in enumerate(prepared):
                    arrays = one.arrays[fold * layers : (fold + 1) * layers]
                    trained = head.with_params(**params).adopt_arrays(scaler, arrays)
                    trials[fold].append(Trial(params, one.accuracy, one.loss, one.merit, trained))
        if not trials[0]:
            raise InvalidInputError(
                f"{first.head.kind}: no head came through with finite weights; expected lower learning "
                f"rates than {brief(self.params[0])}"
            )
        return trials
