"""Successive halving: all heads for a little while, the better ones for longer.

Heads that are compared by folds are trained in all of them at once, and stay or go in all of them.

Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016. At the end of a rung the heads are evaluated on the selection rows; one of `keep` stays.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.lazy_rows import Rows
from onepass.classify.heads.neural.batches import (
    FeatureBatch,
    HeadSettings,
    SharedSettings,
    batches,
    steps_of,
)
from onepass.classify.heads.neural.network import Networks
from onepass.classify.metrics import TOP1, Metric
from onepass.classify.search.learning_curve import CurvePoint, LearningCurve, Snapshot
from onepass.classify.search.sweep_state import StateFile

SAVE_EVERY = 10.0  # seconds; 64 heads of 200 classes are a quarter of a gigabyte
# The epochs that a choice is made among: about as many as other heads have settings. The best of a
# hundred neighbouring epochs would be a lucky one, and its selection accuracy an exaggeration.
CHECKPOINTS = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135)
GROWTH = 3  # times longer a rung's end lies than the one before


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long heads are trained.

    Attributes:
        epochs: Of the heads that are never dropped.
        keep: One head of so many stays after a rung; 1 keeps all of them to the end.
        patience: Checkpoints beyond the peak of a single head after which it stops; 0: it never does.
    """

    epochs: int
    keep: int = 4
    patience: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.keep < 1 or self.patience < 0:
            raise InvalidInputError(
                "expected at least 1 epoch, 1 head kept of 1 or more and no negative patience, "
                f"received {self.epochs}, {self.keep} and {self.patience}"
            )

    def rungs(self, heads: int, steps: int) -> list[tuple[int, int]]:
        """Return (heads, step at which the rung ends) of each rung.

        Args:
            heads: How many begin.
            steps: Of an epoch.
        """
        counts = [heads]
        while self.keep > 1 and counts[-1] > 1:
            counts.append(-(-counts[-1] // self.keep))
        last, total = len(counts) - 1, self.epochs * steps
        return [(c, max(1, round(total / GROWTH ** (last - k)))) for k, c in enumerate(counts)]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that heads are trained and compared on: of the selection split, or of a fold.

    Attributes:
        fit: Standardised rows (n, D) float32 and their classes (n,).
        selection: Rows that they are evaluated on, in the same form.
    """

    fit: tuple[Rows, np.ndarray]
    selection: tuple[Rows, np.ndarray]


class SuccessiveHalving:
    """Heads that are trained together until one is left; see `run`.

    Args:
        settings: One for each head.
        shared: What the heads share.
        schedule: How long they are trained, and how many stay.
        parts: One, or those of all folds; figures are then means by the rows that are held out.
        classes: K.
        note: Called with the state of the best head as text.
        metric: What they are compared by.
        state: Where an interrupted run resumes from; written after each rung, and after an epoch where
            `SAVE_EVERY` seconds have passed.
    """

    def __init__(
        self,
        settings: list[HeadSettings],
        shared: SharedSettings,
        schedule: Schedule,
        parts: list[Part],
        classes: int,
        note: Callable[[str], None] | None = None,
        metric: Metric = TOP1,
        state: StateFile | None = None,
    ) -> None:
        self.schedule, self.parts = schedule, parts
        self.shared, self.note, self.metric, self.state = shared, note, metric, state
        self.networks = [
            Networks(settings, shared, X.shape[1], classes, numbers)
            for X, numbers in (part.fit for part in parts)
        ]
        self.curves = [LearningCurve() for _ in settings]
        self.epoch_steps = min(steps_of(len(part.fit[0]), shared.batch_size) for part in parts)
        self.alive = set(range(len(settings)))
        self.step = 0

    def run(self) -> list[LearningCurve]:
        """Train and evaluate; return what became of each head, in the order of the settings."""
        self._resume()
        sources = [
            batches(*part.fit, self.shared, self.step, self.epoch_steps) for part in self.parts
        ]
        for heads, end in self.schedule.rungs(len(self.curves), self.epoch_steps):
            if heads < len(self.alive):
                self.alive = set(sorted(self.alive, key=self._rank)[:heads])
                for networks in self.networks:
                    networks.keep(self.alive)
            if 0 < self.step < end:
                self._save()
            written = time.monotonic()
            while self.step < end and not self._past_peak():
                self._train(
                    sources, min(end, (self.step // self.epoch_steps + 1) * self.epoch_steps)
                )
                if self.step < end and time.monotonic() > written + SAVE_EVERY:
                    self._save()
                    written = time.monotonic()
        self._save()
        return self.curves

    def _resume(self) -> None:
        found = self.state.restore(self.networks, self.curves) if self.state else None
        if found:
            self.alive, self.step = found
            if self.note:
                self.note(f"resuming after epoch {self.step / self.epoch_steps:.3g}")

    def _save(self) -> None:
        if self.state:
            self.state.save(self.networks, self.curves, self.alive, self.step)

    def _train(self, sources: list[Iterator[FeatureBatch]], stop: int) -> None:
        """Train until step `stop`, evaluate the heads, and extend their curves."""
        trained, evaluated = np.zeros((len(self.curves), 2)), np.zeros((len(self.curves), 3))
        rows = sum(len(part.selection[1]) for part in self.parts)
        for networks, source, part in zip(self.networks, sources, self.parts, strict=True):
            share = len(part.selection[1]) / rows
            trained += share * networks.train(source, stop - self.step)
            evaluated += share * networks.evaluate(*part.selection, self.metric)
        self.step = stop
        whole, rest = divmod(stop, self.epoch_steps)
        epoch = stop / self.epoch_steps if rest else whole
        checkpoint = not rest and whole in (*CHECKPOINTS, self.schedule.epochs)
        for member in self.alive:
            (train_loss, train_accuracy), (loss, accuracy, merit) = (
                trained[member],
                evaluated[member],
            )
            curve = self.curves[member]
            curve.points.append(
                CurvePoint(
                    epoch,
                    _rounded(train_loss),
                    round(float(train_accuracy), 5),
                    _rounded(loss),
                    round(float(accuracy), 5),
                    None if self.metric is TOP1 else _rounded(merit),
                )
            )
            if checkpoint and np.isfinite(loss):
                self._remember(member, whole, (float(accuracy), float(loss), float(merit)))
        if self.note:
            best = min(self.alive, key=self._rank)
            who = f"{len(self.alive)} heads, " if len(self.curves) > 1 else ""
            self.note(f"{who}epoch {epoch:.3g}: selection top-1 {100 * evaluated[best, 1]:.1f} %")

    def _remember(self, member: int, epochs: int, figures: tuple[float, float, float]) -> None:
        """Keep a head's weights as they are now; where there are many heads, only the best of each.

        Args:
            member: The head.
            epochs: So far.
            figures: Accuracy, loss and merit on the selection rows.
        """
        curve, (_, loss, merit) = self.curves[member], figures
        if len(self.curves) > 1:
            if curve.best and (-curve.best.merit, curve.best.loss) <= (-merit, loss):
                return
            curve.snapshots.clear()
        arrays = [array for networks in self.networks for array in networks.arrays(member)]
        curve.snapshots.append(Snapshot(epochs, *figures, arrays))

    def _past_peak(self) -> bool:
        """Say whether the only head left is clearly past its best."""
        if not self.schedule.patience or len(self.alive) > 1:
            return False
        (member,) = self.alive
        curve = self.curves[member]
        best = curve.best
        if not best:
            return False
        # A metric of a few hundred rows is noisy: an epoch is worse only if its log-loss has risen too.
        worse = [
            point
            for point in curve.points
            if point.epoch in CHECKPOINTS
            and point.epoch > best.epochs
            and (point.selection_loss is None or point.selection_loss > best.loss)
        ]
        return len(worse) >= self.schedule.patience

    def _rank(self, member: int) -> tuple[float, float, int]:
        """Order heads by their last evaluation, the best first."""
        last = self.curves[member].points[-1]
        loss = np.inf if last.selection_loss is None else last.selection_loss
        return -last.merit, loss, member


def _rounded(figure: float) -> float | None:
    return round(float(figure), 5) if np.isfinite(figure) else None
