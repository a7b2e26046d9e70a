"""Probes of the leaderboard together: their probabilities averaged or stacked.

The weights are learnt on the selection split, from each member's probabilities before it was
refitted. An ensemble's own selection figures are cross-fitted: each fold of these rows is predicted
with weights that were learnt on the other folds, so they stand fairly beside those of its members.
"""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onepass.cache.errors import InvalidInputError, Remedy, StaleError, UsageError
from onepass.cache.memory import scratch, within_memory
from onepass.cache.provenance import digest_json
from onepass.classify.config import EnsembleConfig
from onepass.classify.heads.base import Head
from onepass.classify.heads.lazy_rows import blocks, take
from onepass.classify.heads.registry import find_head
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult, only_writer
from onepass.classify.leaderboard.records import (
    Probabilities,
    intact,
    keep,
    load_probabilities,
    probe_result,
)
from onepass.classify.metrics import (
    Comparison,
    Metric,
    compare,
    log_probabilities,
    softmax,
)
from onepass.classify.operating_points import OperatingPoint, carry_point
from onepass.classify.protocol.evaluate import (
    VERSION,
    Outcome,
    ProtocolRows,
    metric_of,
    protocol_rows,
)
from onepass.classify.protocol.inputs import Inputs
from onepass.classify.search.search import Search, Split, Trial, best_trial
from onepass.data.dataset import ImageDataset, open_dataset

log = logging.getLogger(__name__)

FOLDS = 5
CANDIDATES = 12  # probes, unless they are named
LEAST = 0.01  # weight of a member that is worth its extraction


@dataclass(frozen=True, slots=True)
class EnsembleResult:
    """The ensembles that were made or were on the leaderboard already.

    Attributes:
        dataset: Name of the data set.
        leaderboard: Path of the leaderboard.
        ensembles: Their lines on the leaderboard, best first.
        members: The lines of all members, best first.
        comparisons: Each ensemble against its best member on the validation rows.
        winner: Id of the leaderboard's winner now.
        point: Its operating point; None where it has none.
    """

    dataset: str
    leaderboard: Path
    ensembles: tuple[ProbeResult, ...]
    members: tuple[ProbeResult, ...]
    comparisons: tuple[Comparison, ...]
    winner: str
    point: OperatingPoint | None


@within_memory
def run_ensemble(config: EnsembleConfig) -> EnsembleResult:
    """Make an ensemble of each method out of probes of the leaderboard.

    Raises:
        UsageError: There are fewer than two probes, or they were selected on other rows.
        OnepassError: Something is missing, stale or damaged; one line says what.
    """
    dataset = open_dataset(config.store, config.dataset)
    folder = config.runs / dataset.name
    board = Leaderboard.load(folder, dataset.name, dataset.digest)
    with only_writer(folder):
        board = Leaderboard.load(folder, dataset.name, dataset.digest)
        another = config.metric or config.positive
        metric = metric_of(
            dataset, config.metric or board.metric, config.positive if another else board.positive
        )
        rows = protocol_rows(dataset, board.seed, board.select, metric)
        if another:
            board = board.ranked_by(metric, dataset.class_ids)
        chosen = _candidates(board, config.probe)
        kept = {p.id: load_probabilities(board.head_folder(p), p.rows) for p in chosen}
        made, before = [], board
        for method in dict.fromkeys(config.method):
            board, line = _ensemble(board, dataset, rows, chosen, kept, method, metric)
            made.append(line)
        point = carry_point(before, board, dataset)
    return _result(board, dataset, made, point)


def member_inputs(probabilities: list[np.ndarray]) -> np.ndarray:
    """Return what an ensemble looks at, (n, M · K) float32.

    Args:
        probabilities: Of each member, (n, K), calibrated; rounded as they are stored, so that it
            makes no difference whether they were read or computed again.
    """
    width = sum(one.shape[1] for one in probabilities)
    out = scratch((len(probabilities[0]), width), np.float32)
    for block in blocks(out):
        kept = (one[block].astype(np.float16).astype(np.float32) for one in probabilities)
        np.concatenate([log_probabilities(one) for one in kept], axis=1, out=out[block])
    return out


def _candidates(board: Leaderboard, named: tuple[str, ...]) -> list[ProbeResult]:
    """Return the probes to choose the members from, best first."""
    probes = [board.find(name) for name in dict.fromkeys(named)]
    if not named:
        alike: dict[str, list[ProbeResult]] = {}
        for probe in board.ranked:
            if not probe.members:
                alike.setdefault(probe.features_digest, []).append(probe)
        pairs = {probe.id for group in alike.values() for probe in _best_pair(group)}
        probes = [probe for probe in board.ranked if probe.id in pairs][:CANDIDATES]
    if nested := [probe.id for probe in probes if probe.members]:
        raise UsageError(f"--probe {nested[0]}: expected probes, received an ensemble")
    if strange := [probe for probe in probes if probe.seed != board.seed]:
        raise UsageError(
            f"--probe {strange[0].id}: selected with seed {strange[0].seed}, but the leaderboard ranks seed "
            f"{board.seed}; members have to be selected on the same rows"
        )
    if strange := [probe for probe in probes if not board.chosen_alike(probe)]:
        raise UsageError(
            f"--probe {strange[0].id}: chosen by {strange[0].metric}, but the leaderboard ranks by {board.metric}; "
            f"members have to be chosen alike (--metric {strange[0].metric})"
        )
    if len(probes) < 2:
        raise UsageError(
            f"{board.path}: expected at least two probes to combine, received {len(probes)}; those chosen by another "
            f"metric than {board.metric} do not count",
            remedy=Remedy("classify", board.dataset),
        )
    return probes


