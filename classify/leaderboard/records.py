"""What a probe leaves on disk beside its line on the leaderboard."""

import logging
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from onepass.cache.arrays import open_arrays, write_arrays
from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import CorruptFileError, OnepassError, UnreadableFileError
from onepass.cache.made_by import MadeBy
from onepass.cache.progress import human_seconds
from onepass.cache.provenance import digest_array, digest_json
from onepass.classify.heads.base import Head, brief
from onepass.classify.heads.lazy_rows import Mapped, Rows
from onepass.classify.heads.storage import load_head, save_head, stored
from onepass.classify.intervals import estimates
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.result import (
    CalibrationErrors,
    ProbeResult,
    RowCounts,
    TrialRecord,
)
from onepass.classify.metrics import (
    TOP1,
    Metric,
    Reliability,
    accuracy,
    confidence_interval,
    reliability,
    reliability_of,
    top_k,
)
from onepass.classify.protocol.evaluate import VERSION, Outcome, ProtocolRows
from onepass.classify.protocol.inputs import Inputs
from onepass.classify.protocol.scorings import number_of_model, record_probe
from onepass.data.dataset import ImageDataset

log = logging.getLogger(__name__)

QUIET = 5.0  # seconds, at least, between two lines


@dataclass(frozen=True, slots=True)
class Probabilities:
    """A probe's calibrated probabilities, for paired tests, ensembles and error analysis.

    Attributes:
        selection: (n, K) float16, by the head before it was refitted.
        val: (n, K) float16.
        test: (n, K) float16; n may be 0.
        val_predicted: (n,) int32, most probable class before rounding to float16.
        test_predicted: (n,) int32.
    """

    selection: np.ndarray
    val: np.ndarray
    test: np.ndarray
    val_predicted: np.ndarray
    test_predicted: np.ndarray


@record
class Probed:
    """A probe whose files are stored.

    Attributes:
        result: Its line.
        model: Digest of what its head has learnt.
    """

    result: ProbeResult
    model: str

    def __str__(self) -> str:
        words = brief(self.result.params)
        return f"{words and words + ': '}selection top-1 {100 * self.result.selection_top1:.1f} % · {human_seconds(self.result.seconds)}"


@record
class Calibration(Artifact):
    """`heads/<probe id>/calibration.json`: what temperature scaling does to the validation rows.

    Attributes:
        temperature: Learnt on the selection split; it divides the logarithms of the probabilities.
        before, after: Reliability without it and with it.
    """

    NAME: ClassVar[str] = "calibration.json"

    temperature: float
    before: Reliability
    after: Reliability

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 0 kept the errors apart from the bins."""
        parts = {
            when: {"bins": value[when], "error": value["error"][when]}
            for when in ("before", "after")
        }
        return {"temperature": value["temperature"], **parts}


def probe_id(
    inputs: Inputs,
    head: Head,
    seed: int,
    budget: str,
    dataset_digest: str,
    metric: Metric = TOP1,
) -> str:
    """Return the name of a probe: equal for equal inputs, head, seed, metric and protocol."""
    params = head.get_params(deep=False)
    if params.get("class_weight", "") is None:  # as ids were before there were weights
        del params["class_weight"]
    depends = {
        "dataset": dataset_digest,
        "features": [inputs.features, inputs.digest],
        "head": [head.kind, head.version, params],
        "protocol": [VERSION, seed, budget, *metric.identity],
    }
    return f"{head.kind}-{digest_json(depends)[:12]}"


def probe_result(
    identity: str,
    inputs: Inputs,
    outcome: Outcome,
    dataset: ImageDataset,
    rows: ProtocolRows,
    *,
    seed: int,
    budget: str,
    metric: Metric = TOP1,
) -> ProbeResult:
    """Return the probe's line for the leaderboard; the validation rows are scored here, once.

    Args:
        identity: From `probe_id`.
        inputs: What the head looked at.
        outcome: What the protocol found.
        dataset: Gives the labels.
        rows: Which rows each step read.
        seed, budget, metric: To be kept with the figures.
    """
    truth, predicted = dataset.labels[rows.val], outcome.val.argmax(axis=1)
    calibration = calibration_of(outcome, truth)
    groups = None if dataset.groups is None else [dataset.groups[row] for row in rows.val]
    scores = estimates(truth, outcome.val, metric.positive, groups)
    return ProbeResult(
        id=identity,
        features=inputs.features,
        views=inputs.views,
        keys=inputs.keys,
        head=outcome.head.kind,
        params=outcome.chosen.params,
        trials=tuple(TrialRecord(p.params, p.accuracy, p.log_loss) for p in outcome.trials),
        selection_top1=outcome.chosen.accuracy,
        selection_log_loss=outcome.chosen.log_loss,
        val_top1=accuracy(truth, predicted),
        val_interval=(
            confidence_interval(predicted == truth, seed)
            if groups is None
            else (scores["top1"].low, scores["top1"].high)
        ),
        val_top5=top_k(truth, outcome.val, 5) if outcome.val.shape[1] > 5 else None,
        seconds=round(outcome.seconds, 3),
        seed=seed,
        budget=budget,
        converged=outcome.converged,
        baseline=inputs.baseline,
        dataset_digest=dataset.digest,
        features_digest=inputs.digest,
        rows=rows.counts(),
        made_by=MadeBy.now(),
        temperature=outcome.temperature,
        calibration=CalibrationErrors(calibration.before.error, calibration.after.error),
        metric=metric.name,
        scores=scores,
        class_weight=outcome.head.get_params().get("class_weight"),
        positive="" if metric.positive is None else dataset.class_ids[metric.positive],
        selection_value=None if metric.name == TOP1.name else metric.merit(outcome.chosen.merit),
    )


def calibration_of(outcome: Outcome, truth: np.ndarray) -> Calibration:
    """Return a probe's calibration on the validation rows, whose labels are `truth`."""
    before, after = reliability_of(truth, *outcome.raw_val), reliability(truth, outcome.val)
    return Calibration(outcome.temperature, before, after)


