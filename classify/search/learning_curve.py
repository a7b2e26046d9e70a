"""What becomes of a head while it is trained, epoch by epoch."""

from dataclasses import dataclass, field

import numpy as np

from onepass.cache.artifacts import record


@record
class CurvePoint:
    """A head after an epoch, or at the end of the rung that it was dropped at.

    Attributes:
        epoch: Epochs so far; a fraction where a rung ends inside one.
        train_loss: Mean log-loss (nats) of the steps since the last point, with dropout, as Keras
            prints it; None: it diverged.
        train_accuracy: Top-1 of the same steps, 0 … 1.
        selection_loss: Log-loss on the selection rows (nats); None: it diverged.
        selection_accuracy: Top-1 there, 0 … 1.
        selection_merit: What is chosen by, the greatest the best; None: the accuracy.
    """

    epoch: int | float
    train_loss: float | None
    train_accuracy: float
    selection_loss: float | None
    selection_accuracy: float
    selection_merit: float | None = None

    @property
    def merit(self) -> float:
        """What is chosen by, the greatest the best; a head that diverged is the worst."""
        if self.selection_loss is None:
            return -np.inf
        return self.selection_accuracy if self.selection_merit is None else self.selection_merit


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A head's weights after a number of epochs.

    Attributes:
        epochs: One of `onepass.classify.search.successive_halving.CHECKPOINTS`, or the last.
        accuracy: Top-1 on the selection rows, 0 … 1.
        loss: Log-loss there (nats).
        merit: What is chosen by, the greatest the best.
        arrays: Weights and biases, layer by layer; where it was trained in folds, those of one after the other.
    """

    epochs: int
    accuracy: float
    loss: float
    merit: float
    arrays: list[np.ndarray]


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """What became of one head.

    Attributes:
        points: In the order of the epochs.
        snapshots: At all checkpoints of a head that is alone; of one among others the best at most.
    """

    points: list[CurvePoint] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    @property
    def best(self) -> Snapshot | None:
        """The best snapshot; ties go to the lower log-loss, then the earlier."""
        return min(self.snapshots, key=lambda one: (-one.merit, one.loss), default=None)
