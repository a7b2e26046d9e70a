"""What the features say about the data: wrong labels, duplicates, outliers, hard classes."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from onepass.cache.artifacts import Artifact, record
from onepass.cache.made_by import MadeBy
from onepass.cache.memory import within_memory
from onepass.cache.progress import human_seconds
from onepass.classify.analysis.duplicates import Pair, confirmed_pairs
from onepass.classify.analysis.label_errors import find_errors
from onepass.classify.analysis.out_of_sample import leave_one_out
from onepass.classify.analysis.suspects import Suspects, write_suspects
from onepass.classify.config import InspectConfig
from onepass.classify.heads.class_weight import class_weights
from onepass.classify.heads.lazy_rows import Mapped, Rows, blocks, held, take
from onepass.classify.heads.linear.spectrum import Spectrum
from onepass.classify.heads.neighbours.nearest import nearest, unit_length
from onepass.classify.intervals import is_uneven
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import accuracy, change_prior, confused_pairs, confusion_matrix
from onepass.classify.protocol.evaluate import protocol_rows
from onepass.classify.protocol.inputs import inputs_of
from onepass.data.dataset import EXCLUDED, SPLITS, ImageDataset, open_dataset

log = logging.getLogger(__name__)

NEIGHBOURS = 10
PARTNERS = 3  # nearest training rows that are looked at as duplicates
DIRECTIONS = 128  # of the largest variance, in which neighbours are sought


@record
class LabelIssue:
    """A row whose label is probably wrong.

    Attributes:
        row: Row of the data set.
        name: File name.
        split: "train" or "val".
        given: Its class.
        suggested: The class that it looks like.
        given_probability, suggested_probability: Of these classes, by a head that has not seen the row.
        score: 0 … 1, lower is worse: cleanlab's normalised margin.
    """

    row: int
    name: str
    split: str
    given: int
    suggested: int
    given_probability: float
    suggested_probability: float
    score: float


@record
class LabelReport:
    """Likely label errors of one split.

    Attributes:
        split: "train" or "val".
        rows: How many rows were looked at.
        suspected: How many are likely errors.
        accuracy: Top-1 of that head on these rows.
        judge: By which head they were found.
        worst: The likeliest errors, worst first.
        possible: Other rows that the head takes for another class, the surest first: rather hard than wrong.
    """

    split: str
    rows: int
    suspected: int
    accuracy: float
    judge: str
    worst: tuple[LabelIssue, ...]
    possible: tuple[LabelIssue, ...] = ()


@record
class DuplicateReport:
    """Images that occur twice.

    Attributes:
        counts: How many rows of each split have a near-duplicate among the training rows.
        exact: How many of them have every pixel in common with one.
        conflicts: How many pairs carry different labels (test rows have none).
        pairs: The most alike pairs; those between splits first, as they leak.
    """

    counts: dict[str, int]
    exact: dict[str, int]
    conflicts: int
    pairs: tuple[Pair, ...]


@record
class Outlier:
    """A row that is far from every training row.

    Attributes:
        row: Row of the data set.
        name: File name.
        split: Its split.
        label: Its class, -1 where unknown.
        distance: 1 - cosine to its tenth nearest training row, 0 … 2.
    """

    row: int
    name: str
    split: str
    label: int
    distance: float


@record
class ClassReport:
    """How one class fares.

    Attributes:
        label: The class.
        id, name: Its identity, its name for people.
        train_rows, val_rows: How many images it has.
        train_accuracy: Share of its training rows that are right when left out.
        val_accuracy: Share of its validation rows that the probe has right; None without any.
        taken_for: The class that its validation rows are most often taken for, or None.
    """

    label: int
    id: str
    name: str
    train_rows: int
    val_rows: int
    train_accuracy: float
    val_accuracy: float | None
    taken_for: int | None


@record
class Confusion:
    """Two classes that the probe mixes up on the validation rows.

    Attributes:
        first, second: The classes.
        first_as_second, second_as_first: How many rows of one were taken for the other.
        share: Of the two classes' rows, 0 … 1.
    """

    first: int
    second: int
    first_as_second: int
    second_as_first: int
    share: float


@record
class Inspection(Artifact):
    """`runs/<data set>/inspection.json`: what a probe's features say about the data.

    Rows are rows of the data set, classes are labels (indices of its class ids and names).

    Attributes:
        dataset: Name of the data set.
        dataset_digest: Its state.
        probe: Id of the probe.
        features: Key texts whose vectors were compared.
        head: Kind of the probe's head.
        val_top1: Its accuracy on the validation rows.
        class_names: Names for people, by label.
        labels: Likely label errors of the training rows and of the validation rows.
        duplicates: Images that occur twice.
        outliers: The rows farthest from the training rows, farthest first.
        classes: Every class, the worst on the validation rows first.
        confusions: The most confused pairs of classes, most first.
        seconds: Wall time.
        made_by: Who wrote it, when and with what.
    """

    FORMAT: ClassVar[int] = 2
    NAME: ClassVar[str] = "inspection.json"

    dataset: str
    dataset_digest: str
    probe: str
    features: tuple[str, ...]
    head: str
    val_top1: float
    class_names: tuple[str, ...]
    labels: tuple[LabelReport, ...]
    duplicates: DuplicateReport
    outliers: tuple[Outlier, ...]
    classes: tuple[ClassReport, ...]
    confusions: tuple[Confusion, ...]
    seconds: float
    made_by: MadeBy

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 1 also held its own path."""
        return {name: item for name, item in value.items() if name != "path"}


