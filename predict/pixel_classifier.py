"""A model's networks, compiled: uint8 pixels in, probabilities out, from any thread."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onepass.cache.artifacts import record
from onepass.cache.content import content_of
from onepass.cache.keras_settings import load_keras
from onepass.classify.prior import Prior
from onepass.classify.protocol.pixels import pixel_features
from onepass.data.config import DEFAULT_FIT
from onepass.data.images import decode_row
from onepass.extract.network.resize import draw_boxes, random_seed
from onepass.predict.novelty import Abstention, Novelty
from onepass.predict.pixel_models import (
    PIXELS,
    PixelModel,
    RunPass,
    VectorSpec,
    Wanted,
    filled,
    pass_of,
)

if TYPE_CHECKING:
    import keras

    from onepass.data.dataset import ImageDataset

Step = Callable[..., list[Any]]
LearnNovelty = Callable[["PixelClassifier"], Novelty | None]
BuildExtractor = Callable[[Sequence[VectorSpec], tuple[int, int, int]], "keras.Model"]
BATCH = 64  # of a network whose batch is not on record, and of the networks of runs


@record
class PictureGeometry:
    """What an image becomes before a network sees it: the geometry of the rows that were learnt.

    Attributes:
        side: Height and width (px).
        channels: 1 (grey) or 3 (RGB).
        fit: How an image that is no square becomes one, as in `onepass.data.images.fit_image`.
    """

    side: int
    channels: int
    fit: str

    @classmethod
    def of(cls, dataset: "ImageDataset") -> "PictureGeometry":
        """Return that of a data set. Where its rows were squares of one size, others are stretched."""
        fit = str(dataset.record.geometry.get("fit", "square"))
        _, side, _, channels = dataset.pixels.shape
        return cls(side, channels, DEFAULT_FIT if fit == "square" else fit)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the pixels."""
        return self.side, self.side, self.channels

    def pixels(self, content: Any, name: str) -> np.ndarray:
        """Return an image as `onepass data prepare` would store it: uint8 (side, side, channels).

        Args:
            content: As `onepass.data.images.decode_image` takes it.
            name: What an error calls it.

        Raises:
            InvalidInputError: It cannot be decoded, is cut short, or is too large.
        """
        return decode_row(content, name, self.side, self.channels, self.fit)


