"""A job's compiled model on each device, with a batch size that fits and is fast."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onepass.cache.content import CONTENT_BYTES
from onepass.cache.errors import OnepassError
from onepass.cache.progress import Progress
from onepass.extract.backend import (
    Step,
    device_names,
    is_out_of_memory,
    on_accelerator,
    on_device,
)
from onepass.extract.engines.engine import (
    AGREES,
    FASTEST_ON_CPU,
    ConversionError,
    Engine,
    compiler,
    distance,
)
from onepass.extract.jobs import ExtractionJob
from onepass.extract.network.resize import draw_boxes, random_seed
from onepass.extract.stream.engine import BatchStep, PixelBatch

log = logging.getLogger(__name__)

CPU_BATCH, ACCELERATOR_BATCH = 64, 256
PILOT_STEPS = 2
TUNING_PAYS = 120  # seconds of work from which it is worth trying other batch sizes
# Seconds of work from which it is worth converting a network: that takes 2 to 4, and halves the work.
CONVERTING_PAYS = 8
FASTER = 1.1  # times Keras's rate, for an engine to be taken; less is noise


Compiled = Callable[..., tuple[BatchStep, float]]


@dataclass(frozen=True, slots=True)
class Extractor:
    """A compiled model.

    Attributes:
        steps: One for each device: a batch of rows → one array (batch, D) per file of the job.
        widths: D of each file.
        batch: Images a step.
        devices: What it runs on.
        rate: Rows per second of one device, measured on a few resident batches.
        compiled: Compiles it for another batch size; returns step and rate.
    """

    steps: tuple[BatchStep, ...]
    widths: tuple[int, ...]
    batch: int
    devices: list[str]
    rate: float
    compiled: Compiled

    @classmethod
    def build(cls, job: ExtractionJob, pixels: np.ndarray, batch: int = 0) -> "Extractor":
        """Build a job's model on every device and compile it for one batch size.

        Args:
            job: What to compute.
            pixels: All rows of the data set, uint8 (N, H, W, C); the first ones serve as pilot.
            batch: Images a step; 0 takes the device's default.

        Raises:
            OnepassError: Not even a single image fits into the device's memory.
            ConversionError: The job's engine cannot take the model.
        """
        from onepass.extract.network.model import build_extractor

        on_cpu = Engine.of(job.precision).name == "openvino"
        devices = ["cpu:0"] if on_cpu else device_names()
        models, compilers = [], []
        for device in devices:
            with on_device(device):
                models.append(
                    build_extractor(
                        job.spec,
                        job.size,
                        pixels.shape[1:],
                        job.outputs,
                        inference=True,
                        **job.model_options(),
                    )
                )
                compilers.append(compiler(models[-1], job.precision))

        def compiled(size: int, index: int = 0) -> tuple[BatchStep, float]:
            with on_device(devices[index]):
                step = _on_batches(compilers[index](size), job.view)
            return step, _rate(step, _pilot_batch(pixels, size))

        wanted = batch or (ACCELERATOR_BATCH if on_accelerator() else CPU_BATCH)
        size, (first, rate) = largest_fitting(compiled, wanted)
        others = [compiled(size, index)[0] for index in range(1, len(devices))]
        widths = tuple(int(output.shape[-1]) for output in models[0].outputs)
        return cls((first, *others), widths, size, devices, rate, compiled)

    def sustained_rate(self, pixels: np.ndarray, seconds: float, label: str) -> float:
        """Return images per second of all devices together, kept up for so long.

        Args:
            pixels: uint8 (N, H, W, C); the first ones are computed again and again.
            seconds: How long.
            label: Of the progress.
        """
        batch = _pilot_batch(pixels, self.batch)
        expected = self.rate * len(self.devices) * seconds
        with Progress(max(round(expected), self.batch), "images", label) as progress:
            while time.monotonic() - progress.start < seconds or not progress.done:
                under_way = [step(batch) for step in self.steps for _ in range(PILOT_STEPS)]
                for arrays in under_way:
                    for array in arrays:
                        np.asarray(array)
                progress.total = max(progress.total, progress.done + len(under_way) * self.batch)
                progress.advance(len(under_way) * self.batch)
            rate, progress.total = progress.rate, progress.done
        return rate

    def tuned(self, rows: int) -> "Extractor":
        """Return the same with the fastest of a few batch sizes, where it takes long enough to compute the rows."""
        if rows / self.rate <= TUNING_PAYS:
            return self
        size, (first, rate) = _fastest(self.compiled, self.batch, self.steps[0], self.rate)
        if size == self.batch:
            return self
        others = [self.compiled(size, index)[0] for index in range(1, len(self.devices))]
        return replace(self, steps=(first, *others), batch=size, rate=rate)


def settle_engine(
    job: ExtractionJob, extractor: Extractor, pixels: np.ndarray, rows: int
) -> tuple[ExtractionJob, Extractor]:
    """Give a job whose engine is open the faster one, where that is to be had, agrees, and pays.

    Args:
        job: Open.
        extractor: Of the job as it is, in Keras.
        pixels: All rows of the data set.
        rows: How many are to be computed.

    Returns:
        The job, settled, with the reason in words, and its extractor.
    """
    faster = Engine.of(FASTEST_ON_CPU)

    def stay(why: str) -> tuple[ExtractionJob, Extractor]:
        return job.computed_by(job.precision, why), extractor

    if faster.obstacle:
        return stay(faster.obstacle)
    if rows / extractor.rate < CONVERTING_PAYS:
        return stay(f"{rows:,} images are done before a conversion to OpenVINO would be")
    other = job.computed_by(FASTEST_ON_CPU, "")
    try:
        converted = Extractor.build(other, pixels, extractor.batch)
    except ConversionError as error:
        return stay(str(error))
    pilot = _pilot_batch(pixels, extractor.batch)
    pairs = zip(converted.steps[0](pilot), extractor.steps[0](pilot), strict=True)
    apart = max(distance(np.asarray(ours), np.asarray(keras)) for ours, keras in pairs)
    gain = converted.rate / extractor.rate
    if not apart <= AGREES:
        return stay(f"{faster} differs by {apart:.1%} on the first batch (allowed {AGREES:.0%})")
    if gain < FASTER:
        return stay(f"{faster} is {gain:.2f} times as fast")
    why = f"{gain:.1f} times as fast as Keras, and within {apart:.1%} of it on the first batch (allowed {AGREES:.0%})"
    return other.computed_by(FASTEST_ON_CPU, why), converted


def largest_fitting(build: Callable[[int], Any], size: int) -> tuple[int, Any]:
    """Return the first of `size`, `size / 2`, … that fits into memory, and what `build` made of it.

    Raises:
        OnepassError: Not even 1 fits.
    """
    while True:
        try:
            return size, build(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise OnepassError(
                    "the device's memory cannot hold the model and one image; choose a smaller --size or backbone"
                ) from error
        log.info(f"{size} images a step do not fit into the device's memory; trying {size // 2}")
        size //= 2


def _fastest(
    build: Callable, size: int, step: BatchStep, rate: float
) -> tuple[int, tuple[BatchStep, float]]:
    """Return the fastest of half, once, twice and four times the batch size, of those that fit."""
    best = size, (step, rate)
    for candidate in (size // 2, size * 2, size * 4):
        try:
            tried = build(candidate)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        if tried[1] > 1.02 * best[1][1]:  # less is noise
            best = candidate, tried
    return best


def _on_batches(step: Step, view: str) -> BatchStep:
    """Return the step as a function of a batch; a random view draws each image's box by its content."""
    seed = random_seed(view)
    if seed is None:
        return lambda batch: step(batch.pixels)

    def with_boxes(batch: PixelBatch) -> list[Any]:
        boxes = draw_boxes(seed, batch.contents)
        padding = np.repeat(boxes[-1:], len(batch.pixels) - len(boxes), axis=0)
        return step(batch.pixels, np.concatenate([boxes, padding]))

    return with_boxes


def _pilot_batch(pixels: np.ndarray, size: int) -> PixelBatch:
    rows = np.arange(size) % len(pixels)
    contents = np.zeros((size, CONTENT_BYTES), np.uint8)
    return PixelBatch(0, rows, contents, np.ascontiguousarray(pixels[rows]))


def _rate(step: BatchStep, batch: PixelBatch) -> float:
    """Return images per second, of the faster of two trials; a step before them compiles.

    A trial has `PILOT_STEPS` steps under way at a time, as the stream has.
    """
    times = []
    for steps in (1, PILOT_STEPS, PILOT_STEPS):
        begin = time.monotonic()
        for arrays in [step(batch) for _ in range(steps)]:
            for array in arrays:
                np.asarray(array)
        times.append(time.monotonic() - begin)
    return PILOT_STEPS * len(batch.pixels) / min(times[1:])
