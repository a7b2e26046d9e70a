"""Where fine-tuning starts from: the chosen probe, its backbone and its weights."""

import logging
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from sklearn.base import clone

from onepass.cache.errors import InvalidInputError, MissingFileError
from onepass.cache.features import FeatureKey
from onepass.classify.heads.base import Head
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.classify.protocol.evaluate import protocol_rows
from onepass.classify.protocol.inputs import inputs_of
from onepass.classify.protocol.views import take
from onepass.data.dataset import ImageDataset
from onepass.extract.backbones.registry import find_backbone, weights_identity
from onepass.extract.backend import default_precision
from onepass.finetune.config import FinetuneConfig
from onepass.finetune.session.checkpoint import load_arrays, save_arrays
from onepass.finetune.training.model import Classifier, build_classifier, warm_start

log = logging.getLogger(__name__)

START = "start.npz"  # the head that a run starts with, in its folder
CHECKED = 16  # images on which the warm start is proved


@dataclass(frozen=True, slots=True)
class Start:
    """A linear probe on one backbone.

    Attributes:
        probe: Its line on the leaderboard.
        key: The features that it was fitted on.
        head: As it was stored, fitted on all training rows.
        random: Whether only the architecture is taken, with random weights (`--weights none`).
    """

    probe: ProbeResult
    key: FeatureKey
    head: Head
    random: bool = False

    @property
    def text(self) -> str:
        """What it is, in words."""
        return f"{self.key}, random weights" if self.random else f"{self.key} + {self.probe.head}"


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows a run may look at, int64, ascending.

    Attributes:
        fit: Those that are trained on.
        head: Those that the head it starts from may have been fitted on.
        selection: Those that choose the epoch; None where nothing is chosen.
    """

    fit: np.ndarray
    head: np.ndarray
    selection: np.ndarray | None


def choose_start(config: FinetuneConfig, dataset: ImageDataset) -> Start:
    """Return the leaderboard's best probe that a network can start from.

    Such a probe is linear, on one backbone, without a view: its scaler and weights fold into one
    dense layer.

    Raises:
        MissingFileError: There is no leaderboard, or none of its probes can be started from.
        StaleError: It was made from another state of the data set.
        InvalidInputError: The backbone's weights are not those that the features were made with.
    """
    board = Leaderboard.load(config.runs / config.dataset, config.dataset, dataset.digest)
    wanted = [] if config.from_ == "auto" else [config.from_]
    for probe in board.ranked:
        if len(probe.keys) != 1 or (wanted and probe.features_text not in wanted):
            continue
        key = FeatureKey(**probe.keys[0])
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
    which = f"of {config.from_} " if wanted else ""
    raise MissingFileError(
        f"{board.path}: no linear probe {which}on one backbone and the plain view; make one with: "
        f"onepass classify --dataset {config.dataset} --head logistic"
    )


def _at_random(config: FinetuneConfig, key: FeatureKey) -> bool:
    """Say whether training starts from random weights, or check that it has the features' own."""
    if config.weights == "none" and not key.weights.startswith("none"):
        return True
    spec = find_backbone(key.backbone)
    found = weights_identity(spec, config.weights_source, config.seed)
    if found != key.weights:
        raise InvalidInputError(
            f"{key}: made with weights {key.weights[:20]}, received {found[:20]}; "
            "name the same file with --weights"
        )
    return False


def choose_rows(config: FinetuneConfig, dataset: ImageDataset, start: Start) -> Rows:
    """Return the rows of a run: the protocol's own split, with the probe's seed.

    With `--select` the selection rows are neither trained on nor seen by the head that is started from.
    """
    rows = protocol_rows(dataset.labels, dataset.rows, dataset.class_ids, start.probe.seed)
    head = rows.fit if config.select else rows.train
    fit = head
    if config.rows and config.rows < len(fit):
        random = np.random.default_rng((config.seed, 2))
        fit = np.sort(random.permutation(fit)[: config.rows])
    return Rows(fit, head, rows.selection if config.select else None)


def check_inputs(
    config: FinetuneConfig, dataset: ImageDataset, start: Start, folder: Path
) -> None:  # fmt: skip
    """Refuse features that are not those of the probe, before anything is made, where they are needed.

    Raises:
        MissingFileError: The features that the probe was fitted on are gone.
        StaleError: They are others than they were.
    """
    if config.select and not at_random(config, start) and not (folder / START).exists():
        inputs_of(config.store, dataset, start.probe)


def at_random(config: FinetuneConfig, start: Start) -> bool:
    """Say whether the head starts from random weights."""
    return start.random or bool(config.chosen_recipe.hidden)


def start_weights(
    config: FinetuneConfig, dataset: ImageDataset, start: Start, rows: Rows, folder: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (D, K) and bias (K,), float32, of the head that training starts with.

    The stored probe has seen all training rows. Where epochs are chosen on the selection split, a head of
    the same hyper-parameters is fitted anew, from zero, on the other rows; the run's folder, where
    there is one, keeps it.

    Raises:
        MissingFileError: The features that the probe was fitted on are gone.
        StaleError: They are others than they were.
    """
    if rows.selection is None:
        return start.head.linear()
    path = folder / START if folder else None
    if path is None or not path.exists():
        inputs = inputs_of(config.store, dataset, start.probe)
        log.info(
            f"{start.text}: fitted anew on {len(rows.head):,} rows, without the selection split"
        )
        head = clone(start.head).fit(take(inputs.vectors(), rows.head), dataset.labels[rows.head])
        if path is None:
            return head.linear()
        save_arrays(path, {"head": list(head.linear())}, {"rows": len(rows.head)})
    width, classes = len(start.head.linear()[0]), len(dataset.class_ids)
    weights, bias = keras.Variable(np.zeros((width, classes))), keras.Variable(np.zeros(classes))
    load_arrays(path, {"head": [weights, bias]})
    return keras.ops.convert_to_numpy(weights), keras.ops.convert_to_numpy(bias)


def build_from(config: FinetuneConfig, dataset: ImageDataset, start: Start) -> Classifier:
    """Build the network that a probe's features came from, with a head of its shape."""
    return build_classifier(
        find_backbone(start.key.backbone), start.key.size, dataset.pixels.shape[1:],
        len(dataset.class_ids), config.chosen_recipe, output=(start.key.layer, start.key.pooling),
        weights=config.weights_source, seed=config.seed, which=config.unfreeze,
        precision=default_precision(),
    )  # fmt: skip


def warm(
    config: FinetuneConfig, dataset: ImageDataset, start: Start, rows: Rows, folder: Path | None,
    classifier: Classifier,
) -> float | None:  # fmt: skip
    """Give the head the probe's weights, if it can have them; return how far the logits are apart."""
    if at_random(config, start):
        why = "random weights" if start.random else "dense layers before the head"
        log.info(f"{start.text}: the head starts at random ({why})")
        return None
    weights, bias = start_weights(config, dataset, start, rows, folder)
    apart = warm_start(classifier, weights, bias, np.asarray(dataset.pixels[rows.fit[:CHECKED]]))
    log.info(f"{start.text}: warm start differs from the probe by at most {apart:.1g}")
    return apart
