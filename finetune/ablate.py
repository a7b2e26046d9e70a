"""The short runs of an ablation: with all parts of the augmentation, and with each part left out."""

import logging
import time
from dataclasses import dataclass, fields, replace
from shutil import rmtree
from typing import ClassVar

import numpy as np

from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import UsageError
from onepass.cache.files import make_folder
from onepass.cache.locks import exclusive
from onepass.cache.stopping import StopRequest
from onepass.finetune.ablation import (
    ABLATION,
    EVERYTHING,
    Ablation,
    AblationLine,
    AblationResult,
    compare_line,
    line_title,
)
from onepass.finetune.config import STUDIES, AblateConfig
from onepass.finetune.recipes import Augmentation
from onepass.finetune.session.run_identity import RunIdentity
from onepass.finetune.session.runs import load_logits, logits_path
from onepass.finetune.session.session import Session, open_session
from onepass.finetune.training.inference import predict_logits, save_logits

log = logging.getLogger(__name__)

SHORT_RUNS = "ablation"  # their folder under runs/<data set>/finetune


@record
class ShortRun(Artifact):
    """`done.json` of a finished short run.

    Attributes:
        identity: What its course depended on.
        seconds: Of training.
    """

    SAME_SINCE: ClassVar[int] = 0

    identity: RunIdentity
    seconds: float


@dataclass(frozen=True, slots=True)
class _FinishedShortRun:
    """Whether a short run had each selection image right, bool (n,), and how long it trained (s)."""

    correct: np.ndarray
    seconds: float


def ablate(config: AblateConfig, stop: StopRequest | None = None) -> AblationResult:
    """Train the short runs and compare them on the selection split; the validation split is not looked at.

    All runs see the same rows in the same order, and what the parts that are left draw is the same.
    The same command resumes where it was interrupted; runs that are finished are not run again.

    Raises:
        UsageError: The augmentation has no part to leave out, or there is no epoch to train.
        MissingFileError: There is no data set, leaderboard or probe to start from.
        LockedError: Another process runs an ablation on that data set.
    """
    session = open_session(study(config))
    if not session.recipe.augmentation.parts:
        raise UsageError(
            "--augmentation recipe: the recipe has none; name another, or --set flip=true"
        )
    if not session.recipe.epochs:
        raise UsageError("ablate: --epochs 0: expected at least 1")
    request = (stop or StopRequest()).limit(config.time_limit)
    place = config.runs / config.dataset / "finetune"
    with exclusive(place / SHORT_RUNS):
        lines, stopped = _lines(session, config.seeds, request)
        Ablation(
            config.dataset, session.start.text, config.recipe, session.recipe.augmentation,
            config.seeds, session.recipe.epochs, config.rows, lines,
        ).write(place / ABLATION)  # fmt: skip
    return AblationResult(place / ABLATION, session.start.text, lines, stopped)


def _lines(
    session: Session, seeds: int, request: StopRequest
) -> tuple[tuple[AblationLine, ...], str]:
    """Return the lines of the table, and why they are not all there; "" if they are."""
    parts = session.recipe.augmentation.parts
    lines: list[AblationLine] = []
    reference = np.empty(0)
    for part in ["", *parts, *([EVERYTHING] if len(parts) > 1 else [])]:
        runs = _runs_of_a_line(session, part, seeds, request)
        if len(runs) < seeds:
            return tuple(lines), request.reason
        values = np.mean([run.correct for run in runs], axis=0)
        reference = reference if part else values
        lines.append(
            compare_line(
                part, values, reference, epochs=session.recipe.epochs, rows=len(session.rows.fit),
                seconds=sum(run.seconds for run in runs),
            )
        )  # fmt: skip
    return tuple(lines), ""


def _runs_of_a_line(
    session: Session, part: str, seeds: int, request: StopRequest
) -> list[_FinishedShortRun]:
    """Return the short runs without a part, one per seed; fewer where a stop was asked for."""
    without = session.recipe.augmentation.parts if part == EVERYTHING else (part,) if part else ()
    runs: list[_FinishedShortRun] = []
    for seed in range(session.config.seed, session.config.seed + seeds):
        settings = (*session.config.set, *(f"{name}=0" for name in without))
        log.info(f"{line_title(part)}, seed {seed}")
        line = session.with_config(replace(session.config, seed=seed, set=settings))
        run = _short_run(line, request)
        if run is None:
            break
        runs.append(run)
    return runs


def study(config: AblateConfig) -> AblateConfig:
    """Return the configuration of the run with all parts: `--augmentation`, then `--set`."""
    named = STUDIES[config.augmentation]
    if named is None:
        return config
    settings = (f"{f.name}={getattr(named, f.name)}" for f in fields(Augmentation))
    return replace(config, set=(*settings, *config.set))


def _short_run(session: Session, request: StopRequest) -> _FinishedShortRun | None:
    """Train one run, or read what it found; None where a stop was asked for before its end."""
    config, dataset, rows = session.config, session.dataset, session.rows
    assert rows.selection is not None
    place = config.runs / config.dataset / "finetune" / SHORT_RUNS
    folder = place / session.identity.digest[:12]
    done = folder / "done.json"
    if not done.exists():
        begin = time.monotonic()
        make_folder(folder)
        classifier = session.build()
        replace(session, folder=place / f"start-{session.start.probe.id}").warm(classifier)
        # what is compared is how the parts train: the start is the same for all
        training = session.training(classifier, folder / "checkpoint.npz", start_counts=False)
        if training.run(lambda: request.reason):
            return None
        training.conclude()
        logits = predict_logits(classifier, dataset.pixels, rows.selection, "selection")
        save_logits(logits_path(folder, "selection"), logits, rows.selection)
        seconds = sum(row.seconds for row in training.history) or time.monotonic() - begin
        ShortRun(session.identity, seconds).write(done)
        (folder / "checkpoint.npz").unlink()
        rmtree(folder / "epochs")
    logits, evaluated = load_logits(
        logits_path(folder, "selection"), len(dataset.class_ids), len(dataset.labels)
    )
    correct = logits.argmax(axis=1) == dataset.labels[evaluated]
    return _FinishedShortRun(correct, ShortRun.read(done).seconds)
