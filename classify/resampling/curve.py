"""The learning curve: accuracy against labelled images, and what twice as many would be worth.

Only training rows are read. Each seed deals five folds anew and holds two of them out, one after the other; a head
learns from more and more of the other four, the same images and further ones. A fold's hyper-parameters are those that
are best on the other one (`onepass.classify.resampling.folds`).

The loss is taken as `floor + scale · n^-power` of n images (Hestness et al., "Deep Learning Scaling is Predictable,
Empirically", 2017). Its interval has two sources: the held-out folds, drawn with replacement, and how far the
law moves where the smallest sizes are left out, as it does when the loss follows none.
"""

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.cache.locks import exclusive
from onepass.cache.made_by import MadeBy
from onepass.cache.memory import within_memory
from onepass.cache.progress import human_seconds
from onepass.classify.baselines import make_head
from onepass.classify.config import CurveConfig
from onepass.classify.heads.base import Head
from onepass.classify.leaderboard.result import features_text
from onepass.classify.metrics import LEVEL, Metric, find_metric
from onepass.classify.protocol.evaluate import find_positive, training_rows
from onepass.classify.protocol.inputs import Inputs, feature_inputs
from onepass.classify.resampling.folds import Part, merits_of, run_fold
from onepass.classify.resampling.parallel import side_by_side
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.data.splits import fold_split, nested_order

log = logging.getLogger(__name__)

VERSION = 1  # raised when the same rows would be scored otherwise
FOLDS, HELD = 5, (0, 1)  # folds that are dealt, and those that are held out
MOST = 7  # sizes, each half of the next
FEWEST = 3  # sizes that a power law is fitted to
RESAMPLES = 2_000
TAIL = (1 - LEVEL) / 2  # of an interval
POWERS = np.linspace(0.02, 2.0, 100)


@record
class CurvePoint:
    """A head that learnt from so many images.

    Attributes:
        rows: How many.
        figures: The metric on each held-out fold, seed by seed.
        seconds: Wall time.
    """

    rows: int
    figures: tuple[float, ...]
    seconds: float

    @property
    def mean(self) -> float:
        """Mean of the figures."""
        return float(np.mean(self.figures))


@record
class Extrapolation:
    """The power law through the points, and what it says of more labels.

    Attributes:
        floor, scale, power: Of the loss `floor + scale · n^-power` of n rows.
        rows: Training rows that there are.
        now: The metric expected with all of them.
        doubled: Expected with twice as many.
        doubled_interval: Its 95 % interval.
        gain: By how much twice as many is better.
        gain_interval: Its 95 % interval.
    """

    floor: float
    scale: float
    power: float
    rows: int
    now: float
    doubled: float
    doubled_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]

    def at(self, rows: float, metric: Metric) -> float:
        """Return the metric expected of so many labelled rows."""
        return float(as_loss(metric, self.floor + self.scale * rows**-self.power))


@record
class LabelCurve:
    """Of a head on one set of features.

    Attributes:
        features, views, features_digest, head: As in `ProbeResult`.
        version: Of the head.
        points: By rising number of rows.
        expected: None while points are missing.
    """

    features: tuple[str, ...]
    views: tuple[str, ...]
    features_digest: str
    head: str
    version: int
    points: tuple[CurvePoint, ...] = ()
    expected: Extrapolation | None = None

    @property
    def name(self) -> str:
        """Features and head, in a few words."""
        return f"{features_text(self.features, self.views)} {self.head}"


@record
class CurveFile(Artifact):
    """`runs/<data set>/curve.json`: what the last `onepass classify curve` found.

    Attributes:
        version: VERSION.
        dataset: Name of the data set.
        dataset_digest: Its state.
        classes: How many classes it has.
        rows: Training rows.
        seeds: How often the folds were dealt.
        metric: Name of the metric.
        positive: Column of the class that it is of, or None.
        curves: One for each set of features.
        made_by: Who wrote it, when and with what.
    """

    NAME: ClassVar[str] = "curve.json"

    version: int
    dataset: str
    dataset_digest: str
    classes: int
    rows: int
    seeds: int
    metric: str
    positive: int | None
    curves: tuple[LabelCurve, ...]
    made_by: MadeBy

    @property
    def by(self) -> Metric:
        """The metric."""
        return find_metric(self.metric, self.positive)


@dataclass(frozen=True, slots=True)
class CurveResult:
    """What `onepass classify curve` did.

    Attributes:
        path: Of `curve.json`.
        found: What it holds.
        ran: How many sizes were fitted now; the others were there already.
    """

    path: Path
    found: CurveFile
    ran: int


