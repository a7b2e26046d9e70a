"""What computes a network, and in which numbers: the `precision` of a feature key says both.

Keras's dtype policies (`float32`, `mixed_bfloat16`, …) stand for Keras; `openvino_float32` and
`openvino_bfloat16` for OpenVINO. Vectors of two precisions never lie in one file, because their keys differ.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from onepass.cache.errors import OnepassError, UsageError
from onepass.cache.features import OPENVINO, engine_and_numbers
from onepass.extract.backend import Step

if TYPE_CHECKING:
    import keras

FASTEST_ON_CPU = f"{OPENVINO}bfloat16"  # 1.9 times Keras's float32, see benchmarks/RESULTS.md
# How far vectors in bfloat16 may lie from Keras's in float32, by `distance`; 0.04 is usual.
AGREES = 0.1
ON_CPU = (FASTEST_ON_CPU, f"{OPENVINO}float32", "float32")

log = logging.getLogger(__name__)

Compiler = Callable[[int], Step]

# What may compute in Keras's place: a module with `obstacle(numbers)`, which says why it cannot here, and
# `convert(model, numbers)`, which returns a Compiler. Its precisions stand in `extract/config.py`.
ENGINES = {"openvino": "onepass.extract.engines.openvino_engine"}
TITLES = {"keras": "Keras", "openvino": "OpenVINO"}


class ConversionError(OnepassError, ValueError):
    """An engine cannot take a model."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What computes a network.

    Attributes:
        name: "keras", or one of `ENGINES`.
        numbers: What it computes in: float32, bfloat16, or Keras's mixture of either with float32.
    """

    name: str
    numbers: str

    @classmethod
    def of(cls, precision: str) -> "Engine":
        """Return that of a feature key's precision."""
        return cls(*engine_and_numbers(precision))

    def __str__(self) -> str:
        """Return both in words."""
        return f"{TITLES.get(self.name, self.name)} in {self.numbers}"

    @property
    def precision(self) -> str:
        """As a feature key says it."""
        return self.numbers if self.name == "keras" else f"{self.name}_{self.numbers}"

    @property
    def policy(self) -> str:
        """Dtype policy of the Keras model that it computes, or that Keras computes in its place."""
        return self.numbers if self.name == "keras" else "float32"

    @property
    def obstacle(self) -> str:
        """Why it cannot compute here; "" where it can."""
        if self.name == "keras":
            return ""
        return import_module(ENGINES[self.name]).obstacle(self.numbers)


def compiler(model: "keras.Model", precision: str = "float32") -> Compiler:
    """Return what compiles a model for a number of images at a time.

    Args:
        model: uint8 (B, H, W, C), and for a random view boxes (B, 5) float32 → arrays; of the engine's `policy`.
        precision: Of the feature key.

    Returns:
        A function of B to a function of the model's inputs as arrays, to arrays that may still be being
        computed; `numpy.asarray` waits for them.

    Raises:
        ConversionError: OpenVINO cannot take the model.
    """
    engine = Engine.of(precision)
    if engine.name != "keras":
        return import_module(ENGINES[engine.name]).convert(model, engine.numbers)
    from onepass.extract.engines.keras_engine import compile_step

    return lambda batch: compile_step(model, batch)


def in_place_of(precision: str, asked: str = "auto") -> Engine:
    """Return what computes new vectors beside stored ones: what computed those, or Keras where it cannot.

    Args:
        precision: Of the stored vectors.
        asked: "auto", or the engine that is to compute them whatever the stored ones are of.

    Raises:
        UsageError: That engine cannot compute here.
    """
    stored = Engine.of(precision)
    if asked == "keras":
        return Engine("keras", stored.policy)
    if asked == "auto":
        return stored if not stored.obstacle else stand_in(stored, stored.obstacle)
    wanted = stored if stored.name == asked else Engine(asked, "float32")
    if wanted.obstacle:
        raise UsageError(f"--engine {asked}: {wanted.obstacle}")
    return wanted


def stand_in(engine: Engine, why: str) -> Engine:
    """Return Keras in the place of an engine, and say so."""
    keras = Engine("keras", engine.policy)
    log.info(
        f"{keras} computes in place of {engine}: {why}. Vectors differ by up to {AGREES:.0%}, which may change an "
        "answer that is close"
    )
    return keras


def distance(vectors: np.ndarray, others: np.ndarray) -> float:
    """Return how far vectors (n, D) lie from others: the root mean square of the difference, as a share of theirs."""
    scale = float(np.linalg.norm(others.astype(np.float64)))
    return float(np.linalg.norm(vectors.astype(np.float64) - others)) / max(scale, 1e-6)
