"""Cross-validation on the stored features: every head in the same folds, and whether they differ by chance.

Only training rows are read; the validation split is not touched. In each fold a head's hyper-parameters are
searched as they always are, with the held-out fold in the place of the selection split. The setting that a
fold is scored with is the best of the *other* folds of its repeat, so that no fold chooses for itself.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import CorruptFileError, InvalidInputError, UsageError
from onepass.cache.locks import exclusive
from onepass.cache.made_by import MadeBy
from onepass.cache.memory import within_memory
from onepass.cache.progress import human_seconds
from onepass.classify.analysis.series import PartedSeries, find_parted_series
from onepass.classify.baselines import make_head
from onepass.classify.cluster.work import run_units
from onepass.classify.config import Budget, ClassifyConfig
from onepass.classify.heads.base import Head
from onepass.classify.leaderboard.records import ThrottledLog
from onepass.classify.leaderboard.result import features_text
from onepass.classify.metrics import (
    Metric,
    Verdict,
    corrected_interval,
    corrected_t_test,
    find_metric,
    verdict,
)
from onepass.classify.protocol.evaluate import find_positive, training_rows
from onepass.classify.protocol.inputs import Inputs, feature_inputs, no_inputs
from onepass.classify.protocol.views import evaluated_together, split_of
from onepass.classify.resampling.parallel import side_by_side
from onepass.classify.search.search import Search
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.data.manifest import FOLD
from onepass.data.splits import KEPT, fold_split, in_one_fold

log = logging.getLogger(__name__)

VERSION = 1  # raised when the same folds would be scored otherwise
SAVE_EVERY = 2.0  # seconds


@record
class Setting:
    """One setting of a head's hyper-parameters, evaluated on a held-out fold.

    Attributes:
        params: The hyper-parameters that were tried, without those that the search fits.
        merit: The metric so that the greatest is the best (`onepass.classify.metrics.Metric.merit`); None
            where it has no meaning, such as an AUROC of one class.
        log_loss: In nats; settles ties.
    """

    params: dict[str, Any]
    merit: float | None
    log_loss: float


@record
class Fold:
    """What a head's search found with one fold held out.

    Attributes:
        repeat, number: Which fold, both from 0.
        fitted, held: Rows that were fitted on, and rows held out.
        settings: In the order they were tried.
        seconds: Wall time.
    """

    repeat: int
    number: int
    fitted: int
    held: int
    settings: tuple[Setting, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a fold.

    Attributes:
        repeat, number: As in `Fold`.
        fit, held: Rows that are fitted on, and rows held out, ascending.
    """

    repeat: int
    number: int
    fit: np.ndarray
    held: np.ndarray


@record
class FoldedProbe:
    """A head on one set of features, in every fold.

    Attributes:
        features, views, features_digest: As in `ProbeResult`.
        head: Kind of head.
        params: Its hyper-parameters before the search.
        version: Of the head.
        baseline: Whether no backbone is behind it.
        folds: In the order of repeats and folds.
    """

    features: tuple[str, ...]
    views: tuple[str, ...]
    features_digest: str
    head: str
    params: dict[str, Any]
    version: int
    baseline: bool
    folds: tuple[Fold, ...] = ()

    @property
    def features_text(self) -> str:
        """The key texts and their views, as the leaderboard shows them."""
        return features_text(self.features, self.views)

    @property
    def name(self) -> str:
        """Features and head, in a few words."""
        return f"{self.features_text} {self.head}".strip()

    @property
    def seconds(self) -> float:
        """Wall time of all folds."""
        return sum(fold.seconds for fold in self.folds)

    def merits(self) -> np.ndarray:
        """Return the merit in each fold, (folds,); see `merits_of`."""
        return merits_of(self.folds)

    def chosen(self) -> dict[str, Any]:
        """Return the setting that is best over all folds."""
        first, *others = map(_by_params, self.folds)
        return first[_best(_common([first, *others]), [first, *others])].params


