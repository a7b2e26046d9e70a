"""The protocol of honest numbers: choose on the selection split, refit, score the validation split once.

The selection split is 10 % of the training rows, stratified and seeded (`onepass.data.splits`); instead of it
every training row can be held out once (`onepass.classify.protocol.by_folds`). Nothing
before the last step of `run_probe` reads a validation row.
"""

import time
import warnings
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from onepass.cache.errors import InvalidInputError, unknown_name
from onepass.classify import config
from onepass.classify.config import Budget, Select, SelectOrAuto
from onepass.classify.heads.base import Head
from onepass.classify.intervals import effective_rows
from onepass.classify.leaderboard.result import ProbeResult, RowCounts
from onepass.classify.metrics import (
    TOP1,
    Metric,
    apply_temperature,
    calibration_temperature,
    find_metric,
    most_probable,
)
from onepass.classify.protocol.by_folds import choose_by_folds
from onepass.classify.protocol.views import (
    Vectors,
    as_views,
    evaluated_together,
    mean_probabilities,
    repeated,
    split_of,
    stacked,
)
from onepass.classify.search.search import Note, Search, Trial, best_trial
from onepass.data.dataset import ImageDataset
from onepass.data.splits import KEPT, fold_split, selection_split

if TYPE_CHECKING:
    from onepass.classify.search.neural import JointTraining

VERSION = 1  # raised when the same inputs would be scored otherwise
SELECTION_FRACTION = 0.1
FOLDS = 5
SMALL = 1_000_000_000  # multiplications of one pass of a linear head
DESCRIPTION = (
    "heads and hyper-parameters chosen on {selection:,} of the {train:,} training rows (stratified, "
    "seed {seed}), refitted on all of them, val ({val:,} rows) scored once; 95 % intervals"
)
BY_FOLDS = (
    "heads and hyper-parameters chosen by five folds of the {train:,} training rows (stratified, seed {seed}), each of "
    "{selection:,} held out once, refitted on all of them, val ({val:,} rows) scored once; 95 % intervals"
)


@dataclass(frozen=True, slots=True)
class ProtocolRows:
    """Which rows each step may read, int64, ascending.

    Attributes:
        fit: Training rows to fit the candidates on.
        selection: Training rows to choose among them.
        train: All training rows: fit and selection.
        val: The validation rows.
        test: Rows to predict, whose labels may be unknown; may be empty.
        fold: Which fold each training row is in, (n,), `KEPT` for one that is never held out; None where a part of
            them is held out for all choices. With folds all training rows are fitted on, and those that are held
            out once are selected on.
    """

    fit: np.ndarray
    selection: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    fold: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not (len(self.fit) and len(self.selection) and len(self.val)):
            raise InvalidInputError(
                "expected rows to fit on, to select on and to validate on, received "
                f"{len(self.fit)}, {len(self.selection)} and {len(self.val)}"
            )

    @property
    def select(self) -> Select:
        """How choices are made."""
        return "split" if self.fold is None else "folds"

    def parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the rows to fit candidates on and those to choose among them, fold by fold where there are folds."""
        if self.fold is None:
            return [(self.fit, self.selection)]
        return [(self.train[self.fold != k], self.train[self.fold == k]) for k in range(FOLDS)]

    def how(self, budget: str) -> str:
        """Return a search's budget and how its choice is made, as they are part of a probe's identity."""
        return budget if self.fold is None else f"{budget} by folds"

    def thinned(self, labels: np.ndarray, most: int) -> "ProtocolRows":
        """Return the same with about `most` training rows, where there are more: evenly spread in each class.

        Args:
            labels: Of all rows, (N,).
            most: How many; a class keeps two at least.
        """
        if len(self.train) <= most or self.fold is not None:
            return self
        share = most / len(self.train)
        fit, train = (_spread(rows, labels, share) for rows in (self.fit, self.train))
        return replace(self, fit=fit, train=train)

    def counts(self) -> RowCounts:
        """Return how many rows each step reads."""
        return RowCounts(**{f.name: len(getattr(self, f.name)) for f in fields(RowCounts)})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a probe found.

    Attributes:
        head: The chosen head, refitted on all training rows.
        chosen: The trial that won.
        trials: All of them, in order.
        selection: Probabilities of the selection rows by the head before refitting, float32 (n, K).
        val: Probabilities of the validation rows, float32 (n, K).
        test: Probabilities of the test rows, float32 (n, K).
        seconds: Wall time of it all.
        converged: Whether the solver of the refit reached its tolerance.
        temperature: Learnt on the selection rows; all three probabilities are calibrated by it.
        raw_val: Probability and column of the most probable class of each validation row without it, (n,).
    """

    head: Head
    chosen: Trial
    trials: list[Trial]
    selection: np.ndarray
    val: np.ndarray
    test: np.ndarray
    seconds: float
    converged: bool
    temperature: float
    raw_val: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(
        cls,
        head: Head,
        chosen: Trial,
        trials: list[Trial],
        raw: tuple[np.ndarray, np.ndarray, np.ndarray],
        truth: np.ndarray,
        seconds: float,
        converged: bool = True,
    ) -> "Outcome":
        """Learn the temperature and apply it.

        Args:
            head, chosen, trials, seconds, converged: As the attributes.
            raw: Probabilities of the selection, validation and test rows as the heads give them; overwritten.
            truth: Column of the true class of each selection row.
        """
        temperature = calibration_temperature(truth, raw[0])
        raw_val = most_probable(raw[1])
        selection, val, test = (
            apply_temperature(part, temperature, out=part if part.dtype == np.float32 else None)
            for part in raw
        )
        return cls(
            head, chosen, trials, selection, val, test, seconds, converged, temperature, raw_val
        )


