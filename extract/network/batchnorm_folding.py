"""BatchNorm folded into the convolution before it: the same function with fewer operations.

In inference BatchNorm is `gamma (x - mean) / sqrt(var + eps) + beta`, one affine map a channel, so it
merges into the kernel and bias of a convolution whose only reader it is (Jacob et al., arXiv
1712.05877, section 3.2). Depthwise convolutions gain most: no graph optimiser does it for them.
"""

from typing import Any

import keras
import numpy as np

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """Return an equal model for inference, without the BatchNorms that follow a convolution directly.

    Args:
        model: Functional, of one input; it is left as it is.

    Returns:
        A copy with folded weights; the model itself where nothing can be folded.
    """
    pairs = foldable(model)
    if not pairs:
        return model
    norms = {norm.name for norm in pairs.values()}

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in pairs:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    def called(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if layer.name in norms else layer(*inputs, **options)

    folded = keras.models.clone_model(model, clone_function=copied, call_function=called)
    for layer in model.layers:
        if layer.name in pairs:
            folded.get_layer(layer.name).set_weights(_merged(layer, pairs[layer.name]))
        elif layer.weights and layer.name not in norms:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def foldable(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Return the BatchNorm of each convolution that nothing else reads, by the convolution's name."""
    pairs = {}
    outputs = {id(tensor) for tensor in model.outputs}
    for layer in model.layers:
        if type(layer) not in CONVOLUTIONS or len(layer._inbound_nodes) != 1:
            continue
        if id(layer.output) in outputs or layer.activation is not keras.activations.linear:
            continue
        readers = [n.operation for n in layer._outbound_nodes if n.operation in model.layers]
        if len(readers) == 1 and type(readers[0]) is keras.layers.BatchNormalization:
            norm = readers[0]
            if len(norm._inbound_nodes) == 1 and norm.axis in (-1, len(layer.output.shape) - 1):
                pairs[layer.name] = norm
    return pairs


def _merged(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Return kernel and bias of a convolution with its BatchNorm in it; computed in float64."""
    *first, kernel = [np.asarray(w, np.float64) for w in layer.get_weights()][
        : 2 if _separable(layer) else 1
    ]
    bias = np.asarray(layer.get_weights()[-1], np.float64) if layer.use_bias else 0.0
    values = {
        w.name: np.asarray(v, np.float64)
        for w, v in zip(norm.weights, norm.get_weights(), strict=True)
    }
    factor = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + norm.epsilon)
    shift = values.get("beta", 0.0) - values["moving_mean"] * factor
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel = kernel * (np.reshape(factor, kernel.shape[2:]) if depthwise else factor)
    return [np.asarray(w, np.float32) for w in (*first, kernel, bias * factor + shift)]


def _separable(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.SeparableConv2D)
