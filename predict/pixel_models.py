"""Trained models on pixels: the arrays that each asks of the networks, and what it makes of them.

No network is built here: see `onepass.predict.pixel_classifier`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import numpy as np

from onepass.cache.artifacts import record
from onepass.cache.features import FeatureKey
from onepass.classify.ensemble import member_inputs
from onepass.classify.heads.base import Head
from onepass.classify.metrics import apply_temperature, softmax
from onepass.classify.protocol.views import mean_probabilities

BLOCK = 64  # rows that a head is asked for at a time
PIXELS = "pixels"  # the backbone of a baseline that looks at the shrunk image itself


@record
class VectorSpec:
    """Which vector of an image: the fields of a `FeatureKey` that its numbers depend on.

    Attributes:
        backbone: Name of the backbone; `PIXELS` for none.
        weights: Identity of its weights.
        size: Height and width that it sees (px).
        layer: Layer that is read; "" is the last one.
        view: How the image is looked at; "" is as it is.
        pooling: How a feature map becomes a vector.
        precision: Arithmetic of the backbone.
        dtype: Type that the numbers were stored in when the head was fitted, and are rounded to.
    """

    backbone: str
    weights: str
    size: int
    layer: str = ""
    view: str = ""
    pooling: str = "avg"
    precision: str = "float32"
    dtype: str = "float16"

    @classmethod
    def of(cls, key: FeatureKey) -> Self:
        """Return the specification of the vectors that a key stands for."""
        return cls(**{field.name: getattr(key, field.name) for field in fields(cls)})

    def rounded(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (n, D) float32 as they would have been stored."""
        most = np.finfo(self.dtype).max
        return np.clip(vectors, -most, most).astype(self.dtype)


@dataclass(frozen=True, slots=True)
class RunPass:
    """A forward pass of a fine-tuned network: logits (n, K) and the vectors (n, D) behind them.

    Attributes:
        run: DATASET/RUN.
        view: How the image is looked at.
        output: "logits" or "vectors".
    """

    run: str
    view: str = ""
    output: str = "logits"

    precision = "float32"


Wanted = VectorSpec | RunPass
Arrays = Mapping[Wanted, np.ndarray]


class PixelModel(Protocol):
    """What the networks' arrays mean: a probe, an ensemble, a run, or an average of several."""

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """The arrays that it is made of, each once."""

    @property
    def temperature(self) -> float:
        """Divides the logarithms of its probabilities."""

    @property
    def runs(self) -> dict[str, Callable[[], Any]]:
        """The fine-tuned networks behind it by DATASET/RUN; each is built when it is called."""

    @property
    def novelty_vectors(self) -> tuple[Wanted, ...]:
        """The vectors by which it is judged how far an image is from those that were learnt."""

    def probabilities(self, arrays: Arrays) -> np.ndarray:
        """Return the probabilities (n, K) float32 of n >= 1 images."""


@dataclass(frozen=True, slots=True)
class ProbeModel:
    """A head on vectors of frozen backbones.

    Attributes:
        views: The vectors that stand side by side, in the plain view and in each other one.
        head: Fitted.
        temperature: See `PixelModel`.
    """

    views: tuple[tuple[VectorSpec, ...], ...]
    head: Head
    temperature: float = 1.0

    precision = "float16"  # that a member's probabilities are rounded to in an average

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """See `PixelModel`."""
        return tuple(dict.fromkeys(spec for view in self.views for spec in view))

    @property
    def runs(self) -> dict[str, Callable[[], Any]]:
        """None."""
        return {}

    @property
    def novelty_vectors(self) -> tuple[Wanted, ...]:
        """Those of the plain view."""
        return self.views[0]

    def probabilities(self, arrays: Arrays) -> np.ndarray:
        """See `PixelModel`."""
        vectors = [side_by_side([arrays[spec] for spec in view]) for view in self.views]
        return tempered(head_probabilities(self.head, vectors), self.temperature)


class _OfMembers:
    """What an ensemble and an average have of their members."""

    __slots__ = ()
    members: tuple[Any, ...]
    weights: Any

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """See `PixelModel`."""
        return tuple(dict.fromkeys(one for member in self.members for one in member.wanted))

    @property
    def runs(self) -> dict[str, Callable[[], Any]]:
        """Those of the members."""
        return {name: build for member in self.members for name, build in member.runs.items()}

    @property
    def novelty_vectors(self) -> tuple[Wanted, ...]:
        """Those of the member that counts most."""
        return self.members[int(np.argmax(self.weights))].novelty_vectors