def model_digest(head: Head) -> str:
    """Return the identity of what a fitted head has learnt (hex)."""
    return digest_json({name: digest_array(stored(getattr(head, name))) for name in head.ARRAYS})


def save_outcome(folder: Path, outcome: Outcome, truth: np.ndarray) -> None:
    """Write a probe's probabilities, its reliability diagram and its head.

    Args:
        folder: Of the probe.
        outcome: What it found.
        truth: Labels of the validation rows, (n,).
    """
    parts = {name: getattr(outcome, name) for name in ("selection", "val", "test")}
    arrays: dict[str, Rows] = {
        name: Mapped(array, lambda rows: rows.astype(np.float16), array.shape[1], np.float16)
        for name, array in parts.items()
    }
    for name in ("val", "test"):
        arrays[name + "_predicted"] = parts[name].argmax(axis=1).astype(np.int32)
    write_arrays(folder / "probabilities.npz", arrays)
    calibration_of(outcome, truth).write(folder / Calibration.NAME)
    save_head(outcome.head, folder)


def keep(
    board: Leaderboard, result: ProbeResult, outcome: Outcome, truth: np.ndarray
) -> tuple[Leaderboard, ProbeResult]:
    """Store a probe: its files, the record that val was scored, and last its line.

    A run that ends in between runs the probe again, and the record counts equal models once.

    Args:
        board: Where it belongs.
        result: Its line.
        outcome: What it found.
        truth: Labels of the validation rows, (n,).

    Returns:
        The leaderboard with the line, and the line with the number of its scoring.
    """
    return keep_line(board, save_probe(board.folder, result, outcome, truth))


def save_probe(folder: Path, result: ProbeResult, outcome: Outcome, truth: np.ndarray) -> Probed:
    """Write the files of a probe into a data set's runs folder; see `save_outcome`."""
    save_outcome(folder / "heads" / result.id, outcome, truth)
    return Probed(result, model_digest(outcome.head))


def keep_line(board: Leaderboard, probed: Probed) -> tuple[Leaderboard, ProbeResult]:
    """Store the line of a probe whose files are there; see `keep`."""
    result, model = probed.result, probed.model
    number = number_of_model(
        board.folder, board.dataset_digest, result.features_text, result.head, model
    )
    result = replace(result, scoring=number)
    record_probe(board.folder, result, model)
    board = board.holding(result)
    board.save()
    return board, result


def load_probabilities(folder: Path, rows: RowCounts) -> Probabilities:
    """Read a probe's probabilities.

    Args:
        folder: Of the probe.
        rows: How many there were.

    Raises:
        CorruptFileError: The file is missing, damaged, or of another number of rows.
    """
    path = folder / "probabilities.npz"
    try:
        arrays = open_arrays(path)
        found = Probabilities(**arrays)
        lengths = {field.name: len(arrays[field.name]) for field in fields(Probabilities)}
        if any(lengths[name] != getattr(rows, name.removesuffix("_predicted")) for name in lengths):
            raise ValueError(f"expected rows {rows}, received {lengths}")
        for name, array in arrays.items():
            shape, kind = ((), "i") if name.endswith("_predicted") else (found.val.shape[1:], "f")
            if array.dtype.kind != kind or array.shape[1:] != shape or array.ndim > 2:
                raise ValueError(f"{name} {array.dtype} {array.shape}")
            if (
                kind == "i"
                and array.size
                and not 0 <= array.min() <= array.max() < found.val.shape[1]
            ):
                raise ValueError(f"{name}: classes {array.min()} to {array.max()}")
    except UnreadableFileError:
        raise
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise CorruptFileError(
            f"{path}: expected the probabilities of a probe, but they cannot be read ({error}). "
            "Delete the folder and run the classify command again"
        ) from error
    return found


def intact(folder: Path, result: ProbeResult) -> bool:
    """Return whether a probe's files are complete and readable; log what is wrong."""
    try:
        load_head(folder)
        load_probabilities(folder, result.rows)
    except UnreadableFileError:
        raise
    except OnepassError as error:
        log.info(f"{error}; it is run again")
        return False
    return True


class ThrottledLog:
    """Logs what a probe is doing, at most once in QUIET seconds."""

    def __init__(self, label: str) -> None:
        self.label, self.start, self.last = label, time.monotonic(), 0.0

    def __call__(self, text: str) -> None:
        """Log a text, unless the last one is too recent."""
        now = time.monotonic()
        if now - self.last >= QUIET:
            self.last = now
            log.info(f"{self.label}: {text} · {human_seconds(now - self.start)}")