@dataclass(frozen=True, slots=True)
class _Deal:
    """One held-out fold of one seed: the order of the rows that are learnt from, and the rows held out."""

    seed: int
    fold: int
    order: np.ndarray
    held: np.ndarray


@within_memory
def run_curve(config: CurveConfig) -> CurveResult:
    """Learn from more and more of the training rows, and extrapolate.

    Each size is kept when it is done; a run that was interrupted resumes at the next one.

    Raises:
        InvalidInputError: There are too few training images for three sizes.
        OnepassError: Something is missing, unknown, stale, damaged or unusable; one line says what.
    """
    dataset = open_dataset(config.store, config.dataset)
    inputs = feature_inputs(config.store, dataset, config.features, config.views)
    train = training_rows(dataset)
    deals = _deals(dataset, train, config.seeds)
    sizes = curve_sizes(min(len(deal.order) for deal in deals), len(dataset.class_ids))
    path, ran = config.runs / dataset.name / CurveFile.NAME, 0
    with exclusive(path):
        found = _opened(path, dataset, train, config)
        for one in inputs:
            curve = _known(found, one, make_head(config.head, 0))
            for size in sizes[len(curve.points) :]:
                point = measure(
                    make_head(config.head, 0), one.all_views(), dataset.labels, deals, size, found.by
                )  # fmt: skip
                curve = replace(curve, points=(*curve.points, point))
                log.info(f"{curve.name}: {size:,} images, {found.by.text(point.mean)} · {human_seconds(point.seconds)}")  # fmt: skip
                found, ran = _holding(found, curve), ran + 1
                found.write(path)
            curve = replace(curve, expected=extrapolate(curve.points, found.by, len(train)))
            found = _holding(found, curve)
        found.write(path)
    return CurveResult(path, found, ran)


def curve_sizes(rows: int, classes: int) -> list[int]:
    """Return the sizes, ascending: all rows, half of them, …, but two of a class on average.

    Raises:
        InvalidInputError: There are too few for three sizes.
    """
    sizes = [rows >> step for step in range(MOST) if rows >> step >= 2 * classes]
    if len(sizes) < FEWEST:
        raise InvalidInputError(
            f"learning curve: expected at least {2 * classes << FEWEST - 1} training images of {classes} classes to "
            f"learn from in four folds of five, received {rows}"
        )
    return sizes[::-1]


def measure(
    head: Head,
    views: tuple[np.ndarray, ...],
    labels: np.ndarray,
    deals: list[_Deal],
    size: int,
    metric: Metric,
) -> CurvePoint:
    """Let a head learn from the first `size` rows of each deal; return how it does on the rows held out.

    Raises:
        InvalidInputError: The metric has no meaning on rows that are held out.
    """
    start = time.monotonic()
    work = partial(run_fold, head, labels, metric, "quick")
    parts = [Part(one.seed, one.fold, np.sort(one.order[:size]), one.held) for one in deals]
    merits = merits_of(list(side_by_side(work, parts, views, size, int(labels.max() + 1))))
    if not np.isfinite(merits).all():
        raise InvalidInputError(
            f"learning curve: {metric.label} has no meaning on {np.sum(~np.isfinite(merits))} of {len(merits)} held-out "
            "folds, as they hold too few images of its class; add some, or take another --metric"
        )
    sign = 1 if metric.greater_is_better else -1
    figures = tuple((sign * merits).tolist())
    return CurvePoint(size, figures, round(time.monotonic() - start, 1))