def protocol_rows(
    dataset: ImageDataset, seed: int, select: SelectOrAuto = "split", metric: Metric = TOP1
) -> ProtocolRows:
    """Return the rows of each step of the protocol.

    Args:
        dataset: Each of its classes needs a training row.
        seed: Of the selection split, or of the folds.
        select: Whether a part of the training rows is held out for every choice, or each of them once; "auto": each
            once where a tenth of them would be few to choose on by the metric, and they can be dealt into folds.
        metric: What is chosen by.

    Raises:
        InvalidInputError: As `training_rows`; or a validation row has no label; or the metric has no meaning on the
            rows that are chosen on.
    """
    train, val = training_rows(dataset), _labelled_rows(dataset, "val", "validate on")
    rows = _by_folds(dataset, train, val, seed, select, metric)
    if rows is None:
        fit, selection = selection_rows(dataset, seed)
        if not len(selection):
            raise InvalidInputError(
                f"expected at least two different training images (or groups) of a class, one to fit on and one to "
                f"select on; all {len(train)} are equal to another of their class, or of one group"
            )
        rows = ProtocolRows(fit, selection, train, val, dataset.rows("test"))
    if metric.one_class and metric.positive is not None:
        found = int(np.sum(dataset.labels[rows.selection] == metric.positive))
        if not 0 < found < len(rows.selection):
            raise InvalidInputError(
                f"--metric {metric.name}: expected selection rows of class {dataset.class_ids[metric.positive]} and "
                f"of others, received {found} of {len(rows.selection)}"
            )
    return rows


def _by_folds(
    dataset: ImageDataset,
    train: np.ndarray,
    val: np.ndarray,
    seed: int,
    select: SelectOrAuto,
    metric: Metric,
) -> ProtocolRows | None:
    """Return the rows of a choice by folds; None where it is to be made on a part of them."""
    counts = np.bincount(dataset.labels[train], minlength=len(dataset.class_ids))
    few = effective_rows(metric, counts) < config.FEW_ROWS
    if select == "split" or (select == "auto" and not few):
        return None
    try:
        fold = fold_split(
            dataset.labels, train, dataset.content, dataset.groups, folds=FOLDS, seed=seed
        )
    except InvalidInputError:
        if select == "folds":
            raise
        return None
    return ProtocolRows(train, train[fold != KEPT], train, val, dataset.rows("test"), fold)


def training_rows(dataset: ImageDataset) -> np.ndarray:
    """Return the training rows, int64, ascending.

    Raises:
        InvalidInputError: One has no label, a class has fewer than two, or there is one class only.
    """
    train, class_ids = _labelled_rows(dataset, "train", "learn from"), dataset.class_ids
    if len(class_ids) < 2:
        raise InvalidInputError(
            f"expected at least two classes, received one class only: {class_ids}"
        )
    _check_classes(np.bincount(dataset.labels[train], minlength=len(class_ids)), class_ids)
    return train


def _labelled_rows(dataset: ImageDataset, split: str, use: str) -> np.ndarray:
    rows = dataset.rows(split)
    unknown = int(np.sum(dataset.labels[rows] < 0))
    if unknown or not len(rows):
        raise InvalidInputError(
            f"split {split!r}: expected labelled rows to {use}, received {len(rows)} rows, "
            f"{unknown} of them without a label"
        )
    return rows