@dataclass(frozen=True, slots=True)
class InspectResult:
    """What `onepass classify inspect` did.

    Attributes:
        path: Of `inspection.json`.
        found: What it holds.
        suspects: The suspected labels as a table to be edited.
    """

    path: Path
    found: Inspection
    suspects: Suspects


@within_memory
def inspect_dataset(config: InspectConfig) -> InspectResult:
    """Look at the data through the features and the predictions of a probe.

    Nothing is chosen by it: the validation rows are looked at, and no head learns from what is seen.

    Raises:
        OnepassError: No leaderboard, no such probe, stale or damaged files; one line says what.
    """
    start = time.monotonic()
    dataset = open_dataset(config.store, config.dataset)
    folder = config.runs / dataset.name
    board = Leaderboard.load(folder, dataset.name, dataset.digest)
    result = board.find(config.probe)
    source = board.find(next(iter(result.members))) if result.members else result
    vectors = inputs_of(config.store, dataset, source).vectors()
    rows = protocol_rows(dataset, seed=0)
    X, numbers, classes = take(vectors, rows.train), dataset.labels[rows.train], len(dataset.class_ids)  # fmt: skip
    share = np.bincount(numbers, minlength=classes) / len(numbers)
    equal = np.ones(classes) if is_uneven(numbers) else share  # evidence is balanced by class
    weights = class_weights("balanced", numbers, classes) if is_uneven(numbers) else None
    spectrum = Spectrum.of(X, numbers, classes, weights)
    left = leave_one_out(X, numbers, spectrum, result.seed)
    log.info(f"every training row left out once: {_since(start)}")
    near, cosines = _neighbours(vectors, rows.train, spectrum)
    log.info(f"nearest training rows of every row: {_since(start)}")
    kept = load_probabilities(board.head_folder(result), result.rows)
    judge = f"ridge, each row left out, penalty {left.penalty:.3g}"
    mixed = Mapped(left.probabilities, lambda p: change_prior(p, equal, share), classes, np.float32)
    val = Mapped(kept.val, lambda p: p.astype(np.float64), classes, np.float64)
    balanced = Mapped(val, lambda p: change_prior(p, share, equal), classes, np.float64)
    reports = (
        label_report(dataset, "train", mixed, left.probabilities, judge),
        label_report(dataset, "val", val, balanced, f"{result.head} ({result.id})"),
    )
    found = Inspection(
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        probe=result.id,
        features=source.features,
        head=result.head,
        val_top1=result.val_top1,
        class_names=tuple(dataset.class_names),
        labels=tuple(
            replace(one, worst=one.worst[: config.top], possible=one.possible[: config.top])
            for one in reports
        ),
        duplicates=_duplicates(dataset, near, cosines, config.top),
        outliers=_outliers(dataset, cosines, config.top),
        classes=class_reports(dataset, _likeliest(mixed), kept.val_predicted),
        confusions=confusions(dataset, kept.val_predicted, config.top),
        seconds=round(time.monotonic() - start, 1),
        made_by=MadeBy.now(),
    )
    found.write(folder / Inspection.NAME)
    likely = [issue for report in reports for issue in report.worst]
    possible = [issue for report in found.labels for issue in report.possible]
    suspects = write_suspects(folder, dataset, likely, possible)
    return InspectResult(folder / Inspection.NAME, found, suspects)


def label_report(
    dataset: ImageDataset, split: str, probabilities: Rows, evidence: Rows, judge: str
) -> LabelReport:
    """Return the likely label errors of a split, all of them, by confident learning. The evidence
    is balanced by class: a row of a rare class is not accused of being of the frequent one only because most
    rows are; nor is one of the frequent class called rare unless it is more probably so as the rows are mixed.

    Args:
        dataset: Gives labels and names.
        split: "train" or "val".
        probabilities: (n, K) of its rows, by a head that has not seen them, for the mix of the training rows.
        evidence: The same as if every class were equally frequent.
        judge: What that head is.
    """
    from cleanlab.rank import get_label_quality_scores

    rows = dataset.rows(split)
    given = dataset.labels[rows].astype(np.int64)
    balanced = Mapped(evidence, _normalised, evidence.shape[1], np.float64)
    wrong = find_errors(given, balanced)
    predicted, suggested = _likeliest(probabilities), _likeliest(balanced)
    # the probe may know fewer errors than confident learning counts: what it takes for right is none
    other = (predicted != given) & (suggested != given)
    wrong &= other
    own, best, scores = (np.empty(len(rows)) for _ in range(3))
    for block in blocks(balanced):
        part, labels = balanced[block], given[block]
        own[block], best[block] = part[np.arange(len(part)), labels], part.max(axis=1)
        scores[block] = get_label_quality_scores(labels, part, method="normalized_margin")

    def issues(chosen: np.ndarray) -> tuple[LabelIssue, ...]:
        order = np.flatnonzero(chosen)[np.argsort(scores[chosen], kind="stable")]
        return tuple(
            LabelIssue(
                int(rows[i]), dataset.names[rows[i]], split, int(given[i]), int(suggested[i]),
                round(float(own[i]), 4), round(float(best[i]), 4),
                round(float(scores[i]), 4),
            )
            for i in order
        )  # fmt: skip

    right = accuracy(given, predicted)
    likely, possible = issues(wrong), issues(other & ~wrong)
    return LabelReport(split, len(rows), len(likely), right, judge, likely, possible)


