"""Which layers of a backbone can be read."""

from dataclasses import dataclass

import keras

from onepass.extract.backbones import registry
from onepass.extract.config import ExtractConfig


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A layer's name, as `--layer` takes it, and the shape of its output without the batch."""

    name: str
    shape: str


def list_layers(config: ExtractConfig) -> list[LayerRow]:
    """Return the layers of the first backbone asked for, in order; its weights are not needed."""
    spec = registry.find_backbone(config.backbone[0])
    size = config.size[0] if config.size else spec.native_size
    model: keras.Model = registry.build_backbone(spec, size, "none")
    return [
        LayerRow(layer.name, "×".join(map(str, layer.output.shape[1:])))
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