def _spread(rows: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Return a share of the rows of each class, at equal distances, and its first two."""
    order = np.argsort(labels[rows], kind="stable")
    ends = np.bincount(labels[rows]).cumsum()
    place = np.arange(len(rows)) - np.concatenate([[0], ends])[labels[rows][order]]  # in its class
    kept = (place < 2) | (np.floor(place * share) > np.floor((place - 1) * share))
    return np.sort(rows[order[kept]])


def metric_of(dataset: ImageDataset, name: str, positive: str = "") -> Metric:
    """Return what is chosen by.

    Args:
        dataset: Gives the classes.
        name: Of the metric.
        positive: Name or id of the class that AUROC and average precision are of; see `find_positive`.

    Raises:
        UnknownNameError: There is no such metric or class.
    """
    return find_metric(name, find_positive(dataset, positive))


def find_positive(dataset: ImageDataset, name: str = "") -> int | None:
    """Return the column of the positive class, by its name or id.

    Without one, that of the two classes that has fewer training rows (of equal ones the second): a defect, a
    disease; None where there are more than two.

    Raises:
        UnknownNameError: There is no such class.
    """
    texts = dataset.class_names, dataset.class_ids
    known = {text: column for column_of in texts for column, text in enumerate(column_of)}
    if name:
        if name not in known:
            raise unknown_name(f"class of {dataset.name}", name, known)
        return known[name]
    if len(dataset.class_ids) > 2:
        return None
    counts = np.bincount(dataset.labels[dataset.rows("train")], minlength=2)
    return int(counts[1] <= counts[0])


def selected_on(dataset: ImageDataset, probe: ProbeResult) -> np.ndarray:
    """Return the training rows that a probe's selection probabilities are of, int64, ascending."""
    if probe.rows.select == "folds":
        return protocol_rows(dataset, probe.seed, "folds").selection
    return selection_rows(dataset, probe.seed)[1]


def selection_rows(dataset: ImageDataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows that are fitted on and those that every choice is made on, int64, ascending."""
    return selection_split(
        dataset.labels, dataset.rows("train"), dataset.content, dataset.groups,
        fraction=SELECTION_FRACTION, seed=seed,
    )  # fmt: skip


def _check_classes(counts: np.ndarray, class_ids: list[str]) -> None:
    """Refuse classes that cannot be both fitted on and selected on.

    Args:
        counts: Training rows of each class, (K,).
        class_ids: Their identities.
    """
    rows = int(counts.sum())
    for few, received in ((0, "none"), (1, "one")):
        short = [class_ids[k] for k in np.flatnonzero(counts == few)]
        if not short:
            continue
        more = f" and {len(short) - 3} more" if len(short) > 3 else ""
        all_in_all = f" ({rows} rows for {len(class_ids)} classes)" if rows < len(class_ids) else ""
        raise InvalidInputError(
            f"class {', '.join(short[:3])}{more}: expected at least two training images, one to fit on and "
            f"one to select on, received {received}{all_in_all}; add some, or take the class out of the "
            "data set, and prepare it again"
        )


def run_probe(
    head: Head,
    X: Vectors,
    labels: np.ndarray,
    rows: ProtocolRows,
    *,
    budget: Budget = "quick",
    together: "JointTraining | None" = None,
    note: Note | None = None,
    metric: Metric = TOP1,
) -> Outcome:
    """Choose, refit, and predict the validation rows once.

    Args:
        head: Gives the kind and the hyper-parameters that are not searched.
        X: (N, D) features of all rows, may be a memory map; or a tuple of them, one for each view of
            the images: the head is fitted on the rows of all and predicts with their mean.
        labels: (N,) int, from 0.
        rows: What each step may read.
        budget: How far the hyper-parameters are searched: "quick" or "full".
        together: Trains many heads at once, instead of the search of the head's kind.
        note: Called with each step as text.
        metric: What is chosen by.
    """
    start = time.monotonic()
    views = as_views(X)
    small = is_small(views, len(rows.train), int(labels.max() + 1))
    with threadpool_limits(limits=1 if small else None):
        parts = rows.parts()
        searches = (
            Search(head, split_of(views, labels, *part), budget, note, metric=metric)
            for part in parts
        )
        found = together.in_folds(list(searches)) if together else [one.run() for one in searches]
        if len(views) > 1:
            found = [
                evaluated_together(trials, views, held, labels[held], metric)
                for trials, (_, held) in zip(found, parts, strict=True)
            ]
        if rows.fold is None:
            (trials,) = found
            chosen = best_trial(trials)
            selection = mean_probabilities(chosen.head, views, rows.selection)
        else:
            by_folds = choose_by_folds(found, views, labels, parts, metric)
            trials, chosen, selection = by_folds.trials, by_folds.best, by_folds.probabilities
        if note:
            note(f"chosen {chosen}; refitting on {len(rows.train):,} rows")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # said in the record instead
            final = chosen.head.refit(
                stacked(views, rows.train), repeated(labels[rows.train], views)
            )
        val, test = (
            mean_probabilities(final, views, part) if len(part) else selection[:0]
            for part in (rows.val, rows.test)
        )
    truth = np.searchsorted(final.classes_, labels[rows.selection])
    seconds, converged = time.monotonic() - start, bool(getattr(final, "converged_", True))
    return Outcome.of(final, chosen, trials, (selection, val, test), truth, seconds, converged)


def is_small(views: tuple[Any, ...], rows: int, classes: int) -> bool:
    """Return whether a fit is so small that threads which wait for each other make it slower.

    On a busy machine, ten times.
    """
    return rows * len(views) * views[0].shape[1] * classes < SMALL