def _normalised(probabilities: np.ndarray) -> np.ndarray:
    return probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)


def _likeliest(probabilities: Rows) -> np.ndarray:
    """Return the most probable class of each row, (n,)."""
    return np.concatenate([probabilities[b].argmax(axis=1) for b in blocks(probabilities)])


def _neighbours(
    vectors: np.ndarray, train: np.ndarray, spectrum: Spectrum
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest training rows (N, k) of every row of the data set, and their cosines."""
    directions = np.argsort(-spectrum.eigenvalues)[:DIRECTIONS]
    basis = unit_length(spectrum.basis[:, directions].T).T.astype(np.float32)

    def projected(rows: np.ndarray) -> np.ndarray:
        return unit_length(spectrum.scaler.apply(rows) @ basis)

    points = held(Mapped(vectors, projected, basis.shape[1], np.float32))
    own = np.full(len(points), -1)
    own[train] = np.arange(len(train))
    count = min(NEIGHBOURS, len(train) - 1)
    near, cosines = nearest(points, take(points, train), count, own, label="nearest rows")
    return train[near], cosines


def _duplicates(
    dataset: ImageDataset, near: np.ndarray, cosines: np.ndarray, top: int
) -> DuplicateReport:
    """Look at the pixels of the nearest training rows of each row."""
    count = min(PARTNERS, near.shape[1])
    rows, others = np.repeat(np.arange(len(near)), count), near[:, :count].ravel()
    # two training rows that are each other's neighbours are one pair
    train = dataset.split[rows] == SPLITS.index("train")
    once = (dataset.split[rows] != EXCLUDED) & ~(
        train & (others < rows) & np.any(near[others, :count] == rows[:, None], axis=1)
    )
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
    order = np.argsort(-distance, kind="stable")
    return tuple(
        Outlier(
            int(row), dataset.names[row], SPLITS[dataset.split[row]], int(dataset.labels[row]),
            round(float(distance[row]), 4),
        )
        for row in order[dataset.split[order] != EXCLUDED][:top]
    )  # fmt: skip


def class_reports(
    dataset: ImageDataset, train_predicted: np.ndarray, val_predicted: np.ndarray
) -> tuple[ClassReport, ...]:
    """Return how each class fares, the worst on the validation rows first.

    Args:
        dataset: Gives the labels.
        train_predicted: (n,) class of each training row, by a head that has not seen it.
        val_predicted: (m,) class of each validation row.
    """
    classes = len(dataset.class_ids)
    train, val = (dataset.labels[dataset.rows(name)] for name in ("train", "val"))
    matrix = confusion_matrix(val, val_predicted, classes)
    wrong = matrix - np.diag(np.diag(matrix))
    train_rows, val_rows = np.bincount(train, minlength=classes), matrix.sum(axis=1)
    right = np.bincount(train[train_predicted == train], minlength=classes)
    found = [
        ClassReport(
            label=k,
            id=dataset.class_ids[k],
            name=dataset.class_names[k],
            train_rows=int(train_rows[k]),
            val_rows=int(val_rows[k]),
            train_accuracy=float(right[k] / train_rows[k]),
            val_accuracy=float(matrix[k, k] / val_rows[k]) if val_rows[k] else None,
            taken_for=int(wrong[k].argmax()) if wrong[k].any() else None,
        )
        for k in range(classes)
    ]
    return tuple(sorted(found, key=lambda c: (c.val_accuracy is None, c.val_accuracy, c.label)))


def confusions(dataset: ImageDataset, val_predicted: np.ndarray, top: int) -> tuple[Confusion, ...]:
    """Return the pairs of classes that are most often mixed up on the validation rows."""
    classes = len(dataset.class_ids)
    matrix = confusion_matrix(dataset.labels[dataset.rows("val")], val_predicted, classes)
    size = matrix.sum(axis=1)
    return tuple(
        Confusion(a, b, int(matrix[a, b]), int(matrix[b, a]), float(both / (size[a] + size[b])))
        for a, b, both in confused_pairs(matrix, top, symmetric=True)
    )


def _since(start: float) -> str:
    return human_seconds(time.monotonic() - start)