def _best_pair(ranked: list[ProbeResult]) -> list[ProbeResult]:
    """Return the best probe on some features, and the best of another kind: one of its own adds less."""
    best, *others = ranked
    others.sort(key=lambda probe: probe.head == best.head)  # stable: still best first
    return [best, *others[:1]]


def _ensemble(
    board: Leaderboard,
    dataset: ImageDataset,
    rows: ProtocolRows,
    chosen: list[ProbeResult],
    kept: dict[str, Probabilities],
    method: str,
    metric: Metric,
) -> tuple[Leaderboard, ProbeResult]:
    """Return the leaderboard with the ensemble, and its line."""
    head_type = find_head(method)
    depends = {
        "dataset": dataset.digest,
        "asked": sorted([p.id, p.temperature] for p in chosen),
        "head": [method, head_type.version],
        "protocol": [VERSION, board.seed, *metric.identity],
    }
    identity = f"{method}-{digest_json(depends)[:12]}"
    known = board.get(identity)
    if known and intact(board.head_folder(known), known):
        log.info(f"{method}: cached")
        return board, known
    start = time.monotonic()
    truth = dataset.labels[rows.selection]
    members = _members(chosen, kept, truth)
    outcome = _outcome(method, [kept[p.id] for p in members], truth, board.seed, metric, start)
    result = replace(
        probe_result(
            identity,
            _inputs_of(members),
            outcome,
            dataset,
            rows,
            seed=board.seed,
            budget="quick",
            metric=metric,
        ),
        members=_weights(members, outcome.head),
        baseline=False,
    )
    return keep(board, result, outcome, dataset.labels[rows.val])


def _members(
    chosen: list[ProbeResult], kept: dict[str, Probabilities], truth: np.ndarray
) -> list[ProbeResult]:
    """Return the probes to which the average gives a weight; at least two."""
    average = find_head("average")(members=len(chosen))
    average.fit(member_inputs([kept[p.id].selection for p in chosen]), truth)
    order = np.argsort(-average.weights_, kind="stable")
    taken = [i for n, i in enumerate(order) if n < 2 or average.weights_[i] >= LEAST]
    return [chosen[i] for i in sorted(taken)]


def _outcome(
    method: str,
    members: list[Probabilities],
    truth: np.ndarray,
    seed: int,
    metric: Metric,
    start: float,
) -> Outcome:
    """Fit on the selection rows, evaluate by cross-fitting, and predict the validation rows once."""
    X = member_inputs([one.selection for one in members])
    head = find_head(method)(members=len(members))
    trials, crossed = [], []
    for trial in Search(head, Split(X, truth, X, truth)).run():
        scores = cross_fitted(trial.head, X, truth, seed)
        trials.append(Trial.of(trial.head, trial.params, truth, scores, metric))
        crossed.append(scores)
    chosen = best_trial(trials)
    selection = softmax(crossed[trials.index(chosen)])
    val, test = (
        chosen.head.predict_proba(member_inputs([getattr(one, part) for one in members]))
        for part in ("val", "test")
    )
    seconds = time.monotonic() - start
    return Outcome.of(chosen.head, chosen, trials, (selection, val, test), truth, seconds)


def cross_fitted(head: Head, X: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """Return scores (n, K) of each row by a head that was fitted on the other folds.

    Args:
        head: Gives kind and hyper-parameters.
        X: Log-probabilities of the members, (n, M · K).
        truth: Column of the true class of each row, (n,).
        seed: Of the folds.
    """
    folds = np.random.default_rng(seed).permutation(len(X)) % FOLDS
    parts = [(folds != k, folds == k) for k in range(FOLDS) if np.any(folds == k)]
    if len(parts) < 2:
        raise InvalidInputError(
            f"an ensemble learns from the selection rows: expected at least 2, received {len(X)}"
        )
    scores = scratch((len(X), len(head.classes_)), np.float32)
    for others, own in parts:
        fitted = head.refit(take(X, np.flatnonzero(others)), truth[others])
        scores[own] = fitted.logits(take(X, np.flatnonzero(own)))
    return scores


def _inputs_of(members: list[ProbeResult]) -> Inputs:
    """Return what the members look at; the keys stand on their own lines."""
    features = dict.fromkeys(text for member in members for text in member.features)
    digest = digest_json([member.features_digest for member in members])

    def none() -> np.ndarray:
        raise StaleError("an ensemble has no vectors of its own")

    return Inputs(none, tuple(features), (), digest)


def _weights(members: list[ProbeResult], head: Head) -> dict[str, float]:
    weights = head.weights_
    return {p.id: float(weight) for p, weight in zip(members, weights, strict=True)}


def _result(
    board: Leaderboard,
    dataset: ImageDataset,
    made: list[ProbeResult],
    point: OperatingPoint | None,
) -> EnsembleResult:
    truth = dataset.labels[dataset.rows("val")]
    made = [probe for probe in board.ranked if probe in made]
    comparisons = []
    for line in made:
        best = next(probe for probe in board.ranked if probe.id in line.members)
        own = load_probabilities(board.head_folder(line), line.rows).val_predicted
        other = load_probabilities(board.head_folder(best), best.rows).val_predicted
        comparisons.append(compare(line.id, best.id, own == truth, other == truth))
    ids = {member for line in made for member in line.members}
    return EnsembleResult(
        dataset.name, board.path, tuple(made),
        tuple(p for p in board.ranked if p.id in ids), tuple(comparisons), board.winner.id, point,
    )  # fmt: skip
