"""The training loop: epochs that can be killed at any moment and resume as if they had not been."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from onepass.cache.artifacts import from_json, record, to_json
from onepass.cache.errors import CorruptFileError, OnepassError
from onepass.cache.progress import Progress
from onepass.extract.backend import (
    device_failures,
    device_names,
    is_out_of_memory,
    on_accelerator,
)
from onepass.extract.stream.gpu_use import watch_gpus
from onepass.finetune.recipes import Recipe
from onepass.finetune.session.checkpoint import (
    all_finite,
    load_variables,
    named_slots,
    named_variables,
    save_variables,
)
from onepass.finetune.session.history import (
    DivergedError,
    EpochRow,
    SelectionScore,
    best_first,
    why_ended,
)
from onepass.finetune.training import hosts
from onepass.finetune.training.batches import Examples, Feed, StepPlan
from onepass.finetune.training.layers import depth_groups, rate_factors
from onepass.finetune.training.model import Classifier
from onepass.finetune.training.optimizer import build_optimizer
from onepass.finetune.training.parallel import devices_for
from onepass.finetune.training.selection import BestEpochs, Chosen, Evaluator, only_the_last
from onepass.finetune.training.step import TrainStep, averaged

log = logging.getLogger(__name__)

FETCH_EVERY = 16  # steps between looks at the loss, at most: each look waits for the device
LOOK_EVERY = 1.0  # seconds between them, at most


@record
class TrainingState:
    """Where a training stands; it lies in the checkpoint beside the variables.

    Attributes:
        history: The finished epochs.
        place: The next step of the current epoch, from 0.
        loss: Sum of that epoch's losses so far (nats).
        correct: Its right answers so far.
        seconds: Its time so far.
        start: How the network did before its first step; None where that does not count.
    """

    history: list[EpochRow]
    place: int
    loss: float
    correct: int
    seconds: float
    start: SelectionScore | None = None


class Training:
    """Trains a classifier on rows of pixels; its whole state is one checkpoint file.

    Args:
        classifier: Warm-started.
        examples: What it is trained on, and what epochs are chosen on.
        recipe: How.
        seed: Decides order and augmentation.
        checkpoint: The file to resume from, and to write to.
        every: Seconds between checkpoints.
        start_counts: Whether the network before its first step may be chosen, as epoch 0.
    """

    def __init__(
        self, classifier: Classifier, examples: Examples, recipe: Recipe, seed: int, checkpoint: Path,
        every: float = 120.0, start_counts: bool = True,
    ) -> None:  # fmt: skip
        self.classifier, self.recipe, self.start_counts = classifier, recipe, start_counts
        self.checkpoint, self.every, self.examples = checkpoint, every, examples
        rows, shape = examples.fit, examples.pixels.shape[1:]
        batch = min(recipe.batch, len(rows))
        self.plan = StepPlan(rows, batch, seed, recipe.augmentation, shape)
        self.feed = Feed(self.plan, examples)
        self.trainer = trainer = classifier.trainer  # of images of the epoch's size
        groups = depth_groups(classifier.backbone)
        factors = rate_factors(trainer.trainable_variables, groups, recipe.layer_decay)
        top = {id(v) for v in trainer.top.trainable_variables}
        held = [id(v) not in top for v in trainer.trainable_variables]
        self.optimizer = build_optimizer(recipe, factors, held, self.plan.steps)
        self.step = self._compiled(parts=1)
        predictor = classifier.predictor
        self.evaluate = None if examples.selection is None else Evaluator(predictor, examples)
        self.only_last = only_the_last(examples.selection, recipe)
        kept = 2 if self.only_last else recipe.soup  # the last and the start
        self.best = BestEpochs(checkpoint.parent / "epochs", predictor, kept)
        self.history: list[EpochRow] = []
        self.start: SelectionScore | None = None
        self.place = 0  # the next step of the current epoch
        self.fetched = 0  # its steps that count in its loss so far
        self.loss = self.seconds = 0.0  # of the current epoch so far
        self.correct = 0
        self.images, self.timed = 0, 0.0  # of this process, for the rate
        self.use = watch_gpus(len(self.devices))  # the same
        self.saved = self.clock = time.monotonic()
        if checkpoint.exists():
            self._resume()

    @property
    def steps(self) -> int:
        """Steps of the current epoch."""
        epoch = len(self.history)
        return self.plan.steps(epoch + 1) - self.plan.steps(epoch)

    @property
    def images_per_second(self) -> float | None:
        """How fast this process trained, evaluation and the first step apart; None before it did."""
        return self.images / self.timed if self.timed else None

    @property
    def scores(self) -> dict[int, SelectionScore]:
        """How the epochs so far that may be kept did, best first; 0 is the start."""
        return best_first(self.history[-1:] if self.only_last else self.history, self.start)

    @property
    def ended(self) -> str:
        """Why no further epoch is trained; "" while one is."""
        return why_ended(self.history, self.recipe.epochs, self.recipe.patience, self.start)

    def run(
        self, stop: Callable[[], str], until: int | None = None,
        told: Callable[[], None] = lambda: None,
    ) -> str:  # fmt: skip
        """Train until all epochs are finished, or until `stop()` gives a reason; a checkpoint is written either way.

        Args:
            stop: Asked after each step.
            until: How many epochs are enough for now.
            told: Called at the beginning and whenever an epoch is finished and kept.

        Returns:
            Why it stopped early; "" if it did not.

        Raises:
            DivergedError: The loss is not finite; the last checkpoint stays.
            DeviceError: The accelerator failed; the last checkpoint stays.
        """
        with device_failures():
            if not (self.history or self.place or self.start):
                self._evaluate_start()
            told()
            while not self.ended and (until is None or len(self.history) < until):
                reason = self._run_epoch(len(self.history), stop)
                if reason:
                    self.save()
                    return reason
                self._finish_epoch()
                told()
        return ""

    def conclude(self) -> Chosen:
        """Put the weights that are kept into the model, and say which they are."""
        if self.evaluate and self.only_last:
            chosen = self.best.soup(dict([*self.scores.items()][:1]), self.evaluate)
            rows = len(self.evaluate.rows)
            why = f"the last epoch; {rows} selection images only tell it from the start"
            return chosen if chosen.epochs == (0,) else replace(chosen, why=why)
        if self.evaluate:
            return self.best.soup(self.scores, self.evaluate)
        if not self.history:
            return Chosen((0,), None, None, "the start; nothing was trained")
        for average, variable in zip(
            self.optimizer.averages, self.classifier.trainer.trainable_variables, strict=False
        ):
            variable.assign(average)
        return Chosen((len(self.history),), None, None, "the last epoch; nothing was chosen")

    def _evaluate_start(self) -> None:
        """Let the network as it is before its first step be a candidate like any epoch."""
        if self.evaluate and self.start_counts:
            self.start = self.evaluate()
            self.best.keep(0, self.scores)
            log.info(f"epoch 0, the start: selection accuracy {100 * self.start.accuracy:.1f} %")

    def _run_epoch(self, epoch: int, stop: Callable[[], str]) -> str:
        label = f"epoch {epoch + 1} of {self.recipe.epochs}"
        waiting: list[tuple[Any, Any]] = []
        self._grow(epoch)
        if self.recipe.first_size < 1:
            label += f" at {self.trainer.augment.size} px"
        self.clock = time.monotonic()
        if reason := self.feed.prepare(epoch, self.place, stop):
            return reason
        first, reason, batch = self.place + 1, "", self.plan.batch
        seen = self.place * batch
        total = self.steps * batch
        with (
            Progress(total, "images", label, done=seen, note=self._note) as progress,
            ExitStack() as stack,
            closing(self.feed.epoch(epoch, self.place)) as batches,  # type: ignore[type-var]
        ):
            for arrays in batches:
                waiting.append(self._stepped(arrays))
                self.place += 1
                ends = self.place == self.steps
                reason, due = ("", False) if ends else self._asked(stop)
                if self.place == first:
                    self._fetch(waiting)
                    progress.skip(batch)  # it compiles
                    stack.enter_context(self.use)
                    begin = looked = time.monotonic()
                look = time.monotonic() - looked >= LOOK_EVERY or len(waiting) == FETCH_EVERY
                if waiting and (look or reason or ends or due):
                    steps = len(waiting)  # what is only under way is not done
                    self._fetch(waiting)
                    looked = time.monotonic()
                    progress.advance(steps * batch)
                if due and not reason:
                    self.save()
                if reason:
                    break
            self._tick()
            self.images += progress.done - seen - batch
            self.timed += time.monotonic() - begin
        self.feed.done()
        return reason

    def _grow(self, epoch: int) -> None:
        """Make the images as large as an epoch wants them."""
        size = self.recipe.size_of(epoch, self.classifier.trainer.augment.size)
        if size != self.trainer.augment.size:
            self.step.sync()
            self.trainer = self.classifier.trainer_at(size)
            self.step = self._compiled(self.step.parts)

    def _asked(self, stop: Callable[[], str]) -> tuple[str, bool]:
        """Return why to stop now, and whether a checkpoint is due; several processes agree on both."""
        reason, due = stop(), time.monotonic() - self.saved >= self.every
        if hosts.count() == 1:
            return reason, due
        every = FETCH_EVERY if on_accelerator() else 1
        if self.place % every:  # to agree, they wait for the step
            return "", False
        wish = hosts.largest(2 if reason else int(due))
        return (reason or "another process stops") if wish == 2 else "", wish > 0

    def _compiled(self, parts: int) -> TrainStep:
        self.untried = True
        return TrainStep(
            self.trainer, self.optimizer, self.recipe.label_smoothing, parts,
            devices_for(self.plan.batch // parts), self.examples.class_weights, self.examples.frozen is not None,
        )  # fmt: skip

    def _stepped(self, arrays: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        """Take a step; where the memory does not hold the batch, halve it from now on."""
        while True:
            try:
                loss, correct = self.step(*arrays)
                if self.untried:
                    float(loss)  # an error of the device comes when it is waited for
                    self.untried = False
                return loss, correct
            except Exception as error:
                if not is_out_of_memory(error) or hosts.count() > 1:  # one alone cannot change it
                    raise
                parts = self.step.parts * 2
                if self.plan.batch % parts:
                    raise OnepassError(
                        f"the device's memory does not hold {self.plan.batch // self.step.parts} images per step; "
                        "choose a smaller --size or backbone, or a --batch that is a power of two"
                    ) from error
            log.info(f"{self.plan.batch * 2 // parts} images at once do not fit into the device's memory; adding up {parts} parts of {self.plan.batch // parts}")  # fmt: skip
            self.step.sync()
            self.step = self._compiled(parts)

    def _finish_epoch(self) -> None:
        seen = self.steps * self.plan.batch
        loss = self.loss / self.steps
        row = EpochRow(len(self.history) + 1, loss, self.correct / seen, self.seconds)
        if self.evaluate:
            self.step.sync()
            with averaged(self.classifier.trainer, self.optimizer):
                score = self.evaluate()
                row = EpochRow(
                    row.epoch, row.loss, row.accuracy, row.seconds,
                    selection_loss=score.loss, selection_accuracy=score.accuracy,
                    selection_merit=score.merit,
                )  # fmt: skip
                self.history.append(row)
                self.best.keep(row.epoch, self.scores)
        else:
            self.history.append(row)
        self.place, self.fetched, self.loss, self.correct, self.seconds = 0, 0, 0.0, 0, 0.0
        self.save()
        self.best.tidy(self.scores)
        full = self.classifier.trainer.augment.size
        where = f" (at {full} px)" if self.evaluate and self.trainer.augment.size < full else ""
        log.info(str(row).replace(":", f" of {self.recipe.epochs}:", 1) + where)

    def _fetch(self, waiting: list[tuple[Any, Any]]) -> None:
        for loss, correct in waiting:
            self.loss += float(loss)
            self.correct += int(correct)
        self.fetched = self.place
        waiting.clear()
        if not math.isfinite(self.loss):
            self._diverged("the loss is not a number")

    def _diverged(self, what: str) -> None:
        kept = "the last checkpoint is kept" if self.checkpoint.exists() else "no checkpoint yet"
        raise DivergedError(
            f"epoch {len(self.history) + 1}, step {self.place}: {what}; {kept} ({self.checkpoint}). "
            f"Lower --learning-rate (now {self.recipe.learning_rate:g}) and give the run a new name with --run"
        )

    def _note(self) -> str:
        loss = f"loss {self.loss / self.fetched:.3f}" if self.fetched else ""
        return " · ".join(filter(None, [loss, str(self.use)]))

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds, self.clock = self.seconds + now - self.clock, now

    def save(self) -> None:
        """Write model, optimiser and place in the epoch, atomically.

        Raises:
            DivergedError: A weight is not finite; the checkpoint before stays.
        """
        self.step.sync()
        groups = self._groups()
        if not all_finite(groups["model"]):
            self._diverged("a weight is not a number")
        if self.place:
            self._tick()
        state = TrainingState(
            self.history, self.place, self.loss, self.correct, self.seconds, self.start
        )
        save_variables(self.checkpoint, groups, to_json(state))
        self.saved = time.monotonic()

    def _resume(self) -> None:
        found = load_variables(self.checkpoint, self._groups())
        try:
            state = from_json(TrainingState, found)
        except CorruptFileError as error:
            raise CorruptFileError(
                f"{self.checkpoint}: {error}; delete it to start over"
            ) from error
        self.step.forget()
        self.history, self.start = state.history, state.start
        self.place = self.fetched = state.place
        self.loss, self.correct, self.seconds = state.loss, state.correct, state.seconds
        log.info(f"resuming after epoch {len(self.history)}, step {self.place} of {self.steps}")

    def _groups(self) -> dict[str, dict[str, Any]]:
        model = named_variables(self.classifier.trainer)
        return {"model": model, "optimizer": named_slots(self.optimizer, model)}

    @property
    def devices(self) -> list[str]:
        """What it trains on."""
        return device_names()[: self.step.devices]