@record
class CrossValidation(Artifact):
    """`runs/<data set>/folds.json`: what the last `onepass classify --folds` found.

    Attributes:
        version: VERSION.
        dataset: Name of the data set.
        dataset_digest: Its state.
        folds, repeats, seed: How the folds were dealt, and how often.
        budget: How far hyper-parameters were searched.
        metric: Name of the metric.
        positive: Column of the class that it is of, or None.
        rows: Training rows.
        kept: How many of them are never held out.
        together: What was never parted: "images", "groups", or "column" where the data set has its own folds.
        probes: In the order of features and heads.
        made_by: Who wrote it, when and with what.
    """

    NAME: ClassVar[str] = "folds.json"

    version: int
    dataset: str
    dataset_digest: str
    folds: int
    repeats: int
    seed: int
    budget: Budget
    metric: str
    positive: int | None
    rows: int
    kept: int
    together: str
    probes: tuple[FoldedProbe, ...]
    made_by: MadeBy

    @property
    def by(self) -> Metric:
        """The metric that heads are compared by."""
        return find_metric(self.metric, self.positive)

    @property
    def complete(self) -> tuple[FoldedProbe, ...]:
        """The probes that were run in every fold of every repeat, with these folds only."""
        cut = [
            replace(probe, folds=tuple(fold for fold in probe.folds if fold.repeat < self.repeats))
            for probe in self.probes
        ]
        return tuple(probe for probe in cut if len(probe.folds) == self.folds * self.repeats)

    def same_folds(self, other: "CrossValidation") -> bool:
        """Return whether the folds of another one were dealt and scored in the same way."""
        alike = replace(other, repeats=self.repeats, probes=self.probes, made_by=self.made_by)
        return self == alike


@dataclass(frozen=True, slots=True)
class FoldLine:
    """How a probe does over the folds, beside the best.

    Attributes:
        probe: The probe.
        mean, deviation: Of the metric over the folds.
        interval: 95 % interval of the mean, corrected for the rows that the folds share.
        gain: Mean of the best less that of this one, merits; None for the best.
        p_value: Of the corrected test of the two; None for the best.
    """

    probe: FoldedProbe
    mean: float
    deviation: float
    interval: tuple[float, float]
    gain: float | None
    p_value: float | None

    @property
    def verdict(self) -> Verdict | None:
        """Whether the best is better; None for the best."""
        if self.gain is None or self.p_value is None:
            return None
        return verdict(self.gain, self.p_value)


