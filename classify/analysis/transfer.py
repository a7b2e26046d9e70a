"""Rank stored features before a head is trained, and say how well that agrees with the heads."""

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.cache.features import list_features, resolve_features
from onepass.cache.files import write_json
from onepass.cache.progress import human_seconds
from onepass.cache.provenance import made_by
from onepass.classify.analysis.transfer_records import (
    FORMAT,
    VERSION,
    FeatureScores,
    TransferResult,
    agreements,
    stored_scores,
)
from onepass.classify.analysis.transferability import Moments, h_score, leep, logme, nce
from onepass.classify.config import TransferConfig
from onepass.classify.heads.baselines.imagenet import ABSENT, imagenet_columns
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult, leaderboard_path
from onepass.classify.protocol.evaluate import protocol_rows
from onepass.classify.protocol.inputs import Inputs, feature_inputs
from onepass.classify.protocol.views import take
from onepass.data.dataset import ImageDataset, open_dataset

log = logging.getLogger(__name__)


def score_features(config: TransferConfig) -> TransferResult:
    """Score sets of features on the training rows and compare the order with that of the probes.

    What was scored before is not scored again.

    Args:
        config: Data set, features, folders.

    Raises:
        OnepassError: Something is missing, unknown, stale or damaged; one line says what.
    """
    start = time.monotonic()
    dataset = open_dataset(config.store, config.dataset)
    inputs = feature_inputs(config.store, dataset, config.features)
    rows = protocol_rows(dataset.labels, dataset.rows, dataset.class_ids, seed=0).train
    path = config.runs / dataset.name / "transferability.json"
    stored = {} if config.fresh else stored_scores(path, dataset.digest)
    # what another run scored stays as long as its files do
    there = {file.stem for file in list_features(config.store, dataset.name)}
    found = {keys: one for keys, one in stored.items() if there.issuperset(keys)}
    ran = 0
    for number, one in enumerate(inputs, 1):
        label = f"[{number}/{len(inputs)}] {' & '.join(one.features)}"
        if one.features in found and found[one.features].digest == one.digest:
            log.info(f"{label}: scored already")
            continue
        scores = _score(config.store, dataset, one, rows)
        log.info(f"{label}: LogME {scores.logme:.4f} · {human_seconds(scores.seconds)}")
        found[one.features], ran = scores, ran + 1
    probed = _with_probes(list(found.values()), config.runs / dataset.name, dataset)
    shown = tuple(sorted(probed, key=lambda s: (-s.logme, s.features)))
    result = TransferResult(
        dataset.name, dataset.digest, len(dataset.class_ids), len(rows),
        shown, agreements(shown), path, ran, round(time.monotonic() - start, 1),
    )  # fmt: skip
    record = {**asdict(result), "path": str(path)}
    write_json(path, {"format": FORMAT, "version": VERSION, **record, "made_by": made_by()})
    return result


def _score(store: Path, dataset: ImageDataset, inputs: Inputs, rows: np.ndarray) -> FeatureScores:
    """Read the training rows of one set of features and, where they are stored, of its logits."""
    start = time.monotonic()
    X, numbers, classes = take(inputs.vectors(), rows), dataset.labels[rows], len(dataset.class_ids)
    moments = Moments.of(X, numbers, classes)
    score, shrinkage = h_score(moments)
    logits = _logits(store, dataset, inputs)
    columns = imagenet_columns(dataset.class_ids, 0 if logits is None else logits.shape[1])
    own = None if logits is None else take(logits, rows)
    return FeatureScores(
        features=inputs.features,
        digest=inputs.digest,
        width=X.shape[1],
        logme=logme(moments),
        h_score=score,
        shrinkage=shrinkage,
        nce=None if own is None else nce(own, numbers, classes),
        leep=None if own is None else leep(own, numbers, classes),
        zero_training=None if own is None else zero_training(own, numbers, columns),
        mapped_classes=sum(column != ABSENT for column in columns),
        seconds=round(time.monotonic() - start, 2),
    )


def zero_training(logits: np.ndarray, numbers: np.ndarray, columns: list[int]) -> float | None:
    """Return the top-1 of the backbone's own classes, restricted to those that the data set has.

    Args:
        logits: (n, Z) of the backbone.
        numbers: (n,) class numbers; rows of a class without a column are left out.
        columns: From `imagenet_columns`.
    """
    places = np.asarray(columns)
    known = np.flatnonzero(places != ABSENT)
    rows = np.flatnonzero(np.isin(numbers, known))
    if len(known) < 2 or not len(rows):
        return None
    predicted = known[np.asarray(logits[:, places[known]]).argmax(axis=1)]
    return float(np.mean(predicted[rows] == numbers[rows]))


def _logits(store: Path, dataset: ImageDataset, inputs: Inputs) -> np.ndarray | None:
    """Return the ImageNet logits (N, Z) beside a single set of features, where they are stored."""
    if len(inputs.features) > 1:
        return None
    logits = resolve_features(store, dataset.name, inputs.features)[0].logits
    if logits is not None and not np.isfinite(logits).all():
        raise InvalidInputError(
            f"{inputs.features[0]}: its logits hold NaN or Inf; delete them with onepass cache delete"
            " and run the extract command again"
        )
    return logits


def _with_probes(
    scores: list[FeatureScores], folder: Path, dataset: ImageDataset
) -> list[FeatureScores]:
    """Set beside each set of features its best probe.

    Among kinds of head that all probed sets have, if there are any: otherwise a set would look good
    only because a better head was tried on it.
    """
    if not leaderboard_path(folder).exists():
        return [replace(one, probe=None, head=None, selection_top1=None) for one in scores]
    ranked = Leaderboard.load(folder, dataset.name, dataset.digest).ranked
    probes = {
        digest: [r for r in ranked if r.features_digest == digest]
        for digest in (s.digest for s in scores)
    }
    kinds = [{probe.head for probe in those} for those in probes.values() if those]
    common = set.intersection(*kinds) if kinds else set()
    return [
        _beside(one, [p for p in probes[one.digest] if p.head in common or not common])
        for one in scores
    ]


def _beside(scores: FeatureScores, probes: list[ProbeResult]) -> FeatureScores:
    if not probes:
        return replace(scores, probe=None, head=None, selection_top1=None)
    best = probes[0]
    return replace(scores, probe=best.id, head=best.head, selection_top1=best.selection_top1)
