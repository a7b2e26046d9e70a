"""Rank stored features before a head is trained, and say how well that agrees with the heads."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.stats import kendalltau, spearmanr

from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import CorruptFileError, InvalidInputError, Remedy
from onepass.cache.features import list_features, resolve_features
from onepass.cache.made_by import MadeBy
from onepass.cache.memory import within_memory
from onepass.cache.progress import human_seconds
from onepass.cache.stores import AnyStore
from onepass.classify.analysis.transfer_scores import (
    Moments,
    h_score,
    leep,
    logme,
    nce,
    zero_training,
)
from onepass.classify.config import TransferConfig
from onepass.classify.heads.baselines.imagenet import ABSENT, imagenet_columns
from onepass.classify.heads.lazy_rows import blocks, take
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult, leaderboard_path
from onepass.classify.protocol.evaluate import protocol_rows
from onepass.classify.protocol.inputs import Inputs, feature_inputs
from onepass.data.dataset import ImageDataset, open_dataset

log = logging.getLogger(__name__)

VERSION = 1  # raised when the same vectors would be scored otherwise
FEWEST = 3  # feature sets that a rank agreement takes
SCORES = ("logme", "h_score", "nce", "leep", "zero_training")


@record
class FeatureScores:
    """What is said of one set of features, from training rows only; higher is better.

    Attributes:
        features: Key texts.
        digest: Of the vectors.
        width: Numbers of a vector.
        logme: Log-evidence of the labels, a row (nats).
        h_score: H-score with shrinkage, at most K - 1.
        shrinkage: Share of the identity in its covariance, 0 … 1.
        nce, leep: From the logits (nats, at most 0); None where no logits are stored.
        zero_training: Top-1 of the backbone's own classes among those that the data set has, on the
            training rows of these; None without logits or without such classes.
        mapped_classes: How many of the classes are ImageNet's.
        seconds: Wall time.
        probe: Id of the best probe of these features on the leaderboard, or None.
        head: Its kind.
        selection_top1: Its accuracy on the selection split.
    """

    features: tuple[str, ...]
    digest: str
    width: int
    logme: float
    h_score: float
    shrinkage: float
    nce: float | None
    leep: float | None
    zero_training: float | None
    mapped_classes: int
    seconds: float
    probe: str | None = None
    head: str | None = None
    selection_top1: float | None = None


@record
class Agreement:
    """How a score orders the features that were probed, against the probes' selection accuracy.

    Attributes:
        score: Name of the score, a field of `FeatureScores`.
        count: How many sets of features have both.
        kendall: Kendall's τ-b, -1 … 1.
        spearman: Spearman's ρ, -1 … 1.
    """

    score: str
    count: int
    kendall: float
    spearman: float


@record
class Transferability(Artifact):
    """`runs/<data set>/transferability.json`: what is known of the features before a head is trained.

    Attributes:
        version: VERSION of the scores.
        dataset: Name of the data set.
        dataset_digest: Its state.
        classes: How many classes it has.
        rows: Training rows that were read.
        scores: Best LogME first.
        agreement: One entry for each score that three probed sets of features have.
        seconds: Wall time of the last run.
        made_by: Who wrote it, when and with what.
    """

    FORMAT: ClassVar[int] = 2
    NAME: ClassVar[str] = "transferability.json"

    version: int
    dataset: str
    dataset_digest: str
    classes: int
    rows: int
    scores: tuple[FeatureScores, ...]
    agreement: tuple[Agreement, ...]
    seconds: float
    made_by: MadeBy

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 1 also held its own path and how many sets were scored last."""
        return {name: item for name, item in value.items() if name not in ("path", "ran")}


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What `onepass classify transfer` did.

    Attributes:
        path: Of `transferability.json`.
        found: What it holds.
        ran: How many sets of features were scored now; the others were cached.
    """

    path: Path
    found: Transferability
    ran: int


@within_memory
def score_features(config: TransferConfig) -> TransferResult:
    """Score sets of features on the training rows and compare the order with that of the probes.

    What was scored before is not scored again.

    Raises:
        OnepassError: Something is missing, unknown, stale or damaged; one line says what.
    """
    start = time.monotonic()
    dataset = open_dataset(config.store, config.dataset)
    inputs = feature_inputs(config.store, dataset, config.features)
    rows = protocol_rows(dataset, seed=0).train
    folder = config.runs / dataset.name
    path = folder / Transferability.NAME
    cached = {} if config.fresh else _cached_scores(path, config.store, dataset)
    scores, ran = dict(cached), 0
    for number, one in enumerate(inputs, 1):
        label = f"[{number}/{len(inputs)}] {' & '.join(one.features)}"
        if one.features in cached and cached[one.features].digest == one.digest:
            log.info(f"{label}: cached")
            continue
        new = _score(config.store, dataset, one, rows)
        log.info(f"{label}: LogME {new.logme:.4f} · {human_seconds(new.seconds)}")
        scores[one.features], ran = new, ran + 1
    probed = _with_probes(list(scores.values()), folder, dataset)
    ranked = tuple(sorted(probed, key=lambda s: (-s.logme, s.features)))
    found = Transferability(
        VERSION, dataset.name, dataset.digest, len(dataset.class_ids), len(rows), ranked,
        agreements(ranked), round(time.monotonic() - start, 1), MadeBy.now(),
    )  # fmt: skip
    found.write(path)
    return TransferResult(path, found, ran)


def _cached_scores(
    path: Path, store: AnyStore, dataset: ImageDataset
) -> dict[tuple[str, ...], FeatureScores]:
    """Return what was scored before, by key texts, as long as its feature files are stored."""
    try:
        kept = Transferability.read_optional(path)
    except CorruptFileError as error:
        raise CorruptFileError(str(error), remedy=Remedy("score anew", dataset.name)) from error
    if kept is None or (kept.version, kept.dataset_digest) != (VERSION, dataset.digest):
        return {}
    stored = {file.stem for file in list_features(store, dataset.name)}
    return {one.features: one for one in kept.scores if stored.issuperset(one.features)}


def _score(
    store: AnyStore, dataset: ImageDataset, inputs: Inputs, rows: np.ndarray
) -> FeatureScores:
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


def agreements(scores: tuple[FeatureScores, ...]) -> tuple[Agreement, ...]:
    """Return how each score orders the features that were probed."""
    found = []
    for name in SCORES:
        pairs = [
            (getattr(one, name), one.selection_top1)
            for one in scores
            if getattr(one, name) is not None and one.selection_top1 is not None
        ]
        if len(pairs) < FEWEST or min(len(set(column)) for column in zip(*pairs, strict=True)) < 2:
            continue
        said, done = zip(*pairs, strict=True)
        tau, rho = kendalltau(said, done).statistic, spearmanr(said, done).statistic
        found.append(Agreement(name, len(pairs), round(float(tau), 3), round(float(rho), 3)))
    return tuple(found)


def _logits(store: AnyStore, dataset: ImageDataset, inputs: Inputs) -> np.ndarray | None:
    """Return the ImageNet logits (N, Z) beside a single set of features, where they are stored."""
    if len(inputs.features) > 1:
        return None
    logits = resolve_features(store, dataset.name, inputs.features)[0].logits
    if logits is not None and not all(np.isfinite(logits[b]).all() for b in blocks(logits)):
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
