"""A model as ONE Keras network, written out in operations of Keras itself: pixels in, probabilities out.

Resize, preprocessing, heads, weights and temperatures are inside, and nothing of Onepass is needed to load it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from onepass.cache.errors import UsageError
from onepass.classify.heads.base import Head, LinearHead
from onepass.classify.heads.ensembles.ensembler import Average, Stack
from onepass.classify.heads.neural.mlp import Mlp
from onepass.classify.metrics import SMALLEST
from onepass.classify.prior import Prior
from onepass.extract.backend import as_list
from onepass.extract.network.model import Preprocess
from onepass.extract.network.resize import random_seed
from onepass.predict.pixel_classifier import PixelClassifier
from onepass.predict.pixel_models import (
    PIXELS,
    EnsembleModel,
    MeanModel,
    PixelModel,
    ProbeModel,
    RunModel,
    RunPass,
    VectorSpec,
    Wanted,
)
from onepass.predict.views import with_view


def whole_network(pictures: PixelClassifier, prior: Prior | None = None) -> keras.Model:
    """Return a model with all its networks as one network.

    Args:
        pictures: The model.
        prior: The mix of classes that its probabilities are to be for; None: that of the training images.

    Returns:
        uint8 (B, H, W, C) named "pixels" → probabilities (B, K), with copies of the weights.

    Raises:
        UsageError: One of its heads is no network, such as nearest neighbours.
    """
    check_exportable(pictures.model)
    pixels = keras.Input(pictures.geometry.shape, dtype="uint8", name="pixels")
    tensors: dict[Wanted, Any] = {}
    for specs in pictures.backbones():
        extractor = pictures.build_extractor(specs, pictures.geometry.shape)
        for spec, vectors in zip(specs, _vectors(extractor, pixels), strict=True):
            tensors[spec] = _rounded(vectors, spec.dtype)
    built = {name: build() for name, build in pictures.model.runs.items()}
    for one in pictures.model.wanted:
        if isinstance(one, RunPass):
            tensors[one] = run_logits(with_view(built[one.run], one.view), pixels)
    probabilities = _probabilities(pictures.model, tensors)
    if prior:
        ratios = np.array(prior.used, np.float32) / np.array(prior.learnt, np.float32)
        probabilities = _normalised(probabilities * ratios)
    # a layer of its own, so that every format calls the output so
    named = keras.layers.Activation("linear", dtype="float32", name="probabilities")(probabilities)
    return keras.Model(pixels, named, name="onepass")


def check_exportable(model: PixelModel) -> None:
    """Refuse a model that cannot become a network, before anything is built.

    Raises:
        UsageError: One of its heads is no network.
    """
    if isinstance(model, RunModel):
        return
    if isinstance(model, ProbeModel):
        specs = [spec for view in model.views for spec in view]
        drawn = any(random_seed(spec.view) is not None for spec in specs)
        if drawn:
            raise UsageError(
                "a view is drawn at random for each picture, which no network can: export this model with "
                "--format folder"
            )
        if any(spec.backbone == PIXELS for spec in specs):
            raise UsageError(
                f"{model.head.kind} on shrunk pixels: expected a head on vectors of a backbone; export this model "
                "with --format folder"
            )
        if not isinstance(model.head, LinearHead | Mlp):
            raise UsageError(
                f"{model.head.kind}: expected a head that is a network, such as logistic, ridge, lda, dense or "
                "mlp; export this model with --format folder"
            )
    for member in getattr(model, "members", ()):
        check_exportable(member)


def run_logits(predictor: keras.Model, pixels: Any) -> Any:
    """Return the logits (B, K) of a run's network, with everything of ours written out.

    Args:
        predictor: Layers "extractor" and "top", as `onepass.finetune.training.model.assemble` makes it.
        pixels: uint8 (B, H, W, C).
    """
    (vectors,) = _vectors(_extractor_of(predictor), pixels)
    return _plain(predictor.get_layer("top"), vectors)


def _extractor_of(predictor: keras.Model) -> keras.Model:
    """Return the extractor; that of a view stands layer by layer in its network."""
    names = [layer.name for layer in predictor.layers]
    if "extractor" in names:
        return predictor.get_layer("extractor")
    return keras.Model(predictor.input, predictor.get_layer("top").input)


def _vectors(extractor: keras.Model, pixels: Any) -> list[Any]:
    """Return the outputs of an extractor, its layers applied one after the other."""
    flat = {layer.name: layer for layer in _all_layers(extractor)}
    x = _plain(flat["preprocess"], _plain(flat["resize"], pixels))
    backbone = flat["backbone"]
    # under a name of its own: an ensemble has several
    name = f"backbone_{keras.backend.get_uid('backbone')}"
    maps = as_list(keras.Model(backbone.inputs, backbone.outputs, name=name)(x))
    pools = [flat[f"pool_{i}"] for i in range(len(maps))]
    vectors = [_plain(pool, one) for pool, one in zip(pools, maps, strict=True)]
    if "imagenet_logits" in flat:  # always the last
        vectors[-1] = flat["imagenet_logits"](vectors[-1])
    return vectors


def _all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return a model's layers and those of the models in it, but not those of a backbone."""
    found = []
    for layer in model.layers:
        found.append(layer)
        if isinstance(layer, keras.Model) and layer.name != "backbone":
            found += _all_layers(layer)
    return found


