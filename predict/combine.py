"""The predictions of runs, views and frozen probes together, as a file to hand in.

Beside the file lies `<file>.json`: `members` (name, views, weight), `weights` ("equal" or "learnt"),
`temperature`, `learnt_on` (how many selection rows weights and temperature were learnt on), `note`,
`split`, `rows`, `format`, and where the labels are known `val_top1`, `val_interval`, `log_loss`;
`dataset`, `dataset_digest` and `made_by`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.files import write_atomic, write_json
from onepass.cache.provenance import digest_array, digest_json, made_by
from onepass.classify.config import PredictConfig as FormatConfig
from onepass.classify.metrics import (
    apply_temperature,
    confidence_interval,
    fit_temperature,
    log_loss,
    log_probabilities,
)
from onepass.classify.protocol.scorings import record_scoring
from onepass.data.dataset import ImageDataset
from onepass.finetune.config import PredictConfig
from onepass.finetune.session.runs import open_run, rows_of
from onepass.predict.ensemble import learn_weights, mix
from onepass.predict.members import Member, probe_member, run_member
from onepass.predict.probe import content_of, file_ending
from onepass.predict.views import expand_views, view_text


@dataclass(frozen=True, slots=True)
class Score:
    """How good predictions of labelled rows are.

    Attributes:
        val_top1: Accuracy, 0 … 1.
        val_interval: Its 95 % bootstrap interval.
        log_loss: Mean negative log-probability of the true classes (nats).
    """

    val_top1: float
    val_interval: tuple[float, float]
    log_loss: float


@dataclass(frozen=True, slots=True)
class PredictResult:
    """Where predictions were written, and what made them.

    Attributes:
        path: The file.
        record: The JSON beside it.
        rows: Lines in it, a header apart.
        split: Which rows were predicted.
        members: Names of runs and probes.
        views: What each run looked at.
        weights: Of the members, together 1.
        temperature: By which the logarithms of the probabilities were divided; 1.0 for none.
        learnt_on: Selection rows that weights and temperature were learnt on; 0 for none.
        note: Why nothing was learnt, where it was asked for; else "".
        score: On the reported rows; None for rows without labels.
    """

    path: Path
    record: Path
    rows: int
    split: str
    members: tuple[str, ...]
    views: tuple[str, ...]
    weights: tuple[float, ...]
    temperature: float
    learnt_on: int
    note: str
    score: Score | None


def predict_run(config: PredictConfig) -> PredictResult:
    """Write the class of every row of a split, in row order, by one run or by several members.

    A member's probabilities are the mean over its views; the members' are averaged with equal or
    learnt weights. Weights and temperature are learnt on selection rows that no member trained on,
    and never on the reported split, which is scored once.

    Raises:
        MissingFileError: There is no such run or probe, or it is not finished.
        StaleError: The data set has changed since.
        InvalidInputError: Weights were to be learnt, but members saw different selection rows.
    """
    views = expand_views(config.views)
    runs = [open_run(config.store, config.runs, name) for name in config.run]
    dataset = runs[0].dataset
    rows = rows_of(dataset, config.split)
    members = [run_member(run, views, config.split, rows) for run in runs]
    members += [probe_member(config.runs, dataset, name, config.split) for name in config.probe]
    weights, temperature, learnt_on, note = _learn(members, dataset, config)
    mixed = mix([m.probabilities for m in members], weights)
    probabilities = apply_temperature(mixed, temperature)
    path = config.out or _default_path(config, runs[0].folder)
    _write(path, dataset, rows, probabilities, config)
    result = PredictResult(
        path=path, record=path.with_name(path.name + ".json"), rows=len(rows), split=config.split,
        members=tuple(member.name for member in members), views=views,
        weights=tuple(map(float, weights)), temperature=temperature, learnt_on=learnt_on, note=note,
        score=_score(probabilities, dataset.labels[rows]),
    )  # fmt: skip
    write_json(result.record, _record(result, dataset, config))
    if result.score:
        plain = len(members) == len(views) == 1
        said = (
            runs[0].logits(config.split)[0] if plain else probabilities
        )  # a run knows its own logits
        _remember(result, result.score, dataset, digest_array(said), config)
    return result


def _learn(
    members: list[Member], dataset: ImageDataset, config: PredictConfig
) -> tuple[np.ndarray, float, int, str]:
    """Return weights, temperature, how many selection rows they were learnt on, and a note."""
    weights = np.full(len(members), 1 / len(members))
    wanted = config.temperature or config.weights == "learnt"
    shared, why = _shared_selection(members)
    if shared is None:
        if config.weights == "learnt":
            raise InvalidInputError(f"--weights learnt: {why}; use --weights equal")
        return weights, 1.0, 0, f"no temperature: {why}" if wanted else ""
    if not wanted:
        return weights, 1.0, 0, ""
    truth = dataset.labels[shared]
    parts = [member.selection for member in members if member.selection is not None]
    if config.weights == "learnt" and len(members) > 1:
        weights = learn_weights(parts, truth)
    temperature = 1.0
    if config.temperature:
        temperature = fit_temperature(truth, log_probabilities(mix(parts, weights)))
    return weights, temperature, len(shared), ""


def _shared_selection(members: list[Member]) -> tuple[np.ndarray | None, str]:
    """Return the selection rows that all members predicted without having trained on them, or why not."""
    first = members[0].selection_rows
    for member in members:
        if member.selection_rows is None:
            return None, f"{member.name} was trained on the selection rows as well"
        if first is None or not np.array_equal(member.selection_rows, first):
            return None, f"{member.name} and {members[0].name} held other rows out"
    return first, ""


def _score(probabilities: np.ndarray, truth: np.ndarray) -> Score | None:
    if truth.min() < 0:
        return None
    correct = probabilities.argmax(axis=1) == truth
    loss = log_loss(truth, log_probabilities(probabilities))
    return Score(float(correct.mean()), confidence_interval(correct), loss)


def _default_path(config: PredictConfig, folder: Path) -> Path:
    """One run's file lies in its folder; one of several, beside those of the probes."""
    ending = file_ending(config.format)
    name = config.split + "".join(f"+{view}" for view in config.views)
    if len(config.run) + len(config.probe) == 1:
        return folder / f"{name}{ending}"
    digest = digest_json([sorted(config.run), sorted(config.probe), config.weights])[:8]
    return folder.parents[1] / "predictions" / f"{name}-ensemble-{digest}{ending}"


