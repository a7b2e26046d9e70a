"""What the features say about the data: wrong labels, duplicates, outliers, hard classes."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from onepass.cache.files import write_json
from onepass.cache.progress import human_seconds
from onepass.cache.provenance import made_by
from onepass.classify.analysis.duplicates import Pair, confirmed_pairs
from onepass.classify.analysis.inspection_classes import class_reports, confusions
from onepass.classify.analysis.inspection_records import (
    FORMAT,
    DuplicateReport,
    Inspection,
    LabelIssue,
    LabelReport,
    Outlier,
)
from onepass.classify.analysis.out_of_sample import leave_one_out
from onepass.classify.config import InspectConfig
from onepass.classify.heads.linear.spectrum import Spectrum
from onepass.classify.heads.neighbours.nearest import nearest, unit_length
from onepass.classify.heads.scaler import blocks
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.protocol.evaluate import protocol_rows
from onepass.classify.protocol.inputs import inputs_of
from onepass.classify.protocol.views import take
from onepass.data.dataset import SPLITS, ImageDataset, open_dataset

log = logging.getLogger(__name__)

NEIGHBOURS = 10
PARTNERS = 3  # nearest training rows that are looked at as duplicates
DIRECTIONS = 128  # of the largest variance, in which neighbours are sought


def inspect_dataset(config: InspectConfig) -> Inspection:
    """Judge the data by the features and the predictions of a probe.

    Nothing is chosen by it: the reported rows are looked at, and no head learns from what is seen.

    Args:
        config: Data set, probe, length of the lists, folders.

    Raises:
        OnepassError: No leaderboard, no such probe, stale or damaged files; one line says what.
    """
    start = time.monotonic()
    dataset = open_dataset(config.store, config.dataset)
    folder = config.runs / dataset.name
    board = Leaderboard.load(folder, dataset.name, dataset.digest)
    result = board.find(config.probe)
    source = board.find(result.members[0]) if result.members else result
    vectors = inputs_of(config.store, dataset, source).vectors()
    rows = protocol_rows(dataset.labels, dataset.rows, dataset.class_ids, seed=0)
    X, numbers, classes = take(vectors, rows.train), dataset.labels[rows.train], len(dataset.class_ids)  # fmt: skip
    spectrum = Spectrum.of(X, numbers, classes)
    left = leave_one_out(X, numbers, spectrum, result.seed)
    log.info(f"every training row left out once: {_since(start)}")
    near, cosines = _neighbours(vectors, rows.train, spectrum)
    log.info(f"nearest training rows of every row: {_since(start)}")
    kept = load_probabilities(board.head_folder(result), result.rows)
    judge = f"ridge, each row left out, penalty {left.penalty:.3g}"
    found = Inspection(
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        probe=result.id,
        features=source.features,
        head=result.head,
        val_top1=result.val_top1,
        class_names=tuple(dataset.class_names),
        labels=(
            label_report(dataset, "train", left.probabilities, judge, config.top),
            label_report(dataset, "val", kept.val, f"{result.head} ({result.id})", config.top),
        ),
        duplicates=_duplicates(dataset, near, cosines, config.top),
        outliers=_outliers(dataset, cosines, config.top),
        classes=class_reports(dataset, left.probabilities.argmax(axis=1), kept.val_predicted),
        confusions=confusions(dataset, kept.val_predicted, config.top),
        path=folder / "inspection.json",
        seconds=round(time.monotonic() - start, 1),
    )
    record = {**asdict(found), "path": str(found.path)}
    write_json(found.path, {"format": FORMAT, **record, "made_by": made_by()})
    return found


def label_report(
    dataset: ImageDataset, split: str, probabilities: np.ndarray, judge: str, top: int
) -> LabelReport:
    """Return the likely label errors of a split, by confident learning.

    Northcutt, Jiang and Chuang, "Confident Learning", JAIR 70, 2021, as cleanlab does it; an error
    has to be found by class and by noise rate both, which spares classes that are merely hard.

    Args:
        dataset: Gives labels and names.
        split: "train" or "val".
        probabilities: (n, K) of its rows, by a head that has not seen them.
        judge: What that head is.
        top: How many errors are listed.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    rows = dataset.rows(split)
    given = dataset.labels[rows].astype(np.int64)
    chances = probabilities.astype(np.float64)
    chances /= chances.sum(axis=1, keepdims=True)
    wrong = find_label_issues(given, chances, filter_by="both", n_jobs=1)
    # the probe may know fewer errors than cleanlab counts: what it takes for right is none
    wrong &= chances.argmax(axis=1) != given
    scores = get_label_quality_scores(given, chances, method="normalized_margin")
    order = np.flatnonzero(wrong)[np.argsort(scores[wrong], kind="stable")]
    issues = tuple(
        LabelIssue(
            int(rows[i]), dataset.names[rows[i]], split, int(given[i]), int(chances[i].argmax()),
            round(float(chances[i, given[i]]), 4), round(float(chances[i].max()), 4),
            round(float(scores[i]), 4),
        )
        for i in order[:top]
    )  # fmt: skip
    accuracy = float(np.mean(chances.argmax(axis=1) == given))
    return LabelReport(split, len(rows), int(wrong.sum()), accuracy, judge, issues)


