"""Where fine-tuning starts from: the chosen probe with its backbone's weights, or the network of a run."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onepass.cache.content import CONTENT_BYTES
from onepass.cache.errors import InvalidInputError, MissingFileError, Remedy, UsageError
from onepass.cache.features import FeatureKey, is_named
from onepass.classify.heads.base import Head
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.data.dataset import ImageDataset
from onepass.extract.backbones.registry import find_backbone, weights_identity, weights_named
from onepass.finetune.config import FinetuneConfig
from onepass.finetune.session.runs import Run, find_run, learnt_from
from onepass.finetune.training.inference import TRAIN_AGAIN, WEIGHTS


@dataclass(frozen=True, slots=True)
class Start:
    """A linear probe on one backbone, or the network of a run beside it.

    Attributes:
        probe: Its line on the leaderboard.
        key: The features that it was fitted on.
        head: As it was stored, fitted on all training rows.
        random: Whether only the architecture is taken, with random weights (`--weights none`).
        run: The run whose network is the start; None: the probe is.
        learnt_from: Identities of the images that this network learnt from, uint8 (n, 16); none of a probe, whose
            head is fitted anew.
    """

    probe: ProbeResult
    key: FeatureKey
    head: Head
    random: bool = False
    run: Run | None = None
    learnt_from: np.ndarray = field(default_factory=lambda: np.empty((0, CONTENT_BYTES), np.uint8))

    @property
    def text(self) -> str:
        """What it is, in words."""
        if self.run:
            return f"{self.run.full_name} ({self.key.backbone}@{self.key.size})"
        return f"{self.key}, random weights" if self.random else f"{self.key} + {self.probe.head}"


def choose_start(config: FinetuneConfig, dataset: ImageDataset) -> Start:
    """Return the leaderboard's best probe that a network can start from, or the run that is named.

    Such a probe is linear, on one backbone, and looks at the whole image, whatever views it learnt from besides: its
    scaler and weights fold into one dense layer. A run is compared with the best probe of today on its backbone.

    Raises:
        MissingFileError: There is no leaderboard, none of its probes can be started from, or no such run.
        StaleError: It was made from another state of the data set; or the run was, and does not know what it learnt from.
        InvalidInputError: The backbone's weights are not those that the features were made with, or nobody can go on
            from that run here.
        UsageError: Weights are named beside a run, which has its own.
    """
    board = Leaderboard.load(config.runs / config.dataset, config.dataset, dataset.digest)
    if config.from_.startswith(f"{config.dataset}/"):
        return _start_of_run(config, board, dataset)
    named = "" if config.from_ == "auto" else config.from_
    probe, key, head = _best_probe(
        board, dataset, lambda p: not named or is_named(p.features[0], named), named
    )
    return Start(probe, key, head, _at_random(config, key))


def _best_probe(
    board: Leaderboard, dataset: ImageDataset, wanted: Callable[[ProbeResult], bool], which: str
) -> tuple[ProbeResult, FeatureKey, Head]:
    """Return the best probe that a network can start from of those wanted, its features and its head."""
    for probe in board.ranked:
        one_backbone = len(probe.features) == 1 and probe.keys  # an ensemble has no keys
        if not one_backbone or not wanted(probe):
            continue
        key = probe.keys[0]  # of the plain view: those of others follow
        if key.view or not (board.head_folder(probe) / "head.json").exists():
            continue
        head = load_head(board.head_folder(probe))
        if not hasattr(head, "linear"):
            continue
        if len(head.classes_) != len(dataset.class_ids):
            raise InvalidInputError(
                f"probe {probe.id}: knows {len(head.classes_)} classes, {dataset.name} has {len(dataset.class_ids)}"
            )
        return probe, key, head
    of = f"of {which} " if which else ""
    run = f" (a run is named {dataset.name}/RUN)" if which and "@" not in which else ""
    raise MissingFileError(
        f"{board.path}: expected a linear probe {of}on one backbone and the plain view, such as one "
        f"of --head logistic; received none{run}",
        remedy=Remedy("classify", dataset.name),
    )


def _start_of_run(config: FinetuneConfig, board: Leaderboard, dataset: ImageDataset) -> Start:
    """Return the network of a finished run as a start, beside the best probe on its backbone."""
    run = find_run(config.runs, config.from_)
    before = run.identity
    if weights_named(config.weights) != "imagenet":
        raise UsageError(
            f"--weights {config.weights}: {config.from_} has weights of its own; leave it out"
        )
    if not (run.folder / WEIGHTS).exists():
        raise MissingFileError(
            f"{run.folder / WEIGHTS}: expected the weights of a finished run, received none; {TRAIN_AGAIN}"
        )
    if before.dataset_digest != dataset.digest and run.config.class_ids != tuple(dataset.class_ids):
        raise InvalidInputError(
            f"{config.from_}: knows other classes than {config.dataset} has today; train from a probe"
        )
    if config.recipe_for(dataset.record.symmetries).hidden != before.recipe.hidden:
        raise InvalidInputError(
            f"{config.from_}: has dense layers {list(before.recipe.hidden)} before its head, and goes on with the same "
            "ones only; name its recipe with --recipe, or its layers with --set hidden=…"
        )
    ours = _network_of(before.key)
    probe, key, head = _best_probe(
        board, dataset, lambda p: _network_of(p.keys[0]) == ours, f"{ours[0]}@{ours[1]}"
    )
    return Start(probe, key, head, run=run, learnt_from=learnt_from(run, dataset))


def _network_of(key: FeatureKey) -> tuple[str, int, str, str]:
    """Return what decides which network vectors come from."""
    return key.backbone, key.size, key.layer, key.pooling


def _at_random(config: FinetuneConfig, key: FeatureKey) -> bool:
    """Say whether training starts from random weights, or check that it has the features' own."""
    if config.weights == "none" and not key.weights.startswith("none"):
        return True
    spec = find_backbone(key.backbone)
    found = weights_identity(spec, weights_named(config.weights), config.seed)
    if found != key.weights:
        raise InvalidInputError(
            f"{key}: made with weights {key.weights[:20]}, received {found[:20]}; "
            "name the same file with --weights"
        )
    return False