@dataclass(frozen=True, slots=True)
class FoldsResult:
    """What `onepass classify --folds` did.

    Attributes:
        path: Of `folds.json`.
        found: What it holds.
        lines: Best first, baselines last.
        series: What belongs together by its names and lies in different folds; None for nothing.
        ran: How many folds of heads were run now; the others were there already.
        seconds: Wall time.
    """

    path: Path
    found: CrossValidation
    lines: tuple[FoldLine, ...]
    series: PartedSeries | None
    ran: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Folding:
    """What the flags ask for; a unit is the number of a probe, a repeat and the number of a fold.

    Attributes:
        config: The flags.
        dataset, features: What is read.
        metric: What is chosen by.
        train: The training rows, (n,).
        dealt: The fold of each of them, for each repeat.
        probes: What each looks at, and its head before the search.
    """

    NAME: ClassVar[str] = "folds"
    FOUND: ClassVar[type] = Fold

    config: ClassifyConfig
    dataset: ImageDataset
    features: list[Inputs]
    metric: Metric
    train: np.ndarray
    dealt: list[np.ndarray]
    probes: list[tuple[Inputs, Head]]

    @classmethod
    def of(cls, config: ClassifyConfig) -> Self:
        """Open what the flags name; see `run_folds`."""
        heads = [
            make_head(kind, config.seed, config.class_weight) for kind in dict.fromkeys(config.head)
        ]
        dataset = open_dataset(config.store, config.dataset)
        inputs = feature_inputs(config.store, dataset, config.features, config.views)
        train = training_rows(dataset)
        dealt = [_deal(dataset, train, config, repeat) for repeat in range(config.repeats)]
        probes = [
            (no_inputs(dataset), make_head("majority", config.seed)),
            *((one, head) for one in inputs for head in heads),
        ]
        metric = find_metric(config.metric, find_positive(dataset, config.positive))
        return cls(config, dataset, inputs, metric, train, dealt, probes)

    def label(self, unit: tuple[int, ...]) -> str:
        """Return what a probe, or one of its folds, is called."""
        inputs, head = self.probes[unit[0]]
        words = " · ".join(filter(None, [inputs.text, head.kind]))
        fold = f", fold {unit[2] + 1} of repeat {unit[1] + 1}" if unit[1:] else ""
        return f"[{unit[0] + 1}/{len(self.probes)}] {words}{fold}"

    def part(self, repeat: int, number: int) -> Part:
        """Return the rows of a fold."""
        held = self.dealt[repeat] == number
        return Part(repeat, number, self.train[~held], self.train[held])

    def run(self, unit: tuple[int, int, int]) -> Fold:
        """Run a head in a fold."""
        (inputs, head), labels = self.probes[unit[0]], self.dataset.labels
        work = partial(run_fold, head, labels, self.metric, self.config.budget)
        one = [self.part(*unit[1:])]
        classes = int(labels.max() + 1)
        (fold,) = side_by_side(work, one, inputs.all_views(), len(self.train), classes)
        return fold


@within_memory
def run_folds(config: ClassifyConfig) -> FoldsResult:
    """Run every head on every set of features in the same folds of the training rows.

    Each fold is kept when it is done: a run that was interrupted resumes at the next one, and more repeats
    add to those that are there.

    Args:
        config: Data set, features, heads, folds, repeats, budget, seed, folders.

    Raises:
        UsageError: The data set says its own folds, and they are not so many.
        OnepassError: Something is missing, unknown, stale, damaged or unusable; one line says what.
    """
    start = time.monotonic()
    work = Folding.of(config)
    dataset, train = work.dataset, work.train
    path = config.runs / dataset.name / CrossValidation.NAME
    with exclusive(path):
        file = _File(path, _empty(dataset, train, work.dealt[0], config), fresh=config.fresh)
        try:
            _run(file, work)
        finally:
            file.save()
    held = work.dealt[0] == 0
    series = find_parted_series(dataset, work.features[0].vectors(), train[~held], train[held])
    seconds = round(time.monotonic() - start, 1)
    return FoldsResult(path, file.found, compared(file.found), series, file.ran, seconds)


def compared(found: CrossValidation) -> tuple[FoldLine, ...]:
    """Return how the probes do, best first, the baselines last, each with its test against the best.

    Raises:
        InvalidInputError: The metric has a meaning in fewer than two folds.
    """
    metric, probes = found.by, found.complete
    merits = {probe.name: probe.merits() for probe in probes}
    usable = np.all([np.isfinite(values) for values in merits.values()], axis=0)
    if usable.sum() < 2:
        raise InvalidInputError(
            f"{metric.label}: expected at least two folds in which it has a meaning, found {int(usable.sum())} of "
            f"{len(usable)}; take fewer folds"
        )
    ratio = float(np.mean([fold.held / fold.fitted for fold in probes[0].folds]))
    ranked = sorted(probes, key=lambda p: (p.baseline, -merits[p.name][usable].mean()))
    lines = []
    for place, probe in enumerate(ranked):
        own, best = merits[probe.name][usable], merits[ranked[0].name][usable]
        figures = own if metric.greater_is_better else -own
        test = (float(np.mean(best - own)), corrected_t_test(best - own, ratio))
        lines.append(
            FoldLine(
                probe,
                float(figures.mean()),
                float(figures.std(ddof=1)),
                corrected_interval(figures, ratio),
                *(test if place else (None, None)),
            )
        )
    return tuple(lines)


