"""The predictions of a split of the data set, as a file to hand in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.files import write_atomic
from onepass.cache.locks import exclusive
from onepass.cache.made_by import MadeBy
from onepass.cache.provenance import digest_array, digest_json
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.prediction_record import (
    MemberRecord,
    PredictionRecord,
    record_path,
)
from onepass.classify.leaderboard.records import model_digest
from onepass.classify.metrics import accuracy, confidence_interval, log_loss, log_probabilities
from onepass.classify.protocol.scorings import Scoring, record_probe, record_scoring
from onepass.data.dataset import ImageDataset
from onepass.finetune.session.runs import FinishedRun
from onepass.predict.answers import ENDINGS, encode_answers
from onepass.predict.config import PredictConfig
from onepass.predict.models import Model, make_predictor, open_models
from onepass.predict.predictor import SELECTION, Prediction, Predictor, split_rows
from onepass.predict.probes import Probe
from onepass.predict.text import view_text


@dataclass(frozen=True, slots=True)
class PredictResult:
    """Where predictions were written, and what made them.

    Attributes:
        path: The file.
        record_path: The JSON beside it.
        record: What that holds.
        point: The operating point by which the classes were decided, in a sentence; "" where there is none.
        prior: The mix of classes that the probabilities are for, in a sentence; "" where it is that of training.
    """

    path: Path
    record_path: Path
    record: PredictionRecord
    point: str = ""
    prior: str = ""


def predict_split(config: PredictConfig) -> PredictResult:
    """Write the class of every row of a split, in row order, by one model or an average of several.

    Weights and temperature are learnt on selection rows that no member was trained on, and never on
    the validation split, which is scored once.

    Raises:
        UsageError: The flags do not fit one another.
        InvalidInputError: The split has no rows or, where it is to be scored, no labels; or weights were
            to be learnt and cannot be.
        MissingFileError: There is no such model, or it is not finished.
        StaleError: The data set or the features have changed since.
        CorruptFileError: A file of the model is damaged.
        LockedError: Another process writes the same file.
    """
    if config.out and config.out.is_dir():
        raise UsageError(f"--out {config.out}: expected a file, received a folder")
    models = open_models(config.store, config.runs, config.models)
    predictor = make_predictor(models, config)
    truth = _truth(predictor.dataset, config)
    prediction = predictor.predict_split(config.rows)
    predictor = replace(predictor, point=prediction.point, prior=prediction.prior)
    path = config.out or _default_path(config, models)
    record = _make_record(predictor, prediction, truth, config)
    with exclusive(path, instead="name another file with --out FILE"):
        write_atomic(path, encode_answers(prediction, config.format, config.header))
        record.write(record_path(path))
    if record.val_top1 is not None:
        _record_scoring(models, predictor, prediction, record.val_top1, config)
    return PredictResult(
        path, record_path(path), record, predictor.point_text, predictor.prior_text
    )


def _truth(dataset: ImageDataset, config: PredictConfig) -> np.ndarray | None:
    """Return the labels (n,) that the predictions are scored by; None where they are not."""
    rows = split_rows(dataset, config.rows)
    if config.rows == "val":
        return dataset.labels[rows]
    if not config.score:
        return None
    truth = dataset.held_labels[rows]
    if missing := int(np.sum(truth < 0)):
        raise InvalidInputError(
            f"{dataset.name}: --score expects a label of every test image (test/<class>/ of the source), "
            f"but {missing:,} of {len(rows):,} have none"
        )
    return truth


def _default_path(config: PredictConfig, models: Sequence[Model]) -> Path:
    """Return the folder of a run where it is alone, else that of the data set's predictions."""
    ending = ENDINGS[config.format]
    name = config.rows + "".join(f"+{view}" for view in config.views)
    first = models[0]
    folder = config.runs / first.dataset.name / "predictions"
    if len(models) > 1:
        digest = digest_json([sorted(model.name for model in models), config.weights])[:8]
        return folder / f"{name}-average-{digest}{ending}"
    if isinstance(first, Probe):
        return folder / f"{name}-{first.result.id}{ending}"
    return first.folder / f"{name}{ending}"


def _make_record(
    predictor: Predictor,
    prediction: Prediction,
    truth: np.ndarray | None,
    config: PredictConfig,
) -> PredictionRecord:
    top1 = interval = loss = None
    if truth is not None:
        best = prediction.probabilities.argmax(axis=1)  # an operating point is scored by itself
        top1, interval = accuracy(truth, best), confidence_interval(best == truth)
        loss = log_loss(truth, log_probabilities(prediction.probabilities))
    selection = _right_in_selection(predictor)
    is_val = config.rows == "val"
    members = zip(predictor.members or (predictor,), predictor.weights or (1.0,), strict=True)
    return PredictionRecord(
        dataset=predictor.dataset.name,
        dataset_digest=predictor.dataset.digest,
        split=config.rows,
        rows=len(prediction.rows),
        file_format=config.format,
        members=tuple(
            MemberRecord(
                one.name,
                one.views,
                weight,
                one.description,
                one.temperature if predictor.members else 1.0,
            )
            for one, weight in members
        ),
        weights=config.weights if predictor.members else "equal",
        temperature=predictor.temperature,
        learnt_on=predictor.learnt_on,
        note=predictor.note,
        point=predictor.point,
        prior=predictor.prior,
        val_top1=top1 if is_val else None,
        val_interval=interval if is_val else None,
        test_top1=None if is_val else top1,
        test_interval=None if is_val else interval,
        log_loss=loss,
        selection_top1=None if selection is None else float(selection.mean()),
        selection_interval=None if selection is None else confidence_interval(selection),
        made_by=MadeBy.now(),
    )


def _right_in_selection(predictor: Predictor) -> np.ndarray | None:
    """Return whether each selection image has its class, bool (s,); None where the model learnt from them."""
    if predictor.held_out is None:
        return None
    found = predictor.selection() if predictor.selection else predictor.compute(SELECTION)
    right: np.ndarray = found.argmax(axis=1) == predictor.dataset.labels[predictor.held_out]
    return right


def _record_scoring(
    models: Sequence[Model],
    predictor: Predictor,
    prediction: Prediction,
    top1: float,
    config: PredictConfig,
) -> None:
    """Put on record that the validation split was scored; a model that was seen before counts once."""
    folder, first = config.runs / predictor.dataset.name, models[0]
    if len(models) == 1 and isinstance(first, Probe) and predictor.prior is None:
        record_probe(folder, first.result, model_digest(load_head(first.folder)))
        return
    evidence = prediction.probabilities
    alone = len(models) == len(predictor.views) == 1 and predictor.prior is None
    if alone and isinstance(first, FinishedRun):
        evidence, _ = first.logits("val")  # by which the run itself was put on record
    views = f"views {view_text(predictor.views)}"
    record_scoring(
        folder,
        Scoring(
            probe=predictor.name,
            model=digest_array(evidence),
            features=views if predictor.views else predictor.description,
            inputs=digest_json([config.models, predictor.weights, predictor.temperature]),
            head="finetune" if predictor.views else "average",
            dataset_digest=predictor.dataset.digest,
            seed=0,
            accuracy=top1,
        ),
    )
