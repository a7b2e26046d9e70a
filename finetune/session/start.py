"""Where fine-tuning starts from: the chosen probe with its backbone's weights, or the network of a run."""

from dataclasses import dataclass

from onepass.cache.errors import InvalidInputError, MissingFileError, Remedy, UsageError
from onepass.cache.features import FeatureKey, is_named
from onepass.classify.heads.base import Head
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.data.dataset import ImageDataset
from onepass.extract.backbones.registry import find_backbone, weights_identity, weights_named
from onepass.finetune.config import FinetuneConfig
from onepass.finetune.session.runs import FinishedRun, open_run


@dataclass(frozen=True, slots=True)
class Start:
    """A linear probe on one backbone, and the run that went on from there, if there is one.

    Attributes:
        probe: Its line on the leaderboard.
        key: The features that it was fitted on.
        head: As it was stored, fitted on all training rows.
        random: Whether only the architecture is taken, with random weights (`--weights none`).
        run: The run that started from this probe and whose network is the start now; None: the probe is.
    """

    probe: ProbeResult
    key: FeatureKey
    head: Head
    random: bool = False
    run: FinishedRun | None = None

    @property
    def text(self) -> str:
        """What it is, in words."""
        if self.run:
            return f"{self.run.name} ({self.key.backbone}@{self.key.size})"
        return f"{self.key}, random weights" if self.random else f"{self.key} + {self.probe.head}"


def choose_start(config: FinetuneConfig, dataset: ImageDataset) -> Start:
    """Return the leaderboard's best probe that a network can start from, or the run that is named.

    Such a probe is linear, on one backbone, and looks at the whole image, whatever views it learnt from besides: its
    scaler and weights fold into one dense layer.

    Raises:
        MissingFileError: There is no leaderboard, none of its probes can be started from, or no such run.
        StaleError: It was made from another state of the data set.
        InvalidInputError: The backbone's weights are not those that the features were made with, or the run cannot
            be gone on from in this way.
        UsageError: Weights are named beside a run, which has its own.
    """
    board = Leaderboard.load(config.runs / config.dataset, config.dataset, dataset.digest)
    if config.from_.startswith(f"{config.dataset}/"):
        return _start_of_run(config, board, dataset)
    named = "" if config.from_ == "auto" else config.from_
    for probe in board.ranked:
        one_backbone = len(probe.features) == 1 and probe.keys  # an ensemble has no keys
        if not one_backbone or (named and not is_named(probe.features[0], named)):
            continue
        key = probe.keys[0]  # of the plain view: those of others follow
        if key.view or not (board.head_folder(probe) / "head.json").exists():
            continue
        head = load_head(board.head_folder(probe))
        if not hasattr(head, "linear"):
            continue
        if len(head.classes_) != len(dataset.class_ids):
            raise InvalidInputError(
                f"probe {probe.id}: knows {len(head.classes_)} classes, {config.dataset} has {len(dataset.class_ids)}"
            )
        return Start(probe, key, head, _at_random(config, key))
    which = f"of {named} " if named else ""
    raise MissingFileError(
        f"{board.path}: expected a linear probe {which}on one backbone and the plain view, such as one "
        "of --head logistic; received none",
        remedy=Remedy("classify", config.dataset),
    )


def _start_of_run(config: FinetuneConfig, board: Leaderboard, dataset: ImageDataset) -> Start:
    """Return the network of a finished run as a start, with the probe that it began with itself."""
    run = open_run(config.store, config.runs, config.from_)
    before = run.identity
    if weights_named(config.weights) != "imagenet":
        raise UsageError(
            f"--weights {config.weights}: {run.name} has weights of its own; leave it out"
        )
    if config.select and not (before.select and before.recipe.epochs):
        raise InvalidInputError(
            f"{run.name}: learnt from the selection split too, so nothing can be chosen there any more; "
            "go on with --no-select, or from a run that held it out"
        )
    if config.recipe_for(dataset.record.symmetries).hidden != before.recipe.hidden:
        raise InvalidInputError(
            f"{run.name}: has dense layers {list(before.recipe.hidden)} before its head, and goes on with the same ones "
            "only; name its recipe with --recipe, or its layers with --set hidden=…"
        )
    probe = board.find(before.probe)
    return Start(probe, before.key, load_head(board.head_folder(probe)), run=run)


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
