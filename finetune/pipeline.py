"""run_finetune: the leaderboard's winner → a trained network, its history and its score."""

import logging
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from onepass.cache.locks import exclusive
from onepass.cache.provenance import digest_array, digest_json
from onepass.cache.stopping import StopRequest
from onepass.cache.tracking import LoggedRun, Logs, Point, check_installed
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import compare, confidence_interval
from onepass.classify.protocol.scorings import Scoring, read_scorings, record_scoring
from onepass.finetune.config import AUTO, FinetuneConfig
from onepass.finetune.errors import ERRORS, analyse_run
from onepass.finetune.finder import find_rate
from onepass.finetune.session.checkpoint import named_variables, save_variables
from onepass.finetune.session.history import points_of
from onepass.finetune.session.result import RESULT, FinetuneResult
from onepass.finetune.session.run_identity import (
    CONFIG,
    RateSearch,
    RunConfig,
    record_run,
    refuse_other,
)
from onepass.finetune.session.runs import logits_path, open_run, record_learnt_from
from onepass.finetune.session.session import Session, open_session
from onepass.finetune.training import hosts
from onepass.finetune.training.inference import WEIGHTS, predict_logits, save_logits
from onepass.finetune.training.layers import depth_groups, describe, table
from onepass.finetune.training.loop import Training
from onepass.finetune.training.model import Classifier

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.npz"
ANOTHER = "give this run a name of its own with --run NAME"


def run_finetune(config: FinetuneConfig, stop: StopRequest | None = None) -> FinetuneResult:
    """Train backbone and head end to end, starting from the chosen probe, or from an earlier run's network.

    Epochs are chosen on the selection split, which is not trained on (`--no-select` trains on all rows
    and chooses nothing); the start is a candidate like any epoch. The validation split is scored once at
    the end. The same command resumes from the last checkpoint, or says that the run is finished. With
    `--epochs 0` the run is the probe, as a network.

    Raises:
        MissingFileError: There is no data set, leaderboard, probe or run to start from.
        StaleError: The leaderboard was made from another state of the data set, or the features or that run were.
        InvalidInputError: The run's folder holds a run of another configuration.
        LockedError: Another process trains in it.
        DivergedError: The loss is no longer a number.
    """
    check_installed(config.log)
    session = open_session(config)
    runs = config.runs / config.dataset
    folder = runs / "finetune" / (config.run or _name(session))
    with exclusive(folder, instead=ANOTHER) if hosts.first() else nullcontext():
        session = replace(session, folder=folder).with_recorded_rate()
        searched = session.config.learning_rate == AUTO
        refuse_other(folder, session.identity, {"learning_rate": AUTO} if searched else {})
        if (folder / RESULT).exists():
            log.info(
                f"{folder}: this run is finished; its result follows (another name: --run NAME)"
            )
            result = replace(FinetuneResult.read(folder / RESULT), folder=folder)
            with _logs(session) as logs:
                _log_result(logs, result)
            killed_between = not (folder / ERRORS).exists() and logits_path(folder, "val").exists()
            if killed_between and hosts.first():
                analyse_run(open_run(config.store, config.runs, result.run), config.runs)
            return result
        read_scorings(runs, session.dataset.digest)  # what is damaged is said before the work
        return _trained(session, folder, (stop or StopRequest()).limit(config.time_limit))


def _trained(session: Session, folder: Path, stop: StopRequest) -> FinetuneResult:
    """Train in a folder that no other process writes, from the claim to the result."""
    begin, config = time.monotonic(), session.config
    session.check_features()
    session, found = _with_rate(session)
    classifier = session.build()
    if hosts.first():
        record_learnt_from(folder, session.learnt_from)
        record_run(folder, session.identity, found, session.dataset)
    apart = session.warm(classifier)
    _log_layers(session, classifier)
    with _logs(session) as logs:
        with session.frozen_rows(classifier) as frozen:
            training = session.training(classifier, folder / CHECKPOINT, frozen=frozen)
            stopped = training.run(
                lambda: stop.reason,
                told=lambda: logs.write(points_of(training.history, training.start)),
            )
            chosen = None if stopped else training.conclude()
        result = _result(session, folder, training, apart, stopped)
        if chosen:
            result = replace(
                result, ended=training.ended, kept=chosen.why, kept_epochs=chosen.epochs,
                selection_top1=chosen.accuracy,
            )  # fmt: skip
            result = _scored(result, session, classifier, chosen.logits)
            _log_result(logs, result)
    result = replace(result, seconds=time.monotonic() - begin)
    if not stopped and hosts.first():
        replace(result, folder=Path(folder.name)).write(folder / RESULT)
        analyse_run(open_run(config.store, config.runs, result.run), config.runs)
    hosts.wait()
    return result


def _name(session: Session) -> str:
    if session.start.run:
        return f"{session.start.run.name}-continued"
    recipe = session.config.recipe if session.recipe.epochs else "probe"
    ending = f"{recipe}-from-scratch" if session.start.random else recipe
    return f"{str(session.start.key).replace('/', '_')}-{ending}"


