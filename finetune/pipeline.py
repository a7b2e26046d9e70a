"""run_finetune: the leaderboard's winner → a trained network, its history and its score."""

import logging
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import keras

from onepass.cache.files import read_json, write_json
from onepass.cache.provenance import digest_array
from onepass.cache.stopping import StopRequest
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.protocol.scorings import record_scoring
from onepass.classify.scores import bootstrap_interval, compare
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.finetune.config import AUTO, FinetuneConfig
from onepass.finetune.errors import analyse_run
from onepass.finetune.finder import find_learning_rate
from onepass.finetune.session.checkpoint import model_variables, save_arrays
from onepass.finetune.session.run_identity import claim, identity, recorded_rate, refuse_other
from onepass.finetune.session.runs import open_run
from onepass.finetune.session.start import (
    Rows,
    Start,
    build_from,
    check_inputs,
    choose_rows,
    choose_start,
    warm,
)
from onepass.finetune.training.inference import predict_logits, save_logits
from onepass.finetune.training.layers import depth_groups, describe, table
from onepass.finetune.training.loop import EpochRow, Training
from onepass.finetune.training.model import Classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """What `onepass finetune` did; `result.json` in the run's folder, once it is done.

    Attributes:
        run: DATASET/NAME, as `predict --run` takes it.
        folder: Where everything of the run lies.
        start: Features and head that it started from.
        warm_start_difference: Largest difference of a logit from the probe's before step 1; None where
            the head started at random.
        history: One row a finished epoch: {epoch, loss, accuracy, selection_loss, selection_accuracy,
            seconds}; see `onepass.finetune.training.loop.EpochRow`.
        stopped: Why training stopped before its end; "" if it did not.
        probe_top1: Accuracy of the frozen probe on the reported split, 0 … 1.
        val_top1: Accuracy of the fine-tuned network there; None where training is not done.
        val_interval: Its 95 % bootstrap interval.
        p_value: McNemar's test against the probe.
        seconds: Of this process.
        recipe: Its name.
        settings: All its numbers, by name; those of the augmentation under "augmentation".
        unfrozen: What was trained: "all", "last:N" or "from:LAYER".
        from_scratch: Whether the backbone started from random weights.
        trained_rows: How many images were trained on.
        selection_rows: How many the epoch was chosen on; 0 where nothing was chosen.
        ended: Why there were no more epochs.
        kept: Which weights were kept, in words.
        kept_epochs: Their epochs.
        selection_top1: Accuracy of the kept weights on the selection split; None where nothing was chosen.
        images_per_second: Speed of training in the process that finished it.
        devices: What it ran on.
        gpu_use: Mean use of the GPUs while it trained, 0 … 1; None where it is not known.
    """

    run: str
    folder: Path
    start: str
    warm_start_difference: float | None
    history: list[EpochRow]
    stopped: str
    probe_top1: float
    val_top1: float | None = None
    val_interval: tuple[float, float] | None = None
    p_value: float | None = None
    seconds: float = 0.0
    recipe: str = "default"
    settings: dict[str, Any] | None = None
    unfrozen: str = "all"
    from_scratch: bool = False
    trained_rows: int = 0
    selection_rows: int = 0
    ended: str = ""
    kept: str = ""
    kept_epochs: tuple[int, ...] = ()
    selection_top1: float | None = None
    images_per_second: float | None = None
    devices: tuple[str, ...] = ()
    gpu_use: float | None = None


