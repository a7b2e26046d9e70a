"""Convolution and frozen BatchNorm as one operation that can still be trained.

With its statistics fixed, BatchNorm is `gamma (x - mean) / sqrt(var + eps) + beta`: an affine map a
channel that can be worked into the kernel before the convolution instead of into the image after it.
The function and the gradients of kernel, gamma and beta are the same, for a fraction of the work.
"""

from typing import Any

import keras
from keras import ops

from onepass.extract.network.batchnorm_folding import foldable


class FusedConvolution(keras.layers.Layer):
    """(B, h, w, C) → (B, h', w', C') as `norm(convolution(x))`, whose variables it shares.

    Args:
        convolution: Conv2D or DepthwiseConv2D without activation.
        norm: BatchNormalization of the last axis, in inference mode.
    """

    def __init__(
        self, convolution: keras.layers.Layer, norm: keras.layers.Layer, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.convolution, self.norm = convolution, norm
        self.depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)

    def call(self, x: Any) -> Any:
        conv, norm = self.convolution, self.norm
        factor = ops.rsqrt(norm.moving_variance + norm.epsilon)
        factor = factor * norm.gamma if norm.scale else factor
        bias = (conv.bias if conv.use_bias else 0.0) - norm.moving_mean
        bias = bias * factor + (norm.beta if norm.center else 0.0)
        scale = ops.reshape(factor, tuple(conv.kernel.shape[2:])) if self.depthwise else factor
        kernel = ops.cast(conv.kernel * scale, conv.compute_dtype)
        options = {"strides": conv.strides if self.depthwise else list(conv.strides),
                   "padding": conv.padding, "dilation_rate": conv.dilation_rate,
                   "data_format": conv.data_format}  # fmt: skip
        convolve = ops.depthwise_conv if self.depthwise else ops.conv
        y = convolve(ops.cast(x, conv.compute_dtype), kernel, **options)
        return y + ops.cast(bias, conv.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return self.convolution.compute_output_shape(input_shape)

    def compute_output_spec(self, x: Any) -> Any:
        shape = self.compute_output_shape(x.shape)
        return keras.KerasTensor(shape, self.convolution.compute_dtype)


def fuse_batchnorms(model: keras.Model) -> keras.Model:
    """Return a model of the same layers and variables whose frozen BatchNorms cost next to nothing.

    Args:
        model: Functional, of one input; its BatchNorms are meant to run in inference mode.
    """
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    layers = {layer.name: layer for layer in model.layers}
    pairs = {name: norm for name, norm in foldable(model).items() if type(layers[name]) in kinds}
    norms = {norm.name for norm in pairs.values()}
    if not pairs:
        return model

    def called(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        if layer.name in norms:
            return inputs[0]
        if layer.name in pairs:
            return FusedConvolution(layer, pairs[layer.name], name=f"{layer.name}_fused")(*inputs)
        return layer(*inputs, **options)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=called)