def _neighbours(
    vectors: np.ndarray, train: np.ndarray, spectrum: Spectrum
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest training rows (N, k) of every row of the data set, and their cosines."""
    directions = np.argsort(-spectrum.eigenvalues)[:DIRECTIONS]
    basis = unit_length(spectrum.basis[:, directions].T).T.astype(np.float32)
    parts = [spectrum.scaler.apply(vectors[block]) @ basis for block in blocks(vectors)]
    points = unit_length(np.concatenate(parts))
    own = np.full(len(points), -1)
    own[train] = np.arange(len(train))
    count = min(NEIGHBOURS, len(train) - 1)
    near, cosines = nearest(points, take(points, train), count, own)
    return train[near], cosines


def _duplicates(
    dataset: ImageDataset, near: np.ndarray, cosines: np.ndarray, top: int
) -> DuplicateReport:
    """Look at the pixels of the nearest training rows of each row."""
    count = min(PARTNERS, near.shape[1])
    rows, others = np.repeat(np.arange(len(near)), count), near[:, :count].ravel()
    # two training rows that are each other's neighbours are one pair
    train = dataset.split[rows] == SPLITS.index("train")
    once = ~(train & (others < rows) & np.any(near[others, :count] == rows[:, None], axis=1))
    pairs = confirmed_pairs(
        dataset.pixels, rows[once], others[once], cosines[:, :count].ravel()[once]
    )
    split = {pair: SPLITS[dataset.split[pair.row]] for pair in pairs}
    counts, exact = (
        {name: len({r for p in some if split[p] == name for r in _rows_of(p, name)}) for name in SPLITS}
        for some in (pairs, [pair for pair in pairs if pair.exact])
    )  # fmt: skip
    labels = dataset.labels
    conflicts = sum(bool(-1 != labels[p.row] != labels[p.other]) for p in pairs)
    pairs.sort(key=lambda pair: split[pair] == "train")
    return DuplicateReport(counts, exact, conflicts, tuple(pairs[:top]))


def _rows_of(pair: Pair, split: str) -> Sequence[int]:
    return (pair.row, pair.other) if split == "train" else (pair.row,)


def _outliers(dataset: ImageDataset, cosines: np.ndarray, top: int) -> tuple[Outlier, ...]:
    """Return the rows that are farthest from their tenth nearest training row.

    Sun, Ming, Zhu and Li, "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022.
    """
    distance = 1 - cosines[:, -1]
    return tuple(
        Outlier(
            int(row), dataset.names[row], SPLITS[dataset.split[row]], int(dataset.labels[row]),
            round(float(distance[row]), 4),
        )
        for row in np.argsort(-distance, kind="stable")[:top]
    )  # fmt: skip


def _since(start: float) -> str:
    return human_seconds(time.monotonic() - start)