@dataclass(frozen=True, slots=True)
class _Network:
    """One compiled network: the arrays that it gives, and how many images it takes at a time."""

    gives: tuple[Wanted, ...]
    batch: int
    step: Step


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model says of n images.

    Attributes:
        probabilities: (n, K) float32, for the mix of classes of the training images.
        distances: (n,) float32, from what was learnt; None where that is not known.
        novelty: (n,) float32: the share of known images that are nearer; None where that is not known.
    """

    probabilities: np.ndarray
    distances: np.ndarray | None
    novelty: np.ndarray | None


class PixelClassifier:
    """A model and its networks, which are built when they are first needed.

    It may be used by several threads at once.

    Args:
        model: What the arrays mean.
        geometry: Of the pixels.
        build_extractor: Builds the network that gives some vectors of one backbone, size and view:
            uint8 (B, H, W, C) → list of float32 (B, D).
        batches: Images a step of the networks of some vectors; `BATCH` for the others.
        batch: Images a step of all networks; 0 leaves it to `batches`.
        novelty: Finds what novelty is measured by, when it is first needed; it may ask for `arrays`.
        abstain: Share of known pictures whose answer may be left open.
        engine: What computes the networks: "keras", "openvino", or "auto": what computed the stored vectors.
    """

    def __init__(
        self,
        model: PixelModel,
        geometry: PictureGeometry,
        build_extractor: BuildExtractor,
        batches: Mapping[VectorSpec, int],
        batch: int = 0,
        novelty: LearnNovelty | None = None,
        abstain: float = 0.0,
        engine: str = "auto",
    ) -> None:
        self.model, self.geometry, self.abstain = model, geometry, abstain
        also = model.novelty_vectors if novelty else ()
        self.wanted = tuple(dict.fromkeys((*model.wanted, *also)))
        self._learn_novelty = novelty
        self._novelty: Novelty | None = None
        self._abstention: tuple[Prior | None, Abstention] | None = None  # of the last mix
        self.build_extractor, self._batches, self._batch = build_extractor, batches, batch
        self.engine = engine
        self._networks: list[_Network] = []
        self._lock = threading.RLock()

    def by_keras(self) -> "PixelClassifier":
        """Return the same, computed by Keras as the networks of model files are; without novelty."""
        return PixelClassifier(
            self.model,
            self.geometry,
            self.build_extractor,
            self._batches,
            self._batch,
            engine="keras",
        )

    @property
    def batch(self) -> int:
        """How many images `forward` takes at a time."""
        groups = [self.batch_of(one) for one in self.wanted]
        return max(groups)

    def batch_of(self, one: Wanted) -> int:
        """Return how many images the network of an array takes at a time."""
        found = self._batches.get(one, BATCH) if isinstance(one, VectorSpec) else BATCH
        return self._batch or found

    def backbones(self) -> list[tuple[VectorSpec, ...]]:
        """Return the vectors of frozen backbones, those of one network together."""
        groups: dict[Any, list[VectorSpec]] = {}
        for one in self.wanted:
            if isinstance(one, VectorSpec) and one.backbone != PIXELS:
                groups.setdefault(pass_of(one), []).append(one)
        return [tuple(group) for group in groups.values()]

    def forward(self, pixels: np.ndarray) -> list[Any]:
        """Return the arrays of `wanted`, in order, of uint8 (`batch`, H, W, C); they may still be computed."""
        with self._lock:
            if not self._networks:
                self._networks = self._compiled()
        found: dict[Wanted, Any] = {}
        for network in self._networks:
            arrays = _in_batches(network.step, network.batch, pixels)
            found.update(zip(network.gives, arrays, strict=True))
        return [found[one] for one in self.wanted]

    def named(self, arrays: Sequence[np.ndarray]) -> dict[Wanted, np.ndarray]:
        """Return what `forward` gave by name, each vector rounded as it would be stored."""
        return {
            one: one.rounded(array) if isinstance(one, VectorSpec) else array
            for one, array in zip(self.wanted, map(np.asarray, arrays), strict=True)
        }

    def arrays(self, pixels: np.ndarray) -> dict[Wanted, np.ndarray]:
        """Return every wanted array, by name, of n >= 1 images, uint8 (n, H, W, C)."""
        parts = [
            self.named([np.asarray(a)[: len(cut)] for a in self.forward(filled(cut, self.batch))])
            for cut in (pixels[i : i + self.batch] for i in range(0, len(pixels), self.batch))
        ]
        return {one: np.concatenate([part[one] for part in parts]) for one in self.wanted}

    @property
    def novelty(self) -> Novelty | None:
        """What novelty is measured by; None where that is not known."""
        with self._lock:
            if self._learn_novelty is not None:
                self._novelty = self._learn_novelty(self)
                self._learn_novelty = None
            return self._novelty

    def judge(self, arrays: Mapping[Wanted, np.ndarray]) -> Judgement:
        """Return what is said of n >= 1 images, from their `arrays`."""
        probabilities, novelty = self.model.probabilities(arrays), self.novelty
        if novelty is None:
            return Judgement(probabilities, None, None)
        distances = novelty.distance(arrays)
        return Judgement(probabilities, distances, novelty.novelty(distances))

    def abstention(self, prior: Prior | None) -> Abstention | None:
        """Return when answers are left open in a mix of classes; None where they never are.

        Raises:
            UsageError: An older model folder cannot say it for another mix.
        """
        novelty = self.novelty
        if not self.abstain or novelty is None:
            return None
        with self._lock:
            if self._abstention is None or self._abstention[0] != prior:
                self._abstention = prior, novelty.abstention(self.abstain, prior)
            return self._abstention[1]

    def open_because(
        self, distances: np.ndarray | None, probabilities: np.ndarray, prior: Prior | None
    ) -> list[str]:
        """Return why each answer is left open; "" where it is not.

        Args:
            distances: As in `Judgement`.
            probabilities: (n, K) in the mix of classes in use.
            prior: That mix; None: that of the training images.
        """
        rule = self.abstention(prior)
        if rule is None or distances is None:
            return [""] * len(probabilities)
        return rule.reasons(distances, probabilities.max(axis=1))

    def _compiled(self) -> list[_Network]:
        groups: dict[Any, list[Wanted]] = {}
        for one in self.wanted:
            groups.setdefault(pass_of(one), []).append(one)
        runs = {name: build() for name, build in self.model.runs.items()}
        return [self._network(tuple(group), runs) for group in groups.values()]

    def _network(self, group: tuple[Wanted, ...], runs: Mapping[str, Any]) -> _Network:
        batch, first = self.batch_of(group[0]), group[0]
        if isinstance(first, VectorSpec) and first.backbone == PIXELS:
            side = first.size
            return _Network(group, batch, lambda pixels: [pixel_features(pixels, side)])
        load_keras()
        if isinstance(first, RunPass):
            outputs = [one.output for one in group if isinstance(one, RunPass)]
            network = _run_network(runs[first.run], first.view, outputs)
        else:
            specs = [one for one in group if isinstance(one, VectorSpec)]
            network = self.build_extractor(specs, self.geometry.shape)
        step = _compiled(network, batch, first.precision, self.engine)
        if isinstance(first, VectorSpec) and (seed := random_seed(first.view)) is not None:
            drawn = seed
            return _Network(
                group, batch, lambda pixels: step(pixels, draw_boxes(drawn, content_of(pixels)))
            )
        return _Network(group, batch, step)


def _compiled(network: "keras.Model", batch: int, precision: str, engine: str) -> Step:
    from onepass.extract.engines.engine import ConversionError, compiler, in_place_of, stand_in

    chosen = in_place_of(precision, engine)
    try:
        return compiler(network, chosen.precision)(batch)
    except ConversionError as error:
        return compiler(network, stand_in(chosen, str(error)).precision)(batch)


def _in_batches(step: Step, batch: int, pixels: np.ndarray) -> list[Any]:
    """Return a network's arrays of a batch that may be larger than the network's own."""
    if batch == len(pixels):
        return step(pixels)
    parts = [
        [np.asarray(array)[: len(cut)] for array in step(filled(cut, batch))]
        for cut in (pixels[i : i + batch] for i in range(0, len(pixels), batch))
    ]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _run_network(predictor: "keras.Model", view: str, outputs: Sequence[str]) -> "keras.Model":
    """Return a run's network that looks at the images in a view and gives logits, vectors or both."""
    import keras

    from onepass.extract.backend import as_list
    from onepass.predict.views import with_view

    network = with_view(predictor, view)
    if list(outputs) == ["logits"]:
        return network
    pixels = keras.Input(network.input_shape[1:], dtype="uint8", name="pixels")
    vectors = as_list(predictor.get_layer("extractor")(pixels))[0]
    arrays = {"vectors": vectors, "logits": predictor.get_layer("top")(vectors)}
    return keras.Model(pixels, [arrays[output] for output in outputs])