class _File:
    """`folds.json` while it grows; what it held of the same folds is kept."""

    def __init__(self, path: Path, empty: CrossValidation, *, fresh: bool) -> None:
        self.path, self.ran = path, 0
        known = None if fresh else _read(path, empty.dataset)
        same = known is not None and known.same_folds(empty)
        self.found = replace(empty, probes=known.probes) if known and same else empty
        self._saved = time.monotonic()

    def probe(self, inputs: Inputs, head: Head) -> FoldedProbe:
        """Return what is known of a head on some features."""
        empty = FoldedProbe(
            inputs.features, inputs.views, inputs.digest, head.kind, head.get_params(deep=False),
            head.version, inputs.baseline,
        )  # fmt: skip
        known = (p for p in self.found.probes if replace(p, folds=()) == empty)
        return next(known, empty)

    def add(self, probe: FoldedProbe, fold: Fold) -> FoldedProbe:
        """Keep one more fold of a probe; now and then they are written."""
        more = sorted([*probe.folds, fold], key=lambda one: (one.repeat, one.number))
        self.ran += 1
        grown = replace(probe, folds=tuple(more))
        others = (p for p in self.found.probes if p.name != probe.name)
        self.found = replace(self.found, probes=(*others, grown))
        if time.monotonic() > self._saved + SAVE_EVERY:
            self.save()
        return grown

    def save(self) -> None:
        """Write the file."""
        replace(self.found, made_by=MadeBy.now()).write(self.path)
        self._saved = time.monotonic()


def _read(path: Path, dataset: str) -> CrossValidation | None:
    try:
        return CrossValidation.read_optional(path)
    except CorruptFileError as error:
        raise CorruptFileError(f"{error}; run the same command with --fresh") from error


def _deal(
    dataset: ImageDataset, train: np.ndarray, config: ClassifyConfig, repeat: int
) -> np.ndarray:
    """Return the fold of each training row, (n,), from 0; `KEPT` for one that is never held out.

    Raises:
        UsageError: The data set has its own folds, and other ones were asked for.
    """
    own = dataset.extra.get(FOLD)
    if own is None:
        return fold_split(
            dataset.labels, train, dataset.content, dataset.groups,
            folds=config.folds, seed=config.seed, repeat=repeat,
        )  # fmt: skip
    names, fold = np.unique([str(own[row]) for row in train], return_inverse=True)
    if "" in names or (len(names), config.repeats) != (config.folds, 1):
        raise UsageError(
            f"--folds {config.folds} --repeats {config.repeats}: the data set's column {FOLD!r} says the folds; "
            f"expected --folds {len(names)} without --repeats, and each training image in one"
        )
    fold[in_one_fold(dataset.labels[train], fold)] = KEPT
    return fold


def _empty(
    dataset: ImageDataset, train: np.ndarray, fold: np.ndarray, config: ClassifyConfig
) -> CrossValidation:
    together = "images" if dataset.groups is None else "groups"
    return CrossValidation(
        version=VERSION,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        folds=config.folds,
        repeats=config.repeats,
        seed=config.seed,
        budget=config.budget,
        metric=config.metric,
        positive=find_positive(dataset, config.positive),
        rows=len(train),
        kept=int(np.sum(fold == KEPT)),
        together="column" if FOLD in dataset.extra else together,
        probes=(),
        made_by=MadeBy.now(),
    )


