"""What a worker does, in its own process: show itself, decode pictures, and compute what the networks give of them."""

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from onepass.cache.artifacts import from_json, to_json
from onepass.cache.keras_settings import load_keras
from onepass.data.archive import Tree, open_tree
from onepass.data.pack import quiet_bombs
from onepass.extract.backend import device_kind
from onepass.extract.cluster.alike import noise
from onepass.extract.engines.engine import in_place_of
from onepass.predict.cluster.spread import Given, Place, identity
from onepass.predict.config import ModelsConfig
from onepass.predict.models import load_predictor
from onepass.predict.pictures.batches import PictureBatch, decoded_batches, forward_stream
from onepass.predict.pictures.sources import Picture, picture_file, picture_inside
from onepass.predict.predictor import Predictor

load_keras()


def _look(message: Any) -> Any:
    _opened.cache_clear()  # what is opened may be another by now
    model = _opened(message["models"])
    classifier = model.on_pictures()
    engines = {str(in_place_of(one.precision, classifier.engine)) for one in classifier.wanted}
    device = ", ".join([device_kind(), *sorted(engines)])
    return to_json(identity(model, Path(message["picture"]), device))


def _vectors(message: Any) -> list[np.ndarray]:
    """Return what the networks give of a batch of noise."""
    classifier = _opened(message["models"]).on_pictures()
    pixels = noise(classifier.batch, classifier.geometry.shape)["pixels"]
    return [np.asarray(array) for array in classifier.forward(pixels)]


def _compute(message: Any) -> Given:
    classifier = _opened(message["models"]).on_pictures()
    pictures = _pictures([tuple(place) for place in message["pictures"]])
    given: Given = []

    def take(batch: PictureBatch, arrays: list[np.ndarray]) -> None:
        given.append((batch.reasons, arrays))

    with quiet_bombs(), threadpool_limits(1, "blas"):
        batches = decoded_batches(pictures, classifier.geometry, classifier.batch)
        forward_stream(classifier, take).run(batches)
    return given


TASKS: dict[str, Callable[[Any], Any]] = {"look": _look, "vectors": _vectors, "compute": _compute}


@lru_cache(maxsize=1)
def _opened(models: str) -> Predictor:
    """Return the model, which is opened once in this process."""
    return load_predictor(from_json(ModelsConfig, json.loads(models)))


_State = tuple[str, int, int]  # path, size, time of change
_archives: dict[_State, tuple[ExitStack, Tree]] = {}  # those of the last pictures


def _pictures(places: Iterable[Place]) -> list[Picture]:
    trees = _trees({path for path, member in places if member})
    return [
        picture_inside(trees[path], member) if member else picture_file(Path(path), path)
        for path, member in places
    ]


def _trees(paths: set[str]) -> dict[str, Tree]:
    """Return archives, each opened once for all units that follow one another, and as it is now."""
    states = {(path, (s := Path(path).stat()).st_size, s.st_mtime_ns) for path in paths}
    for gone in _archives.keys() - states:
        _archives.pop(gone)[0].close()
    for state in states - _archives.keys():
        stack = ExitStack()
        _archives[state] = stack, stack.enter_context(open_tree(Path(state[0])))
    return {path: tree for (path, *_), (_, tree) in _archives.items()}
