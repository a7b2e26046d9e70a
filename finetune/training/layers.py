"""Which layers are trained, and how fast each of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from onepass.cache.errors import UsageError, unknown_name

GROUPS = 12  # of a backbone: as many as the blocks of the transformers that layer-wise decay was made for


@dataclass(frozen=True, slots=True)
class Group:
    """A part of the network that is trained at one rate.

    Attributes:
        name: Of its first and last layer with weights.
        weights: How many numbers it holds.
        trained: How many of them are trained.
        rate: Factor of the learning rate.
    """

    name: str
    weights: int
    trained: int
    rate: float


def weighted_layers(backbone: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers that hold weights, from the pixels upwards."""
    return [layer for layer in backbone.layers if layer.weights]


def unfreeze(backbone: keras.Model, which: str) -> str:
    """Make some layers of a backbone trainable and freeze the others.

    Args:
        backbone: Functional.
        which: "all"; "last:N", the last N layers that hold weights; or "from:LAYER", that layer and all
            after it.

    Returns:
        What is trained, in words.

    Raises:
        UsageError: It is written in another way.
        UnknownNameError: There is no such layer.
    """
    layers = weighted_layers(backbone)
    kind, _, value = which.partition(":")
    if which == "all":
        first = 0
    elif kind == "last" and value.isdigit():
        first = max(len(layers) - int(value), 0)
    elif kind == "from" and value:
        names = [layer.name for layer in backbone.layers]
        if value not in names:
            raise unknown_name(f"layer of {backbone.name}", value, names)
        after = {layer.name for layer in backbone.layers[names.index(value) :]}
        first = next((i for i, layer in enumerate(layers) if layer.name in after), len(layers))
    else:
        raise UsageError(f"--unfreeze {which}: expected all, last:N or from:LAYER")
    backbone.trainable = True
    for layer in layers[:first]:
        layer.trainable = False
    return f"{len(layers) - first} of {len(layers)} layers with weights, and the head"


def frozen_end(network: keras.Model) -> Any:
    """Return the last map below the first trained layer through which everything above passes.

    Where a residual path goes past a layer, that is the map before the path parts.

    Args:
        network: Functional, of one input.

    Returns:
        The tensor of the network; None where it is the input, or there is none of a fixed shape.
    """
    depths = sorted(network._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in network._nodes_by_depth[depth]]
    last_read = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.input_tensors}
    last_read |= {id(tensor): len(nodes) for tensor in network.outputs}
    end, open_until = None, 0  # until where a map of the nodes before is read
    for i, node in enumerate(nodes):
        if getattr(node.operation, "trainable_weights", ()):
            break
        made = node.output_tensors
        fixed = len(made) == 1 and None not in made[0].shape[1:]
        if fixed and open_until <= i and not node.is_input:
            end = made[0]
        open_until = max([open_until, *(last_read.get(id(tensor), 0) for tensor in made)])
    return end


def depth_groups(backbone: keras.Model) -> list[list[keras.layers.Layer]]:
    """Cut a backbone into `GROUPS` groups of layers, from the pixels upwards.

    Layers that transform (convolutions, dense layers, whole blocks) are dealt out evenly; what only
    scales (a BatchNorm) belongs to the one before it.
    """
    units: list[list[keras.layers.Layer]] = []
    for layer in weighted_layers(backbone):
        scales = all(len(weight.shape) <= 1 for weight in layer.weights)
        if units and scales:
            units[-1].append(layer)
        else:
            units.append([layer])
    count = min(GROUPS, len(units))
    groups: list[list[keras.layers.Layer]] = [[] for _ in range(count)]
    for i, unit in enumerate(units):
        groups[i * count // len(units)].extend(unit)
    return groups


def rate_factors(
    variables: Iterable[Any], groups: list[list[keras.layers.Layer]], decay: float
) -> list[float]:
    """Return the factor of the learning rate of each variable.

    A variable of group g of G has `decay ** (G - g)`, g from 0 at the pixels; the head has 1.

    Args:
        variables: Trainable, in the optimiser's order.
        groups: From `depth_groups`.
        decay: 0 … 1.
    """
    depth = {
        id(weight): len(groups) - g
        for g, group in enumerate(groups)
        for layer in group
        for weight in layer.weights
    }
    return [decay ** depth.get(id(variable), 0) for variable in variables]


def describe(
    groups: list[list[keras.layers.Layer]], others: list[keras.layers.Layer], decay: float
) -> list[Group]:
    """Return one line per group and one per layer above the backbone, from the pixels upwards."""
    rows = []
    for g, group in enumerate(groups):
        ends = [group[0].name, group[-1].name]
        name = ends[0] if len(group) == 1 else f"{ends[0]} … {ends[1]}"
        rows.append((name, group, decay ** (len(groups) - g)))
    rows += [(layer.name, [layer], 1.0) for layer in others if layer.weights]
    return [
        Group(
            name,
            sum(layer.count_params() for layer in layers),
            sum(math.prod(w.shape) for layer in layers for w in layer.trainable_weights),
            rate,
        )
        for name, layers, rate in rows
    ]  # fmt: skip


def table(rows: list[Group]) -> str:
    """Return the groups as lines for a person."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'layers':<{width}}  {'weights':>11}  {'trained':>11}  rate"]
    for row in rows:
        trained = f"{row.trained:,}" if row.trained else "frozen"
        rate = f"× {row.rate:.3g}" if row.trained else ""
        lines.append(f"{row.name:<{width}}  {row.weights:>11,}  {trained:>11}  {rate}".rstrip())
    return "\n".join(lines)