def _logs(session: Session) -> Logs:
    """Open what `--log` asks for; of several processes only the first writes."""
    folder, config = session.folder, session.config
    assert folder is not None
    names = config.log if hosts.first() else ()
    if not names:
        return Logs((), LoggedRun("", "", "", folder, config.runs, {}))
    recorded = RunConfig.read(folder / CONFIG)
    identity = digest_json([recorded.identity.digest, recorded.made_by.created])
    settings = recorded.identity.flat()
    run = LoggedRun(config.dataset, folder.name, identity, folder, config.runs, settings)
    logs = Logs(names, run)
    log.info(f"logged to {logs.places}")
    return logs


def _log_result(logs: Logs, result: FinetuneResult) -> None:
    """Write what is known of a finished run, the score on the validation split as the last step's."""
    points = points_of(result.history, result.start_selection)
    if result.val_top1 is not None:
        top1 = {"validation/top1": result.val_top1}
        points.append(Point(len(result.history), top1, points[-1].time))
    logs.write(points)
    logs.finished = True


def _with_rate(session: Session) -> tuple[Session, RateSearch | None]:
    """Search for the learning rate where that is asked for; return what was found as well."""
    if session.config.learning_rate != AUTO:
        return session, None
    found = find_rate(session)
    keras.backend.clear_session()  # its network is not needed any more
    return replace(session, config=replace(session.config, learning_rate=found.suggested)), found


def _log_layers(session: Session, classifier: Classifier) -> None:
    recipe = session.recipe
    top = classifier.trainer.top
    groups = depth_groups(classifier.backbone)
    log.info(table(describe(groups, [*top.hidden, top.head], recipe.layer_decay)))
    norm = {"frozen": "frozen", "train": "of each batch"}[recipe.batchnorm]
    log.info(f"trained: {session.config.unfreeze}; BatchNorm statistics: {norm}")
    log.info(f"augmentation: {', '.join(recipe.augmentation.parts) or 'none'}")
    if (weights := session.class_weights) is not None:
        log.info(
            f"each class counts the same: an image {weights.min():.2g} to {weights.max():.2g} times"
        )


def _result(
    session: Session, folder: Path, training: Training, apart: float | None, stopped: str
) -> FinetuneResult:
    """Return what is known of a run before its end."""
    config, rows, start = session.config, session.rows, session.start
    return FinetuneResult(
        run=f"{config.dataset}/{folder.name}", folder=folder, start=start.text,
        warm_start_difference=apart, history=tuple(training.history), stopped=stopped,
        probe_top1=start.probe.val_top1, recipe=config.recipe, settings=session.recipe,
        unfrozen=config.unfreeze, from_scratch=start.random, trained_rows=len(rows.fit),
        selection_rows=0 if rows.selection is None else len(rows.selection),
        images_per_second=training.images_per_second, devices=tuple(training.devices),
        gpu_use=training.use.mean, probe=start.probe.id, start_selection=training.start,
        test_rows=len(session.dataset.rows("test")), from_run=start.run.full_name if start.run else "",
    )  # fmt: skip


def _scored(
    result: FinetuneResult, session: Session, classifier: Classifier, selection_logits: np.ndarray | None
) -> FinetuneResult:  # fmt: skip
    """Keep the weights, score the validation split once, and compare with the probe.

    Args:
        result: What is known of the run.
        session: What it works on.
        classifier: With the weights that are kept.
        selection_logits: What it says of the selection rows; None where that is still to be computed.
    """
    folder, dataset, probe = result.folder, session.dataset, session.start.probe
    runs, seed = session.config.runs / dataset.name, session.config.seed
    save_variables(folder / WEIGHTS, {"model": named_variables(classifier.predictor)}, {})
    selection = session.rows.selection
    if selection is not None:
        logits = selection_logits
        if logits is None:
            logits = predict_logits(classifier, dataset.pixels, selection, "selection")
        save_logits(logits_path(folder, "selection"), logits, selection)
    rows = dataset.rows("val")
    truth = dataset.labels[rows]
    logits = predict_logits(classifier, dataset.pixels, rows, "validation")
    save_logits(logits_path(folder, "val"), logits, rows)
    correct = logits.argmax(axis=1) == truth
    frozen = load_probabilities(runs / "heads" / probe.id, probe.rows).val_predicted == truth
    scoring = Scoring(
        probe=result.run, model=digest_array(logits), features=probe.features_text,
        inputs=probe.features_digest, head="finetune", dataset_digest=dataset.digest, seed=seed,
        accuracy=float(correct.mean()),
    )  # fmt: skip
    if hosts.first():
        record_scoring(runs, scoring)
    return replace(
        result,
        val_top1=float(correct.mean()),
        val_interval=confidence_interval(correct, seed),
        p_value=compare("fine-tuned", "probe", correct, frozen).p_value,
    )