def extrapolate(points: tuple[CurvePoint, ...], metric: Metric, rows: int) -> Extrapolation:
    """Fit the power law to the points, and say what `rows` and twice as many rows would give.

    Args:
        points: At least three.
        metric: A loss, or a figure of which 1 is the best.
        rows: Labelled rows that there are.
    """
    losses = as_loss(metric, np.array([point.figures for point in points]).T)  # (folds, sizes)
    sizes = np.array([point.rows for point in points], float)
    folds, mean, random = len(losses), losses.mean(axis=0), np.random.default_rng(0)

    def expected(laws: np.ndarray) -> np.ndarray:
        """Return the loss now, the loss with twice as many and the gain, (m, 3)."""
        now, doubled = (laws[:, 0] + laws[:, 1] * n ** -laws[:, 2] for n in (rows, 2 * rows))
        return np.stack([now, doubled, now - doubled], axis=1)

    law = fit_power_law(sizes, mean[None])
    found = expected(law)
    drawn = losses[random.integers(0, folds, (RESAMPLES, folds))].mean(axis=1)
    # a few folds, drawn with replacement, differ too little: as Student's t differs from the normal distribution
    wider = np.sqrt(folds / (folds - 1)) * stats.t.isf(TAIL, folds - 1) / stats.norm.isf(TAIL)
    spread = wider * (expected(fit_power_law(sizes, drawn)) - found)
    fewer = [fit_power_law(sizes[k:], mean[None, k:]) for k in range(1, len(sizes) - FEWEST + 1)]
    if fewer:
        misfit = np.sqrt(np.mean((expected(np.concatenate(fewer)) - found) ** 2, axis=0))
        spread += misfit * random.normal(size=(RESAMPLES, 1))
    low, high = np.quantile(found + spread, [TAIL, 1 - TAIL], axis=0)
    (floor, scale, power), (now, doubled, gain) = law[0].tolist(), found[0].tolist()
    ends = sorted(as_loss(metric, np.maximum([low[1], high[1]], 0)).tolist())
    return Extrapolation(
        floor, scale, power, rows,
        now=as_loss(metric, now),
        doubled=as_loss(metric, doubled),
        doubled_interval=(ends[0], ends[1]),
        gain=gain,
        gain_interval=(float(low[2]), float(high[2])),
    )  # fmt: skip


def as_loss(metric: Metric, figure: Any) -> Any:
    """Return a figure as a loss, of which 0 is the best, and such a loss as the figure again."""
    return 1 - figure if metric.greater_is_better else figure


def fit_power_law(sizes: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Fit `floor + scale · n^-power` by least squares, with neither floor nor scale below 0.

    Args:
        sizes: (n,) rows.
        losses: (m, n), of m curves.

    Returns:
        (m, 3): floor, scale and power of each curve.
    """
    best, error = np.zeros((len(losses), 3)), np.full(len(losses), np.inf)
    for power in POWERS:  # for a given power the problem is linear
        x = sizes**-power
        away = x - x.mean()
        scale = losses @ away / (away @ away)
        floor = losses.mean(axis=1) - scale * x.mean()
        through = np.maximum(losses @ x / (x @ x), 0)  # the origin
        scale, floor = np.where(floor < 0, [through, np.zeros_like(floor)], [scale, floor])
        flat = scale < 0
        scale[flat], floor[flat] = 0, losses.mean(axis=1)[flat]
        off = ((floor[:, None] + scale[:, None] * x - losses) ** 2).sum(axis=1)
        better = off < error
        best[better] = np.stack([floor, scale, np.full_like(floor, power)], axis=1)[better]
        error[better] = off[better]
    return best


def _deals(dataset: ImageDataset, train: np.ndarray, seeds: int) -> list[_Deal]:
    deals = []
    for seed in range(seeds):
        groups, content, labels = dataset.groups, dataset.content, dataset.labels
        dealt = fold_split(labels, train, content, groups, folds=FOLDS, seed=seed)
        for fold in HELD:
            order = nested_order(labels, train[dealt != fold], content, groups, seed=seed)
            deals.append(_Deal(seed, fold, order, train[dealt == fold]))
    return deals


def _opened(path: Path, dataset: ImageDataset, train: np.ndarray, config: CurveConfig) -> CurveFile:
    """Return what the file holds of the same rows, or an empty one."""
    empty = CurveFile(
        VERSION, dataset.name, dataset.digest, len(dataset.class_ids), len(train), config.seeds,
        config.metric, find_positive(dataset, config.positive), (), MadeBy.now(),
    )  # fmt: skip
    try:
        known = None if config.fresh else CurveFile.read_optional(path)
    except CorruptFileError as error:
        raise CorruptFileError(f"{error}; run the same command with --fresh") from error
    same = known and replace(known, curves=(), made_by=empty.made_by) == empty
    return replace(empty, curves=known.curves) if known and same else empty


def _known(found: CurveFile, inputs: Inputs, head: Head) -> LabelCurve:
    empty = LabelCurve(inputs.features, inputs.views, inputs.digest, head.kind, head.version)
    known = (c for c in found.curves if replace(c, points=(), expected=None) == empty)
    return next(known, empty)


def _holding(found: CurveFile, curve: LabelCurve) -> CurveFile:
    others = tuple(c for c in found.curves if c.name != curve.name)
    return replace(found, curves=(*others, curve))