def _plain(layer: keras.layers.Layer, x: Any) -> Any:
    """Return what a layer makes of a tensor, in operations of Keras."""
    if isinstance(layer, Preprocess):
        p = layer.preprocessing
        x = ops.flip(x, axis=-1) if p.bgr else x
        return keras.layers.Rescaling(list(p.scale), list(p.offset), dtype="float32")(x)
    if type(layer).__module__.startswith("onepass."):
        return layer.call(x)  # not the layer itself: its operations become part of the graph
    return as_list(layer(x))[0]


def _probabilities(model: PixelModel, tensors: Mapping[Wanted, Any]) -> Any:
    """Return the probabilities (B, K) of a model."""
    if isinstance(model, ProbeModel):
        views = [_head_probabilities(model.head, _joined(v, tensors)) for v in model.views]
        return _at_temperature(_mean(views), model.temperature)
    if isinstance(model, RunModel):
        views = [ops.softmax(tensors[one]) for one in model.wanted]
        return _at_temperature(_mean(views), model.temperature)
    assert isinstance(model, EnsembleModel | MeanModel)
    members = [
        _rounded(_probabilities(member, tensors), member.precision) for member in model.members
    ]
    if isinstance(model, MeanModel):
        return _at_temperature(_weighted(members, model.weights), model.temperature)
    if isinstance(model.head, Average):
        mean = _weighted(members, model.head.weights_)
        return _at_temperature(_normalised(mean), model.temperature)
    assert isinstance(model.head, Stack)
    pooled = _weighted([_log(one) for one in members], model.head.weights_)
    pooled = pooled + np.asarray(model.head.bias_, np.float32)
    return _at_temperature(ops.softmax(pooled), model.temperature)


def _rounded(x: Any, dtype: str) -> Any:
    """Return a float32 tensor with the precision that it would have after it was stored.

    float16 has 11 bits: Dekker's and Veltkamp's splitting (Numerische Mathematik 18, 1971) leaves as many.
    Casts there and back are what converters take out of a graph.
    """
    if dtype == "float32":
        return x
    high = x * 8193.0  # 2^13 + 1
    return high - (high - x)


def _joined(view: Sequence[VectorSpec], tensors: Mapping[Wanted, Any]) -> Any:
    vectors = [tensors[spec] for spec in view]
    return vectors[0] if len(vectors) == 1 else ops.concatenate(vectors, axis=-1)


def _head_probabilities(head: Head, x: Any) -> Any:
    if isinstance(head, LinearHead):
        return ops.softmax(_dense(*head.linear())(x))
    assert isinstance(head, Mlp)
    weights = (head.hidden_weights_ / head.scale_[:, None]).astype(np.float32)
    bias = (head.hidden_bias_ - (head.mean_ / head.scale_) @ head.hidden_weights_).astype(
        np.float32
    )
    return ops.softmax(_dense(head.weights_, head.bias_)(ops.relu(_dense(weights, bias)(x))))


def _dense(weights: np.ndarray, bias: np.ndarray) -> keras.layers.Dense:
    layer = keras.layers.Dense(weights.shape[1], dtype="float32")
    layer.build((None, weights.shape[0]))
    layer.set_weights([weights, bias])
    return layer


def _weighted(arrays: Sequence[Any], weights: Sequence[float] | np.ndarray) -> Any:
    total = arrays[0] * float(weights[0])
    for one, weight in zip(arrays[1:], weights[1:], strict=True):
        total = total + one * float(weight)
    return total


def _mean(arrays: Sequence[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else _weighted(arrays, [1 / len(arrays)] * len(arrays))


def _normalised(x: Any) -> Any:
    return x / ops.sum(x, axis=-1, keepdims=True)


def _log(probabilities: Any) -> Any:
    return ops.log(ops.maximum(probabilities, SMALLEST))


def _at_temperature(probabilities: Any, temperature: float) -> Any:
    if temperature == 1:
        return probabilities
    return ops.softmax(_log(probabilities) / temperature)
