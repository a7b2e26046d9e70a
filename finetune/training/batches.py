"""Which images each step sees, in an order that depends on the seed only, and how they get there."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from onepass.cache.memory_map import release
from onepass.classify.metrics import TOP1, Metric
from onepass.extract.backend import on_accelerator
from onepass.extract.stream.engine import Channel
from onepass.finetune.augmentation import draw, draw_order, orientations_of
from onepass.finetune.recipes import Augmentation
from onepass.finetune.training import hosts
from onepass.finetune.training.frozen_rows import FrozenRows
from onepass.finetune.training.parallel import read_share

RESIDENT_BYTES = 8_000_000_000  # of pixels that may lie on an accelerator


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled images, and which of them a training may look at.

    Attributes:
        pixels: All rows of the data set, uint8 (N, H, W, C).
        labels: (N,) int32.
        fit: (n,) the rows to train on, ascending.
        selection: The rows, none of them among `fit`, on which epochs are chosen, ascending; with None
            all epochs are trained and the last weights kept.
        metric: What they are chosen by.
        class_weights: As `onepass.finetune.training.step.TrainStep` takes them.
        frozen: What frozen layers make of the images; None where that is computed in each step.
    """

    pixels: np.ndarray
    labels: np.ndarray
    fit: np.ndarray
    selection: np.ndarray | None = None
    metric: Metric = TOP1
    class_weights: np.ndarray | None = None
    frozen: FrozenRows | None = None


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The order of all images over all epochs, cut into steps.

    A batch that an epoch leaves incomplete is filled with the first images of the next epoch, which then
    starts after them, so every image is seen once per epoch and no batch is short.

    Attributes:
        rows: (n,) rows to train on.
        batch: Images per step, at most n.
        seed: Of the order and the draws.
        augmentation: What may be drawn.
        pixel_shape: (H, W, C) of a stored image.
    """

    rows: np.ndarray
    batch: int
    seed: int
    augmentation: Augmentation
    pixel_shape: tuple[int, ...]
    _orders: dict[int, np.ndarray] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def steps(self, epochs: int) -> int:
        """Return how many steps this many epochs have in all."""
        return -(-epochs * len(self.rows) // self.batch)

    def step_rows(self, epoch: int, place: int) -> np.ndarray:
        """Return the rows (batch,) of a step: `place` counts from 0 in each epoch."""
        count = len(self.rows)
        first = (self.steps(epoch) + place) * self.batch - epoch * count
        order = self._order(epoch)
        if first + self.batch <= count:
            return order[first : first + self.batch]
        return np.concatenate([order, self._order(epoch + 1)])[first : first + self.batch]

    def _order(self, epoch: int) -> np.ndarray:
        """Return the rows in the order of an epoch, drawn once: for each step it took longer than a GPU's step."""
        order = self._orders.get(epoch)
        if order is None:
            order = draw_order(self.rows, self.seed, epoch)
            for former in [known for known in self._orders if known < epoch]:
                self._orders.pop(former, None)
            self._orders[epoch] = order
        return order

    def draws(self, epoch: int, place: int) -> dict[str, np.ndarray]:
        """Return the random changes of a step's images."""
        return draw(self.augmentation, self.pixel_shape, self.seed, epoch, place, self.batch)


class Feed:
    """Gives the steps of an epoch their arrays: (pixels, labels, draws).

    On an accelerator all pixels that are trained on lie on the device, where they fit and one process trains; elsewhere
    a thread reads the next batches while the device computes. Where it is kept, what frozen layers made of the
    images takes the place of pixels and draws.

    Args:
        plan: Which rows.
        examples: What they are rows of.
    """

    def __init__(self, plan: StepPlan, examples: Examples) -> None:
        self.plan, self.pixels, self.labels = plan, examples.pixels, examples.labels
        self.frozen = examples.frozen
        one = int(np.prod(self.pixels.shape[1:]))
        self.resident: Any = None
        if on_accelerator() and hosts.count() == 1 and one * len(plan.rows) <= RESIDENT_BYTES:
            self.resident = keras.ops.convert_to_tensor(self.pixels[plan.rows])

    def prepare(self, epoch: int, place: int, stop: Callable[[], str]) -> str:
        """Compute what frozen layers make of the images of an epoch from the step `place` on, where that is kept.

        Returns:
            The reason to stop that `stop()` gave; "" if it gave none.
        """
        if self.frozen is None:
            return ""
        steps = self._steps(epoch, place)
        rows = [self.plan.step_rows(epoch, step) for step in steps]
        orientations = [self._orientations(epoch, step) for step in steps]
        return self.frozen.compute(np.concatenate(rows), np.concatenate(orientations), stop)

    def epoch(self, epoch: int, place: int) -> Iterator[tuple[Any, np.ndarray, dict]]:
        """Yield the batches of an epoch from the step `place` on; closing the iterator ends the reader."""
        channel = Channel()
        reader = threading.Thread(target=self._read, args=(channel, epoch, place), name="reader")
        reader.start()
        try:
            yield from channel
        finally:
            channel.fail(_EndError())
            reader.join()

    def _read(self, channel: Channel, epoch: int, place: int) -> None:
        try:
            for step in self._steps(epoch, place):
                rows = self.plan.step_rows(epoch, step)
                if self.frozen is None:
                    seen, draws = self._pixels(rows), self.plan.draws(epoch, step)
                else:
                    seen, draws = self.frozen.maps(rows, self._orientations(epoch, step)), {}
                channel.put((seen, self.labels[rows], draws))
            channel.close()
        except BaseException as error:
            channel.fail(error)

    def _steps(self, epoch: int, place: int) -> range:
        return range(place, self.plan.steps(epoch + 1) - self.plan.steps(epoch))

    def _orientations(self, epoch: int, step: int) -> np.ndarray:
        return orientations_of(self.plan.draws(epoch, step), self.plan.batch)

    def _pixels(self, rows: np.ndarray) -> Any:
        if self.resident is None:
            return read_share(self.pixels, rows)
        return keras.ops.take(self.resident, np.searchsorted(self.plan.rows, rows), axis=0)

    def done(self) -> None:
        """Give the memory of the pixels that were read back to the system."""
        release(self.pixels)


class _EndError(Exception):
    """The epoch was ended from outside."""