def _write(
    path: Path,
    dataset: ImageDataset,
    rows: np.ndarray,
    probabilities: np.ndarray,
    config: PredictConfig,
) -> None:
    if path.is_dir():
        raise UsageError(f"--out {path}: expected a file, received a folder")
    form = FormatConfig(
        dataset=dataset.name, split=config.split, format=config.format, header=config.header
    )
    classes = np.arange(len(dataset.class_ids))
    write_atomic(path, content_of(dataset, rows, classes, probabilities, form))


def _remember(
    result: PredictResult, score: Score, dataset: ImageDataset, model: str, config: PredictConfig
) -> None:
    """Write into the data set's record of scorings that val was looked at."""
    record_scoring(
        config.runs / dataset.name, probe=" + ".join(result.members), model=model,
        features=f"views {view_text(result.views)}",
        inputs=digest_json([result.members, result.weights, result.temperature]), head="finetune",
        dataset_digest=dataset.digest, seed=0, accuracy=score.val_top1,
    )  # fmt: skip


def _record(result: PredictResult, dataset: ImageDataset, config: PredictConfig) -> dict[str, Any]:
    runs = len(config.run)
    members = [
        {"name": name, "views": list(result.views) if i < runs else [], "weight": weight}
        for i, (name, weight) in enumerate(zip(result.members, result.weights, strict=True))
    ]
    return {
        "members": members, "weights": config.weights, "temperature": result.temperature,
        "learnt_on": result.learnt_on, "note": result.note, "split": result.split,
        "rows": result.rows, "format": config.format,
        **(asdict(result.score) if result.score else {}),
        "dataset": dataset.name, "dataset_digest": dataset.digest, "made_by": made_by(),
    }  # fmt: skip
