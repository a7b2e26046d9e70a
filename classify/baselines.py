"""Baselines: what the probes on features have to beat, and what cannot win."""

from typing import Any

from onepass.cache.features import resolve_features
from onepass.cache.stores import AnyStore
from onepass.classify.config import ClassWeight
from onepass.classify.heads.base import Head
from onepass.classify.heads.baselines.imagenet import ABSENT, imagenet_columns
from onepass.classify.heads.registry import find_head
from onepass.classify.protocol.inputs import Inputs, logits_inputs, no_inputs, pixel_inputs
from onepass.data.dataset import ImageDataset

CNN_SIDE = 64  # px that the convolutional network sees
SIDE = 32  # px
SMALL_SIDE = 16  # px, where there are many weights; a linear model gains nothing from more pixels
LOGISTIC_WEIGHTS = 20_000  # up to this many weights logistic regression is fast, beyond it ridge is


def baseline_probes(
    store: AnyStore, dataset: ImageDataset, features: list[Inputs], seed: int, every: bool
) -> list[tuple[Inputs, Head]]:
    """Return the baselines and what each looks at, the cheap ones first.

    Always: the larger class, and a linear model on small pixels (of 100,000 training images at most). With `every`: a random guess; the
    backbone's own ImageNet classes where its logits are stored and the data set's classes are among
    them; a single-layer network on pixels; a small convolutional network trained from nothing.

    Args:
        store: Root of the store.
        dataset: Gives pixels and classes.
        features: Those that are probed.
        seed: Of the heads.
        every: Whether the expensive ones are wanted.
    """
    side, linear = pixel_plan(dataset.pixels.shape, len(dataset.class_ids))
    small = pixel_inputs(dataset, side)
    probes = [
        (no_inputs(dataset), make_head("majority", seed)),
        (small, make_head(linear, seed)),
    ]
    if not every:
        return probes
    height, width = (min(size, CNN_SIDE) for size in dataset.pixels.shape[1:3])
    return [
        *probes,
        (no_inputs(dataset), make_head("guess", seed)),
        *_zero_training(store, dataset, features, seed),
        (small, make_head("dense", seed, dropout=0.0)),
        (pixel_inputs(dataset, CNN_SIDE), make_head("cnn", seed, height=height, width=width)),
    ]


def make_head(kind: str, seed: int, class_weight: ClassWeight = "none", **params: Any) -> Head:
    """Return a head of a kind, seeded where it draws, and with class weights where it can have them."""
    head = find_head(kind)(**params)
    known = head.get_params(deep=False)
    if "seed" in known:
        head.set_params(seed=seed)
    if "class_weight" in known and class_weight != "none":
        head.set_params(class_weight=class_weight)
    return head


def _zero_training(
    store: AnyStore, dataset: ImageDataset, features: list[Inputs], seed: int
) -> list[tuple[Inputs, Head]]:
    probes = []
    for text in dict.fromkeys(one.features[0] for one in features if len(one.features) == 1):
        logits = resolve_features(store, dataset.name, [text])[0].logits
        columns = imagenet_columns(dataset.class_ids, 0 if logits is None else logits.shape[1])
        if sum(column != ABSENT for column in columns) >= 2:
            head = make_head("imagenet", seed, columns=columns)
            probes.append((logits_inputs(store, dataset, text), head))
    return probes


def pixel_plan(shape: tuple[int, ...], classes: int) -> tuple[int, str]:
    """Return side (px) and kind of head for a linear model on the pixels of images (…, H, W, C)."""
    height, width, channels = shape[-3:]
    weights = min(height, SIDE) * min(width, SIDE) * channels * classes
    return (SIDE, "logistic") if weights <= LOGISTIC_WEIGHTS else (SMALL_SIDE, "ridge")
