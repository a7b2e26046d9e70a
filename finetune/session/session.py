"""What a fine-tuning run works on, and how its network is made and warm-started."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from sklearn.base import clone

from onepass.cache.content import find
from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.progress import counted
from onepass.cache.provenance import digest_file, digest_json
from onepass.classify.heads.class_weight import class_weights
from onepass.classify.metrics import Metric, find_metric
from onepass.classify.protocol.evaluate import find_positive, protocol_rows
from onepass.classify.protocol.inputs import inputs_of
from onepass.classify.protocol.views import repeated, stacked
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.extract.backbones.registry import WeightsChoice, find_backbone, weights_named
from onepass.extract.backend import default_precision
from onepass.extract.engines.engine import Engine
from onepass.extract.engines.keras_engine import compile_step
from onepass.extract.network.model import build_extractor
from onepass.finetune.config import AUTO, FinetuneConfig
from onepass.finetune.recipes import Recipe
from onepass.finetune.session.checkpoint import load_variables, save_variables
from onepass.finetune.session.run_identity import CONFIG, RunConfig, RunIdentity
from onepass.finetune.session.runs import Run, load_logits, logits_path, state_words
from onepass.finetune.session.start import Start, choose_start
from onepass.finetune.training import hosts
from onepass.finetune.training.batches import Examples
from onepass.finetune.training.frozen_rows import FrozenRows, open_frozen_rows
from onepass.finetune.training.inference import WEIGHTS, load_weights
from onepass.finetune.training.loop import Training
from onepass.finetune.training.model import Classifier, assemble, compare_logits, warm_start

log = logging.getLogger(__name__)

START = "start.npz"  # the head that a run starts with, in its folder
CHECKED = 16  # images on which the warm start is proved
TRIED = 256  # images that the start classifies at the size of the first epoch


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


@dataclass(frozen=True, slots=True)
class Session:
    """What a fine-tuning run works on.

    Attributes:
        config: What was asked for.
        dataset: The data set.
        start: The probe, or the network of a run, that it starts from.
        rows: Which rows it may look at: the protocol's own split, with the probe's seed. With
            `--select` the selection rows are neither trained on nor seen by the head; without an
            epoch there is nothing to choose, and the head is the stored probe.
        folder: Where everything of the run lies; None where nothing is kept.
    """

    config: FinetuneConfig
    dataset: ImageDataset
    start: Start
    rows: Rows
    folder: Path | None = None

    @property
    def recipe(self) -> Recipe:
        """How it trains."""
        return self.config.recipe_for(self.dataset.record.symmetries, len(self.rows.fit))

    @property
    def metric(self) -> Metric:
        """What epochs are chosen by: what was asked for, else what the probe was chosen by."""
        probe = self.start.probe
        column = find_positive(self.dataset, probe.positive)
        return find_metric(self.config.metric or probe.metric, column)

    @property
    def class_weights(self) -> np.ndarray | None:
        """What a training image of each class counts, (K,); None: all alike.

        Raises:
            InvalidInputError: The images of each class are to count the same, and a class has none.
        """
        if self.config.class_weight == "none":
            return None
        labels, classes = self.dataset.labels[self.rows.fit], self.dataset.class_ids
        if missing := sorted({*range(len(classes))} - {*labels.tolist()}):
            raise InvalidInputError(
                f"--class-weight {self.config.class_weight}: expected training rows of each class, received none of "
                f"{classes[missing[0]]}; train on more with --rows"
            )
        return class_weights(self.config.class_weight, labels, len(classes))

    @property
    def identity(self) -> RunIdentity:
        """What the course of the training depends on."""
        config, run = self.config, self.start.run
        return RunIdentity(
            dataset=config.dataset, dataset_digest=self.dataset.digest, probe=self.start.probe.id,
            features=self.start.key.recipe(), recipe=self.recipe, unfreeze=config.unfreeze,
            select=config.select, rows=config.rows, weights=config.weights, seed=config.seed,
            metric=self.metric.name, class_weight=config.class_weight,
            from_run=run.full_name if run else "", from_weights=digest_file(run.folder / WEIGHTS) if run else "",
        )  # fmt: skip

    @property
    def draws_seed(self) -> int:
        """Of order, augmentation and dropout; a run that goes on from another draws anew, not what that one drew."""
        seed, identity = self.config.seed, self.identity
        return (
            int(digest_json([seed, identity.from_weights])[:8], 16) if identity.from_run else seed
        )

    @property
    def learnt_from(self) -> np.ndarray:
        """Identities of the images that its network will have learnt from, uint8 (n, 16), some more than once."""
        return np.concatenate([self.start.learnt_from, self.dataset.content[self.rows.head]])

    @property
    def head_at_random(self) -> bool:
        """Whether the head starts from random weights."""
        return self.start.run is None and (self.start.random or bool(self.recipe.hidden))

    def with_config(self, config: FinetuneConfig) -> "Session":
        """Return the session of other flags, on the same data set, from the same start."""
        return replace(self, config=config, rows=_choose_rows(config, self.dataset, self.start))

    def with_recorded_rate(self) -> "Session":
        """Take over the learning rate that this run found before, where the flags leave it to the search."""
        if self.config.learning_rate != AUTO or self.folder is None:
            return self
        recorded = RunConfig.read_optional(self.folder / CONFIG)
        if recorded is None or recorded.found is None:
            return self
        return replace(self, config=replace(self.config, learning_rate=recorded.found.suggested))

    def check_features(self) -> None:
        """Refuse features that are not those of the probe, before anything is made, where they are needed.

        Raises:
            MissingFileError: The features that the probe was fitted on are gone.
            StaleError: They are others than they were.
        """
        fitted = self.folder is not None and (self.folder / START).exists()
        needed = self.start.run is None and not self.head_at_random and not fitted
        if self.rows.selection is not None and needed:
            inputs_of(self.config.store, self.dataset, self.start.probe)

    def build(self) -> Classifier:
        """Build the network that the probe's features came from, with a head of its shape."""
        key, config = self.start.key, self.config
        weights = weights_named("none" if self.start.run else config.weights)
        extractor = build_extractor(
            find_backbone(key.backbone), key.size, self.dataset.pixels.shape[1:],
            [(key.layer, key.pooling)], weights=WeightsChoice(weights, seed=config.seed),
            precision=default_precision(),
        )  # fmt: skip
        classes = len(self.dataset.class_ids)
        return assemble(extractor, classes, self.recipe, self.draws_seed, config.unfreeze)

    def frozen_rows(self, classifier: Classifier) -> AbstractContextManager[FrozenRows | None]:
        """Open what the network's frozen layers make of the images, where there are any and it may be kept."""
        config = self.config
        if config.unfreeze == "all" or not config.cache_frozen or not self.recipe.epochs:
            return nullcontext()
        seen = len(self.rows.fit) + (0 if self.rows.selection is None else len(self.rows.selection))
        return open_frozen_rows(
            classifier.trainer, self.recipe, self.start, config.store, self.dataset, seen
        )

    def training(
        self, classifier: Classifier, checkpoint: Path, start_counts: bool = True,
        frozen: FrozenRows | None = None,
    ) -> Training:  # fmt: skip
        """Return the training of a warm-started network; it resumes from the checkpoint, if there is one.

        Args:
            classifier: The network.
            checkpoint: The file.
            start_counts: Whether the network as it is now may be chosen, as epoch 0.
            frozen: What its frozen layers make of the images; None: that is computed in each step.
        """
        examples = Examples(
            self.dataset.pixels,
            self.dataset.labels,
            self.rows.fit,
            self.rows.selection,
            self.metric,
            self.class_weights,
            frozen,
        )
        config = self.config
        return Training(
            classifier, examples, self.recipe, self.draws_seed, checkpoint, config.checkpoint_every, start_counts
        )  # fmt: skip

    def warm(self, classifier: Classifier) -> float | None:
        """Give the network the weights that it starts with; return how far its logits are from the start's.

        Of a probe that is the head, if it can have them; None where it cannot.
        """
        if self.start.run:
            return self._continue(self.start.run, classifier)
        if self.head_at_random:
            why = "random weights" if self.start.random else "dense layers before the head"
            log.info(f"{self.start.text}: the head starts at random ({why})")
            return None
        weights, bias = self._head_weights()
        pixels = np.asarray(self.dataset.pixels[self.rows.fit[:CHECKED]])
        apart = warm_start(classifier, weights, bias, pixels)
        engine, numbers = Engine.of(self.start.key.precision), default_precision()
        alike = engine.precision == numbers
        of = "" if alike else f" on vectors in {numbers}; its own are of {engine}"
        log.info(f"{self.start.text}: warm start differs from the probe by at most {apart:.1g}{of}")
        self._try_first_size(classifier)
        return apart

    def _continue(self, run: Run, classifier: Classifier) -> float | None:
        """Give the network the weights of an earlier run, and prove that its logits are that run's.

        Returns:
            The largest difference of a logit; None where the run's rows are not today's.
        """
        load_weights(classifier, run.folder / WEIGHTS)
        self._try_first_size(classifier)
        if state := state_words(self.config.store, run, self.dataset):
            log.info(f"{self.start.text}: goes on from its network; {state}")
            return None
        classes, total = len(self.dataset.class_ids), len(self.dataset.labels)
        expected, rows = load_logits(logits_path(run.folder, "val"), classes, total)
        few = slice(CHECKED)
        step = compile_step(classifier.predictor, len(rows[few]))
        logits = np.asarray(step(np.asarray(self.dataset.pixels[rows[few]]))[0], np.float32)
        apart = compare_logits(logits, expected[few], f"{run.full_name}'s")
        log.info(f"{self.start.text}: goes on from its network (logits equal within {apart:.1g})")
        return apart

    def _try_first_size(self, classifier: Classifier) -> None:
        """Say what the start makes of smaller images, where the first epoch has them: a head is fitted to one size."""
        full = classifier.trainer.augment.size
        size = self.recipe.size_of(0, full)
        if size == full:
            return
        fit, batch = self.rows.fit, min(CHECKED, len(self.rows.fit))
        count = min(TRIED, len(fit)) // batch * batch
        rows = np.sort(np.random.default_rng(self.config.seed).permutation(fit)[:count])

        def share_right(model: keras.Model) -> float:
            step = compile_step(model, batch)
            parts = np.split(rows, count // batch)
            right = [
                np.argmax(step(self.dataset.pixels[p])[0], 1) == self.dataset.labels[p]
                for p in parts
            ]
            return 100 * float(np.mean(right))

        whole, small = share_right(classifier.predictor), share_right(classifier.predictor_at(size))
        log.info(
            f"{self.start.text}: right on {whole:.0f} % of {count} training images at {full} px, "
            f"on {small:.0f} % at the {size} px of the first epoch"
        )

    def _head_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (D, K) and bias (K,), float32, of the head that training starts with.

        The stored probe has seen all training rows. Where epochs are chosen on the selection split, a
        head of the same hyper-parameters is fitted anew, from zero, on the other rows; the run's
        folder, where there is one, keeps it.
        """
        rows, head, labels = self.rows, self.start.head, self.dataset.labels
        if rows.selection is None:
            return head.linear()
        path = self.folder / START if self.folder else None
        if path is None or not hosts.of_first(path.exists()):
            inputs = inputs_of(self.config.store, self.dataset, self.start.probe)
            log.info(
                f"{self.start.text}: fitted anew on {len(rows.head):,} rows, without the selection split"
            )
            views = inputs.all_views()
            fitted = clone(head).fit(stacked(views, rows.head), repeated(labels[rows.head], views))
            if path is None:
                return fitted.linear()
            linear = dict(zip(("weights", "bias"), fitted.linear(), strict=True))
            save_variables(path, {"head": linear}, {"rows": len(rows.head)})
        width, classes = len(head.linear()[0]), len(self.dataset.class_ids)
        weights, bias = (
            keras.Variable(np.zeros((width, classes))),
            keras.Variable(np.zeros(classes)),
        )
        load_variables(path, {"head": {"weights": weights, "bias": bias}})
        return keras.ops.convert_to_numpy(weights), keras.ops.convert_to_numpy(bias)


def open_session(config: FinetuneConfig) -> Session:
    """Open the data set and choose the probe to start from; nothing is written.

    Raises:
        MissingFileError: There is no data set, leaderboard or probe to start from.
        StaleError: The leaderboard was made from another state of the data set.
        InvalidInputError: The backbone's weights are not those that the features were made with.
        UsageError: No epoch is asked for, but the network is not a probe before its first one.
    """
    dataset = open_dataset(config.store, config.dataset)
    start = choose_start(config, dataset)
    _check_validation(dataset, start)
    session = Session(config, dataset, start, _choose_rows(config, dataset, start))
    random_or_run = session.head_at_random or start.run is not None
    if not session.recipe.epochs and (random_or_run or config.learning_rate == AUTO):
        raise UsageError(
            "--epochs 0: makes the probe a network and trains nothing; expected no --weights none, no "
            "dense layers before the head, no --learning-rate auto and no run to go on from"
        )
    return session


def _choose_rows(config: FinetuneConfig, dataset: ImageDataset, start: Start) -> Rows:
    rows = protocol_rows(dataset, start.probe.seed)
    select = config.select and config.recipe_for(dataset.record.symmetries).epochs > 0
    head = rows.fit if select else rows.train
    fit = head
    if config.rows and config.rows < len(fit):
        random = np.random.default_rng((config.seed, 2))
        fit = np.sort(random.permutation(fit)[: config.rows])
    return Rows(fit, head, _never_seen(rows.selection, dataset, start) if select else None)


def _never_seen(selection: np.ndarray, dataset: ImageDataset, start: Start) -> np.ndarray:
    """Return the selection rows that the network of a run did not learn from."""
    if start.run is None:
        return selection
    new = find(start.learnt_from, dataset.content[selection]) < 0
    name = start.run.full_name
    if not new.any():
        raise InvalidInputError(
            f"{name}: learnt from the selection split too, so nothing can be chosen there any more; "
            "go on with --no-select, or from a run that held it out"
        )
    if not new.all():
        log.info(
            f"{name} learnt from {(~new).sum():,} of the {len(new):,} selection images: left out there"
        )
    return selection[new]


def _check_validation(dataset: ImageDataset, start: Start) -> None:
    """Refuse a run that learnt from images which are validated on today, or of which that is not known.

    Stored in another size, the same photographs are other images. What both splits have today is no fault of the run:
    every model of this data set learns from it.
    """
    if start.run is None:
        return
    content = dataset.content
    seen = find(start.learnt_from, content) >= 0
    validation = dataset.rows("val")
    shared = find(content[dataset.rows("train")], content[validation]) >= 0
    validated = int((seen[validation] & ~shared).sum())
    if validated or not seen.any():
        which = (
            f"{counted(validated, 'image')} that {dataset.name} validates on today"
            if validated
            else f"images of which {dataset.name} holds none today, in this size"
        )
        raise InvalidInputError(f"{start.run.full_name}: learnt from {which}; train from a probe")