def run_finetune(config: FinetuneConfig, stop: StopRequest | None = None) -> FinetuneResult:
    """Train backbone and head end to end, starting from the chosen probe.

    Epochs are chosen on the selection split, which is not trained on (`--no-select` trains on all rows
    and chooses nothing); the reported split is scored once at the end. The same command goes on from the
    last checkpoint, or says that the run is done.

    Raises:
        MissingFileError: There is no data set, leaderboard or probe to start from.
        StaleError: The leaderboard was made from another state of the data set, or the features were.
        InvalidInputError: The run's folder holds a run of another configuration.
        DivergedError: The loss is no longer a number.
    """
    begin = time.monotonic()
    dataset = open_dataset(config.store, config.dataset)
    start = choose_start(config, dataset)
    name = config.run or _name(config, start)
    folder = config.runs / config.dataset / "finetune" / name
    config = recorded_rate(config, folder)
    refuse_other(folder, identity(config, dataset, start))
    if (folder / "result.json").exists():
        log.info(f"{folder}: this run is done; its result follows (another name: --run NAME)")
        return _load_result(folder)
    stop = (stop or StopRequest()).limit(config.time_limit)
    rows = choose_rows(config, dataset, start)
    check_inputs(config, dataset, start, folder)
    config, found = _with_rate(config)
    classifier = build_from(config, dataset, start)
    claim(folder, identity(config, dataset, start), found)
    apart = warm(config, dataset, start, rows, folder, classifier)
    _say_layers(config, classifier)
    training = Training(
        classifier, dataset.pixels, dataset.labels, rows.fit, config.chosen_recipe, config.seed,
        folder / "checkpoint.npz", selection=rows.selection, every=config.checkpoint_every,
    )  # fmt: skip
    stopped = training.run(lambda: stop.reason)
    result = FinetuneResult(
        run=f"{config.dataset}/{name}", folder=folder, start=start.text,
        warm_start_difference=apart, history=training.history, stopped=stopped,
        probe_top1=start.probe.val_top1, seconds=time.monotonic() - begin,
        recipe=config.recipe, settings=asdict(config.chosen_recipe), unfrozen=config.unfreeze,
        from_scratch=start.random, trained_rows=len(rows.fit),
        selection_rows=0 if rows.selection is None else len(rows.selection),
        images_per_second=training.images_per_second, devices=tuple(training.devices),
        gpu_use=training.use.mean,
    )  # fmt: skip
    if stopped:
        return result
    chosen = training.conclude()
    result = replace(
        result, ended=training.ended, kept=chosen.why, kept_epochs=chosen.epochs,
        selection_top1=chosen.accuracy,
    )  # fmt: skip
    return _conclude(result, classifier, dataset, start, config, rows, begin)


def _name(config: FinetuneConfig, start: Start) -> str:
    ending = f"{config.recipe}-from-scratch" if start.random else config.recipe
    return f"{str(start.key).replace('/', '_')}-{ending}"


def _with_rate(config: FinetuneConfig) -> tuple[FinetuneConfig, dict[str, Any] | None]:
    """Look for the learning rate where that is asked for; return what was found as well."""
    if config.learning_rate != AUTO:
        return config, None
    found = find_learning_rate(config)
    keras.backend.clear_session()  # its network is not needed any more
    return replace(config, learning_rate=found.suggested), asdict(found)


def _say_layers(config: FinetuneConfig, classifier: Classifier) -> None:
    recipe = config.chosen_recipe
    top = classifier.trainer.top
    groups = depth_groups(classifier.backbone)
    log.info(table(describe(groups, [*top.hidden, top.head], recipe.layer_decay)))
    norm = {"frozen": "as it was trained with", "train": "from each batch"}[recipe.batchnorm]
    log.info(f"trained: {config.unfreeze}; BatchNorm statistics: {norm}")


def _conclude(
    result: FinetuneResult,
    classifier: Classifier,
    dataset: ImageDataset,
    start: Start,
    config: FinetuneConfig,
    allowed: Rows,
    begin: float,
) -> FinetuneResult:
    """Keep the weights, score the reported split once, compare with the probe, write the result."""
    folder = result.folder
    save_arrays(folder / "weights.npz", {"model": model_variables(classifier.predictor)}, {})
    if allowed.selection is not None:
        said = predict_logits(classifier, dataset.pixels, allowed.selection, "selection")
        save_logits(folder / "selection_logits.npz", said, allowed.selection)
    rows = dataset.rows("val")
    truth = dataset.labels[rows]
    logits = predict_logits(classifier, dataset.pixels, rows, "validation")
    save_logits(folder / "val_logits.npz", logits, rows)
    correct = logits.argmax(axis=1) == truth
    head_folder = config.runs / config.dataset / "heads" / start.probe.id
    frozen = load_probabilities(head_folder, start.probe.rows).val_predicted == truth
    record_scoring(
        config.runs / config.dataset, probe=result.run, model=digest_array(logits),
        features=start.probe.features_text, inputs=start.probe.features_digest, head="finetune",
        dataset_digest=dataset.digest, seed=config.seed, accuracy=float(correct.mean()),
    )  # fmt: skip
    result = replace(
        result,
        val_top1=float(correct.mean()),
        val_interval=bootstrap_interval(correct, config.seed),
        p_value=compare("fine-tuned", "probe", correct, frozen).p_value,
        seconds=time.monotonic() - begin,
    )
    write_json(folder / "result.json", {**asdict(result), "folder": folder.name})
    analyse_run(open_run(config.store, config.runs, result.run), config.runs)
    return result


def _load_result(folder: Path) -> FinetuneResult:
    value = read_json(folder / "result.json")
    history = [EpochRow(**row) for row in value.pop("history")]
    tuples = {name: tuple(value[name] or ()) for name in ("kept_epochs", "devices")}
    known = {field.name for field in fields(FinetuneResult)}
    value = {name: value[name] for name in value.keys() & known}
    return FinetuneResult(**{**value, **tuples, "folder": folder, "history": history})
