"""The finished epochs, and what follows from them."""

import time
from collections.abc import Sequence

from onepass.cache.artifacts import record
from onepass.cache.errors import OnepassError
from onepass.cache.tracking import Point


class DivergedError(OnepassError, ArithmeticError):
    """The loss is no longer a number."""


@record
class SelectionScore:
    """How a network does on the selection split.

    Attributes:
        accuracy: Top-1, 0 … 1.
        loss: Cross-entropy (nats).
        merit: What epochs are chosen by, the greatest the best; None: the accuracy.
    """

    accuracy: float
    loss: float
    merit: float | None = None

    @property
    def order(self) -> tuple[float, float]:
        """The greatest is the best; ties go to the lower loss."""
        return (self.accuracy if self.merit is None else self.merit, -self.loss)


@record
class EpochRow:
    """One finished epoch.

    Attributes:
        epoch: From 1.
        loss: Mean cross-entropy (nats) of the training images as they were seen, against the targets
            as they were smoothed and mixed.
        accuracy: Top-1 of the same against the images' own labels, 0 … 1.
        seconds: Time that training took, in the process that finished the epoch and those before it up
            to their last checkpoint.
        selection_loss: Cross-entropy (nats) on the selection split, by the averaged weights where there
            are any; None where nothing is chosen.
        selection_accuracy: Top-1 there, 0 … 1.
        selection_merit: What epochs are chosen by, the greatest the best; None: the accuracy.
    """

    epoch: int
    loss: float
    accuracy: float
    seconds: float
    selection_loss: float | None = None
    selection_accuracy: float | None = None
    selection_merit: float | None = None

    @property
    def score(self) -> SelectionScore | None:
        """How it does on the selection split; None where nothing is chosen."""
        if self.selection_accuracy is None:
            return None
        return SelectionScore(
            self.selection_accuracy, self.selection_loss or 0.0, self.selection_merit
        )

    def __str__(self) -> str:
        text = f"loss {self.loss:.4f}, training accuracy {100 * self.accuracy:.1f} %"
        if self.selection_accuracy is not None:
            text += f", selection accuracy {100 * self.selection_accuracy:.1f} %"
        return f"epoch {self.epoch}: {text}"


def best_first(
    history: Sequence[EpochRow], start: SelectionScore | None = None
) -> dict[int, SelectionScore]:
    """Return the scores of the evaluated epochs, ordered by what is chosen by, then selection loss, then the earlier.

    Args:
        history: The epochs so far.
        start: Of the network before its first step, which is epoch 0; None where it does not count.
    """
    scores = [(row.epoch, row.score) for row in history]
    known = [(epoch, score) for epoch, score in [(0, start), *scores] if score is not None]
    return dict(sorted(known, key=lambda one: one[1].order, reverse=True))


def points_of(history: Sequence[EpochRow], start: SelectionScore | None = None) -> list[Point]:
    """Return the numbers of the epochs for a log, the start as step 0.

    Each is dated as if the epochs had followed one another until now, whenever the run was interrupted.

    Args:
        history: The epochs so far.
        start: As in `best_first`.
    """
    when = time.time() - sum(row.seconds for row in history)
    points = [Point(0, _selection_values(start), when)]
    for row in history:
        when += row.seconds
        values = {"train/loss": row.loss, "train/accuracy": row.accuracy}
        points.append(Point(row.epoch, {**values, **_selection_values(row.score)}, when))
    return points


def _selection_values(score: SelectionScore | None) -> dict[str, float]:
    values = (
        {}
        if score is None
        else {"accuracy": score.accuracy, "loss": score.loss, "merit": score.merit}
    )
    return {f"selection/{name}": value for name, value in values.items() if value is not None}


def why_ended(
    history: Sequence[EpochRow], epochs: int, patience: int, start: SelectionScore | None = None
) -> str:
    """Return why no further epoch is trained; "" while one is.

    Args:
        history: The epochs so far.
        epochs: How many there are to be at most.
        patience: Epochs without a better one on the selection split after which it ends; 0 for never.
        start: As in `best_first`.
    """
    if epochs == 0:
        return "no epoch was asked for"
    if len(history) >= epochs:
        return "all epochs are trained"
    best = next(iter(best_first(history, start)), None)
    if patience and best is not None and len(history) - best >= patience:
        return f"early stopping after {patience} epochs without a better one on the selection split"
    return ""