def _run(file: _File, work: Folding) -> None:
    """Run the heads in the folds that are missing."""
    found, labels = file.found, work.dataset.labels
    places = [(r, k) for r in range(found.repeats) for k in range(found.folds)]
    elsewhere: list[tuple[int, int, int]] = []
    for number, (inputs, head) in enumerate(work.probes):
        label, probe = work.label((number,)), file.probe(inputs, head)
        done = {(fold.repeat, fold.number) for fold in probe.folds}
        missing = [place for place in places if place not in done]
        if not missing:
            log.info(f"{label}: cached")
        elif work.config.executor != "local":
            elsewhere += [(number, *place) for place in missing]
        else:
            note, parts = ThrottledLog(label), [work.part(*place) for place in missing]
            fit = partial(run_fold, head, labels, work.metric, found.budget)
            classes = int(labels.max() + 1)
            for fold in side_by_side(fit, parts, inputs.all_views(), len(work.train), classes):
                probe = file.add(probe, fold)
                note(f"{len(probe.folds)} of {len(places)} folds")
            log.info(f"{label}: {len(missing)} folds · {human_seconds(probe.seconds)}")

    def accept(unit: tuple[int, int, int], fold: Fold) -> None:
        file.add(file.probe(*work.probes[unit[0]]), fold)
        log.info(f"{work.label(unit)}: {human_seconds(fold.seconds)}")

    if elsewhere:
        run_units(work, elsewhere, accept)


def run_fold(
    head: Head,
    labels: np.ndarray,
    metric: Metric,
    budget: Budget,
    views: tuple[np.ndarray, ...],
    part: Part,
) -> Fold:
    """Search a head's hyper-parameters with one fold held out; see `search_fold`."""
    start = time.monotonic()
    settings = search_fold(head, views, labels, (part.fit, part.held), metric, budget)
    seconds = round(time.monotonic() - start, 3)
    return Fold(part.repeat, part.number, len(part.fit), len(part.held), settings, seconds)


def search_fold(
    head: Head,
    views: tuple[Any, ...],
    labels: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
    metric: Metric,
    budget: Budget,
) -> tuple[Setting, ...]:
    """Search a head's hyper-parameters on some rows and evaluate each setting on others.

    Args:
        head, views, labels, metric, budget: What, on which vectors, by what and how far.
        parts: The rows that are fitted on, and those that are held out, ascending.
    """
    fit, held = parts
    search = Search(head, split_of(views, labels, fit, held), budget, metric=metric)
    trials = search.run()
    if len(views) > 1:
        trials = evaluated_together(trials, views, held, labels[held], metric)
    return tuple(
        Setting(
            {name: v for name, v in trial.params.items() if name not in head.CALIBRATED},
            trial.merit if np.isfinite(trial.merit) else None,
            trial.log_loss,
        )
        for trial in trials
    )


def merits_of(folds: Sequence[Fold]) -> np.ndarray:
    """Return the merit in each fold, (folds,), with the setting that the other folds of its repeat choose.

    NaN where the metric has no meaning.
    """
    tried = [_by_params(fold) for fold in folds]
    found = []
    for place, own in enumerate(tried):
        others = [
            settings
            for other, settings in enumerate(tried)
            if other != place and folds[other].repeat == folds[place].repeat
        ]
        found.append(own[_best(_common([own, *others]), others)].merit)
    return np.array(found, np.float64)


def _by_params(fold: Fold) -> dict[str, Setting]:
    return {json.dumps(setting.params): setting for setting in fold.settings}


def _common(folds: Sequence[dict[str, Setting]]) -> list[str]:
    """Return the settings that every fold has tried, in the order of the first: a search may end early."""
    return [key for key in folds[0] if all(key in fold for fold in folds)]


def _best(keys: Sequence[str], folds: Sequence[dict[str, Setting]]) -> str:
    """Return the setting of best mean merit over some folds; ties go to the lower log-loss, then the earlier."""

    def rank(key: str) -> tuple[float, float]:
        settings = [fold[key] for fold in folds]
        merits = [s.merit for s in settings if s.merit is not None]
        worst = -float(np.mean(merits)) if merits else 0.0
        return worst, float(np.mean([s.log_loss for s in settings]))

    return min(keys, key=rank)
