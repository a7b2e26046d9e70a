"""The training loop: epochs that can be killed at any moment and go on as if they had not been."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cache.errors import OnepassError
from cache.progress import Progress, say
from finetune.augmentation import draw, draw_order
from finetune.checkpoint import load_arrays, model_variables, save_arrays
from finetune.model import Classifier
from finetune.recipes import Recipe
from finetune.step import TrainStep

FETCH_EVERY = 16  # steps between looks at the loss: each look waits for the device


class DivergedError(OnepassError, ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One finished epoch.

    Attributes:
        epoch: From 1.
        loss: Mean cross-entropy (nats) of the training images as they were seen.
        accuracy: Top-1 of the same, 0 … 1.
        seconds: Time it took in this process.
    """

    epoch: int
    loss: float
    accuracy: float
    seconds: float


class Training:
    """Trains a classifier on rows of pixels; its whole state is one checkpoint file.

    Args:
        classifier: Warm-started.
        pixels: All rows of the data set, uint8 (N, H, W, C).
        labels: (N,) int32.
        rows: Which of them to train on.
        recipe: How.
        seed: Decides order and augmentation.
        checkpoint: The file to go on from, and to write to.
    """

    def __init__(
        self, classifier: Classifier, pixels: np.ndarray, labels: np.ndarray, rows: np.ndarray,
        recipe: Recipe, seed: int, checkpoint: Path,
    ) -> None:  # fmt: skip
        self.classifier, self.pixels, self.labels, self.rows = classifier, pixels, labels, rows
        self.recipe, self.seed, self.checkpoint = recipe, seed, checkpoint
        self.batch = min(recipe.batch, len(rows))
        self.optimizer = keras.optimizers.Adam(recipe.learning_rate)
        self.step = TrainStep(classifier.trainer, self.optimizer)
        self.history: list[EpochRow] = []
        self.place = self.fetched = (
            0  # the next step of the epoch under way; steps that count in its loss
        )
        self.loss = self.seconds = 0.0  # of that epoch so far
        self.correct = 0
        if checkpoint.exists():
            self._resume()

    @property
    def steps(self) -> int:
        """Steps of an epoch; images that do not fill the last batch wait for another epoch."""
        return len(self.rows) // self.batch

    def run(self, stop: Callable[[], str]) -> str:
        """Train until all epochs are done, or until `stop()` gives a reason; a checkpoint is written either way.

        Returns:
            Why it stopped early; "" if it is done.

        Raises:
            DivergedError: The loss is not finite; the last checkpoint stays.
        """
        while len(self.history) < self.recipe.epochs:
            reason = self._run_epoch(len(self.history), stop)
            if reason:
                self.save()
                return reason
            row = EpochRow(
                len(self.history) + 1,
                self.loss / self.steps,
                self.correct / (self.steps * self.batch),
                self.seconds,
            )
            self.history.append(row)
            self.place, self.fetched, self.loss, self.correct, self.seconds = 0, 0, 0.0, 0, 0.0
            self.save()
            say(
                f"epoch {row.epoch} of {self.recipe.epochs}: loss {row.loss:.4f}, training accuracy {100 * row.accuracy:.1f} %"
            )
        return ""

    def _run_epoch(self, epoch: int, stop: Callable[[], str]) -> str:
        order = draw_order(self.rows, self.seed, epoch)
        label = f"epoch {epoch + 1} of {self.recipe.epochs}"
        begin, waiting = time.monotonic(), []
        seen = self.place * self.batch
        with Progress(
            self.steps * self.batch, "images", label, done=seen, note=self._loss_note
        ) as progress:
            while self.place < self.steps:
                waiting.append(self.step(*self._images(order, epoch)))
                self.place += 1
                ends = self.place == self.steps
                reason = "" if ends else stop()
                if len(waiting) == FETCH_EVERY or reason or ends:
                    self._fetch(waiting)
                progress.advance(self.batch)
                if progress.done == seen + self.batch:
                    progress.restart_clock()  # the first step compiles
                if reason:
                    break
            self.seconds += time.monotonic() - begin
        return reason

    def _images(self, order: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray, dict]:
        rows = order[self.place * self.batch : (self.place + 1) * self.batch]
        shape = self.pixels.shape[1:]
        draws = draw(self.recipe.augmentation, shape, self.seed, epoch, self.place, len(rows))
        return self.pixels[rows], self.labels[rows], draws

    def _fetch(self, waiting: list[tuple[Any, Any]]) -> None:
        for loss, correct in waiting:
            self.loss += float(loss)
            self.correct += int(correct)
        self.fetched = self.place
        waiting.clear()
        if not math.isfinite(self.loss):
            raise DivergedError(
                f"epoch {len(self.history) + 1}, step {self.place}: the loss is not a number; the last checkpoint "
                f"{self.checkpoint} is kept. Lower --learning-rate (now {self.recipe.learning_rate:g})"
            )

    def _loss_note(self) -> str:
        return f"loss {self.loss / self.fetched:.3f}" if self.fetched else ""

    def save(self) -> None:
        """Write model, optimiser and place in the epoch, atomically."""
        self.step.sync()
        state = {
            "history": [asdict(row) for row in self.history],
            "place": self.place, "loss": self.loss, "correct": self.correct, "seconds": self.seconds,
        }  # fmt: skip
        save_arrays(self.checkpoint, self._groups(), state)

    def _resume(self) -> None:
        state = load_arrays(self.checkpoint, self._groups())
        self.history = [EpochRow(**row) for row in state["history"]]
        self.place = self.fetched = state["place"]
        self.loss = state["loss"]
        self.correct, self.seconds = state["correct"], state["seconds"]
        say(f"going on after epoch {len(self.history)}, step {self.place} of {self.steps}")

    def _groups(self) -> dict[str, list]:
        return {
            "model": model_variables(self.classifier.trainer),
            "optimizer": list(self.optimizer.variables),
        }
