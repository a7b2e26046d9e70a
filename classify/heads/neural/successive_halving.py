"""Successive halving: all heads for a little while, the better ones for longer.

Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016. A rung ends with a look at the selection rows; one head of `keep` goes on.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.neural.batches import Batch, Setting, Training, batches, steps_of
from onepass.classify.heads.neural.network import Networks
from onepass.classify.heads.neural.sweep_state import Judged, Saved, Track

SAVE_EVERY = 10.0  # seconds; 64 heads of 200 classes are a quarter of a gigabyte
# The epochs that a choice is made among: about as many as other heads have settings. The best of a
# hundred neighbouring epochs would be a lucky one, and its selection accuracy an exaggeration.
JUDGED = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135)
GROWTH = 3  # times longer a rung's end lies than the one before


@dataclass(frozen=True, slots=True)
class Plan:
    """How long heads are trained.

    Attributes:
        epochs: Of the heads that are never dropped.
        keep: One head of so many goes on after a rung; 1 keeps all of them to the end.
        patience: Judged epochs beyond the peak of a single head after which it stops; 0: it never does.
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


@dataclass(slots=True)
class Race:
    """Heads that are trained together until one is left; see `run`.

    Args:
        settings: One for each head.
        training: What they share.
        plan: How long, and who goes on.
        fit: Standardised rows (n, D) float32 and their classes (n,).
        selection: Rows that they are judged on, in the same form.
        classes: K.
        note: Called with each entry of the best head as text.
        saved: Where an interrupted race goes on from; written after each rung, and after an epoch where
            `SAVE_EVERY` seconds have passed.
    """

    settings: list[Setting]
    training: Training
    plan: Plan
    fit: tuple[np.ndarray, np.ndarray]
    selection: tuple[np.ndarray, np.ndarray]
    classes: int
    note: Callable[[str], None] | None = None
    saved: Saved | None = None

    def run(self) -> list[Track]:
        """Train and judge; return what became of each head, in the order of the settings."""
        X, numbers = self.fit
        networks = Networks(self.settings, self.training, X.shape[1], self.classes)
        tracks = [Track() for _ in self.settings]
        epoch = steps_of(len(X), self.training.batch_size)
        found = self.saved.restore(networks, tracks) if self.saved else None
        alive, step = found or (set(range(len(tracks))), 0)
        if found and self.note:
            self.note(f"going on after epoch {step / epoch:.3g}")
        source = batches(X, numbers, self.training, step)
        for heads, end in self.plan.rungs(len(tracks), epoch):
            if heads < len(alive):
                alive = set(sorted(alive, key=lambda m: (_rank(tracks[m]), m))[:heads])
                networks.keep(alive)
            if self.saved and 0 < step < end:
                self.saved.save(networks, tracks, alive, step)
            written = time.monotonic()
            while step < end and not self._past_peak(tracks, alive):
                stop = min(end, (step // epoch + 1) * epoch)
                self._advance(networks, tracks, alive, source, stop - step, stop / epoch)
                step = stop
                if self.saved and step < end and time.monotonic() > written + SAVE_EVERY:
                    self.saved.save(networks, tracks, alive, step)
                    written = time.monotonic()
        if self.saved:
            self.saved.save(networks, tracks, alive, step)
        return tracks

    def _advance(
        self,
        networks: Networks,
        tracks: list[Track],
        alive: set[int],
        source: Iterator[Batch],
        steps: int,
        epoch: float,
    ) -> None:
        """Take steps up to `epoch`, judge the heads, and write down how they do."""
        trained = networks.train(source, steps)
        judged = networks.judge(*self.selection)
        for member in alive:
            (loss, accuracy), track = judged[member], tracks[member]
            figures = (*trained[member], loss, accuracy)
            names = ("train_loss", "train_accuracy", "selection_loss", "selection_accuracy")
            row = {name: _rounded(f) for name, f in zip(names, figures, strict=True)}
            track.history.append({"epoch": int(epoch) if epoch == int(epoch) else epoch, **row})
            if np.isfinite(loss) and epoch in (*JUDGED, self.plan.epochs):
                self._keep_best(track, int(epoch), float(accuracy), float(loss), networks, member)
        if self.note:
            best = min(alive, key=lambda m: (_rank(tracks[m]), m))
            who = f"{len(alive)} heads, " if len(tracks) > 1 else ""
            self.note(f"{who}epoch {epoch:.3g}: selection {100 * judged[best, 1]:.1f} %")

    def _keep_best(
        self,
        track: Track,
        epochs: int,
        accuracy: float,
        loss: float,
        networks: Networks,
        member: int,
    ) -> None:
        """Remember a head as it is now; where there are many, only the best of each is kept."""
        best = track.best
        if len(self.settings) > 1:
            if best and (-best.accuracy, best.loss) <= (-accuracy, loss):
                return
            track.judged.clear()
        track.judged.append(Judged(epochs, accuracy, loss, networks.arrays(member)))

    def _past_peak(self, tracks: list[Track], alive: set[int]) -> bool:
        """Say whether the only head left is clearly past its best."""
        if not self.plan.patience or len(alive) > 1:
            return False
        track = tracks[min(alive)]
        if not track.best:
            return False
        # Accuracy on a few hundred rows is noisy: an epoch is worse only if its log-loss has risen too.
        worse = [
            row
            for row in track.history
            if row["epoch"] in JUDGED
            and row["epoch"] > track.best.epochs
            and (row["selection_loss"] is None or row["selection_loss"] > track.best.loss)
        ]
        return len(worse) >= self.plan.patience


def _rank(track: Track) -> tuple[float, float]:
    """Order heads by their last look at the selection rows, the best first."""
    last = track.history[-1]
    loss = last["selection_loss"]
    return -last["selection_accuracy"], np.inf if loss is None else loss


def _rounded(figure: float) -> float | None:
    return round(float(figure), 5) if np.isfinite(figure) else None