@dataclass(frozen=True, slots=True)
class EnsembleModel(_OfMembers):
    """A head on the probabilities of probes."""

    members: tuple[ProbeModel, ...]
    head: Head
    temperature: float = 1.0
    precision = "float16"

    @property
    def weights(self) -> np.ndarray:
        """What each member counts, (M,)."""
        return self.head.weights_

    def probabilities(self, arrays: Arrays) -> np.ndarray:
        """See `PixelModel`."""
        inputs = member_inputs([member.probabilities(arrays) for member in self.members])
        return tempered(head_probabilities(self.head, [inputs]), self.temperature)


@dataclass(frozen=True, slots=True)
class RunModel:
    """A fine-tuned network, in one view or several.

    Attributes:
        run: DATASET/RUN.
        network: Builds it: uint8 (B, H, W, C) → logits (B, K).
        views: In what ways it looks at each image; the first is "".
        temperature: See `PixelModel`.
    """

    run: str
    network: Callable[[], Any]
    views: tuple[str, ...] = ("",)
    temperature: float = 1.0

    precision = "float32"

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """See `PixelModel`."""
        return tuple(RunPass(self.run, view) for view in self.views)

    @property
    def runs(self) -> dict[str, Callable[[], Any]]:
        """Itself."""
        return {self.run: self.network}

    @property
    def novelty_vectors(self) -> tuple[Wanted, ...]:
        """Those that its head looks at, of the whole image."""
        return (RunPass(self.run, output="vectors"),)

    def probabilities(self, arrays: Arrays) -> np.ndarray:
        """See `PixelModel`."""
        total = np.zeros(arrays[self.wanted[0]].shape, np.float32)
        for one in self.wanted:
            total += softmax(arrays[one])
        return apply_temperature(total / np.float32(len(self.views)), self.temperature)


@dataclass(frozen=True, slots=True)
class MeanModel(_OfMembers):
    """The weighted mean of the probabilities of several models."""

    members: tuple[Any, ...]
    weights: tuple[float, ...]
    temperature: float = 1.0

    def probabilities(self, arrays: Arrays) -> np.ndarray:
        """See `PixelModel`."""
        parts = [m.probabilities(arrays).astype(m.precision) for m in self.members]
        mean = mix([part.astype(np.float32) for part in parts], np.array(self.weights))
        return apply_temperature(mean, self.temperature)


def at_temperature(model: PixelModel, temperature: float) -> PixelModel:
    """Return a model at another temperature."""
    return replace(model, temperature=temperature)  # type: ignore[type-var]


def head_probabilities(head: Head, views: Sequence[np.ndarray]) -> np.ndarray:
    """Return the probabilities (n, K) of images, averaged over their views.

    The head is asked for `BLOCK` rows at a time, the last ones repeated where there are fewer: a matrix
    product rounds otherwise for another number of rows, and a picture must have the same bits alone and
    among the rows of a split.

    Args:
        head: Fitted.
        views: Vectors (n, D) in each view, n >= 1.
    """
    parts = []
    for start in range(0, len(views[0]), BLOCK):
        block = [filled(view[start : start + BLOCK], BLOCK) for view in views]
        parts.append(mean_probabilities(head, block, np.arange(BLOCK)))
    return np.concatenate(parts)[: len(views[0])]


def filled(rows: np.ndarray, count: int) -> np.ndarray:
    """Return an array with its last row repeated until there are `count`."""
    missing = count - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, 0)]) if missing else rows


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities at a temperature, float32."""
    return apply_temperature(probabilities, temperature).astype(np.float32, copy=False)


def side_by_side(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Return vectors of the same images in one array, of the widest dtype."""
    return vectors[0] if len(vectors) == 1 else np.concatenate(vectors, axis=1)


def mix(members: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean (n, K) float32 of the members' probabilities."""
    total = np.zeros(members[0].shape, np.float32)
    for weight, member in zip(weights, members, strict=True):
        total += np.float32(weight) * member
    return total / total.sum(axis=1, keepdims=True)


def pass_of(one: Wanted) -> tuple:
    """Return what arrays of the same forward pass have in common."""
    if isinstance(one, RunPass):
        return one.run, one.view
    return one.backbone, one.weights, one.size, one.view, one.precision
