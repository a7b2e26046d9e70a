"""Many heads on many features by one protocol, and the leaderboard that comes of it."""

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from onepass.cache.errors import Remedy, StaleError
from onepass.cache.memory import scratch, within_memory
from onepass.cache.notebook import as_html
from onepass.cache.tracking import check_installed
from onepass.classify.analysis.series import PartedSeries, find_parted_series
from onepass.classify.baselines import baseline_probes, make_head
from onepass.classify.cluster.work import run_units
from onepass.classify.config import ClassifyConfig
from onepass.classify.goals import parse_goal
from onepass.classify.heads.base import Head
from onepass.classify.intervals import Difference, difference, is_uneven
from onepass.classify.leaderboard.board import (
    Leaderboard,
    ProbeResult,
    only_writer,
)
from onepass.classify.leaderboard.history import (
    Correction,
    last_correction,
    open_board,
    previous_board,
)
from onepass.classify.leaderboard.logged import log_board
from onepass.classify.leaderboard.pareto import board_front, extraction_costs
from onepass.classify.leaderboard.records import (
    Probed,
    ThrottledLog,
    intact,
    keep_line,
    load_probabilities,
    probe_id,
    probe_result,
    save_probe,
)
from onepass.classify.metrics import Comparison, Metric, compare, find_metric
from onepass.classify.operating_points import (
    OperatingPoint,
    carry_point,
    choose_for_winner,
    positive_column,
)
from onepass.classify.protocol.evaluate import (
    BY_FOLDS,
    DESCRIPTION,
    ProtocolRows,
    find_positive,
    metric_of,
    protocol_rows,
    run_probe,
)
from onepass.classify.protocol.inputs import Inputs, feature_inputs
from onepass.classify.protocol.scorings import Scorings, count_scorings
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.data.record import PublishedResult
from onepass.data.splits import shared_images

log = logging.getLogger(__name__)

PIXEL_ROWS = 100_000  # training images whose pixels a baseline reads: more of them tell it little


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """What a run of probes found.

    Attributes:
        dataset: Name of the data set.
        classes: How many classes it has.
        leaderboard: Path of the leaderboard.
        winner: Id of the best probe.
        results: All probes on the leaderboard, best first.
        baselines: Best first.
        point: Operating point of the winner; None where none was chosen.
        comparison: Winner and runner-up (the best baseline where there is only one probe).
        difference: The same two by the metric that was chosen by; None where that is top-1.
        majority: Winner and the largest class, where the validation classes are uneven; else None.
        correction: What the last change of the data set was worth; None where there was none.
        shared: Images of a split that lie in another as well, such as {"val in train": 12}.
        published: What others reported on this data set.
        notes: What a reader of the numbers has to know of the data set.
        series: What belongs together by its names and lies on both sides of the split; None for nothing.
        protocol: How the numbers were made, in a sentence.
        scorings: How often val was scored in all, and how many models.
        other_seeds: How many probes are kept that were selected on the rows of another seed.
        other_rows: How many are kept that were chosen on other rows: by folds, or not.
        other_metrics: How many are kept that were chosen by another metric.
        costs: Extraction of each probe, ms an image, by id; None where it was not measured.
        front: Ids on the front of selection accuracy against that cost, cheapest first.
        ran: How many probes ran now.
        reused: How many were on the leaderboard already.
        seconds: Wall time.
    """

    dataset: str
    classes: int
    leaderboard: Path
    winner: str
    results: tuple[ProbeResult, ...]
    baselines: tuple[ProbeResult, ...]
    point: OperatingPoint | None
    comparison: Comparison | None
    difference: Difference | None
    majority: Comparison | None
    correction: Correction | None
    shared: dict[str, int]
    published: list[PublishedResult]
    notes: list[str]
    series: PartedSeries | None
    protocol: str
    scorings: Scorings
    other_seeds: dict[int, int]
    other_rows: int
    other_metrics: dict[str, int]
    costs: dict[str, float | None]
    front: tuple[str, ...]
    ran: int
    reused: int
    seconds: float

    def _repr_html_(self) -> str:
        from onepass.classify.text import classify_text

        return as_html(classify_text(self))


@dataclass(frozen=True, slots=True)
class Probing:
    """What the flags ask for; a unit is the number of a probe.

    Attributes:
        config: The flags.
        dataset, features: What is read.
        metric, rows: By what is chosen, and on which rows.
        probes: What each looks at, and its head before the search: the baselines first.
    """

    NAME: ClassVar[str] = "probes"
    FOUND: ClassVar[type] = Probed

    config: ClassifyConfig
    dataset: ImageDataset
    features: list[Inputs]
    metric: Metric
    rows: ProtocolRows
    probes: list[tuple[Inputs, Head]]

    @classmethod
    def of(cls, config: ClassifyConfig) -> Self:
        """Open what the flags name; see `run_probes`."""
        heads = [
            make_head(kind, config.seed, config.class_weight) for kind in dict.fromkeys(config.head)
        ]
        dataset = open_dataset(config.store, config.dataset)
        features = feature_inputs(config.store, dataset, config.features, config.views)
        metric = metric_of(dataset, config.metric, config.positive)
        rows = protocol_rows(dataset, config.seed, config.select, metric)
        every = config.baselines == "all"
        probes = [
            *baseline_probes(config.store, dataset, features, config.seed, every),
            *((inputs, head) for inputs in features for head in heads),
        ]
        config = replace(config, select=rows.select)  # for all who do a part of it
        return cls(config, dataset, features, metric, rows, probes)

    def label(self, unit: int) -> str:
        """Return what a probe is called."""
        inputs, head = self.probes[unit]
        words = " · ".join(filter(None, [inputs.text, head.kind]))
        return f"[{unit + 1}/{len(self.probes)}] {words}"

    def identity(self, unit: int) -> str:
        """Return the id of a probe."""
        inputs, head = self.probes[unit]
        _, how = self._rows(inputs)
        digest = self.dataset.digest
        return probe_id(inputs, head, self.config.seed, how, digest, self.metric)

    def run(self, unit: int) -> Probed:
        """Run a probe and store its files."""
        (inputs, head), dataset, config = self.probes[unit], self.dataset, self.config
        rows, _ = self._rows(inputs)
        outcome = run_probe(
            head,
            inputs.all_views(),
            dataset.labels,
            rows,
            budget=config.budget,
            note=ThrottledLog(self.label(unit)),
            metric=self.metric,
        )
        result = probe_result(
            self.identity(unit),
            inputs,
            outcome,
            dataset,
            rows,
            seed=config.seed,
            budget=config.budget,
            metric=self.metric,
        )
        folder = config.runs / dataset.name
        return save_probe(folder, result, outcome, dataset.labels[rows.val])

    def _rows(self, inputs: Inputs) -> tuple[ProtocolRows, str]:
        """Return the rows of a probe, and how its choice is made."""
        rows, how = self.rows, self.rows.how(self.config.budget)
        if inputs.pixels and (fewer := rows.thinned(self.dataset.labels, PIXEL_ROWS)) is not rows:
            rows, how = fewer, f"{how} of {len(fewer.train)} rows"
        return rows, how


@within_memory
def run_probes(config: ClassifyConfig) -> ClassifyResult:
    """Fit, choose, refit and score every head on every set of features.

    A probe that is on the leaderboard with the same inputs is not run again. Each probe is kept
    as soon as it is done, so an interrupted run resumes after it.

    Returns:
        The whole leaderboard, with a paired test of winner and runner-up.

    Raises:
        OnepassError: Something is missing, unknown, stale, damaged or unusable; one line says what.
    """
    start = time.monotonic()
    check_installed(config.log)
    work = Probing.of(config)
    dataset, features, metric, rows = work.dataset, work.features, work.metric, work.rows
    goal = (parse_goal(config.at), positive_column(dataset, config.positive)) if config.at else None
    folder = config.runs / dataset.name
    missing: list[int] = []
    with only_writer(folder):
        board = open_board(
            folder,
            dataset,
            seed=config.seed,
            metric=metric,
            select=rows.select,
            fresh=config.fresh,
        )
        _refuse_older_vectors(board, features)
        chosen_otherwise = replace(board, select="folds" if rows.select == "split" else "split")
        before = next((one for one in (board, chosen_otherwise) if one.ranked), None)
        if before is None and not config.fresh:
            before = previous_board(folder, dataset)
        for number in range(len(work.probes)):
            known = board.get(work.identity(number))
            if known and known.calibration and intact(board.head_folder(known), known):
                log.info(f"{work.label(number)}: cached")
            else:
                missing.append(number)

        def accept(number: int, found: Probed) -> None:
            nonlocal board
            board, _ = keep_line(board, found)
            log.info(f"{work.label(number)}: {found}")

        run_units(work, missing, accept)
        if not missing and Leaderboard.load(folder, dataset.name, dataset.digest) != board:
            board.save()  # what is ranked is another
        if goal:
            point = choose_for_winner(board, dataset, *goal)
            point.write(board.head_folder(board.winner) / OperatingPoint.NAME)
        else:
            carry_point(before, board, dataset)
    log_board(config.log, board, config.runs)
    series = find_parted_series(dataset, features[0].vectors(), rows.train, rows.val)
    reused = len(work.probes) - len(missing)
    seconds = time.monotonic() - start
    return _result(board, dataset, config, series, len(missing), reused, seconds)


def compare_best(board: Leaderboard, labels: np.ndarray) -> Comparison | None:
    """Compare the winner with the runner-up, or with the best baseline where it is alone.

    Args:
        board: With one probe at least.
        labels: Of the validation rows, (n,).
    """
    rival = _rival(board)
    return None if rival is None else compare_probes(board, board.winner, rival, labels)


def compare_by_metric(board: Leaderboard, dataset: ImageDataset) -> Difference | None:
    """Compare the same two by the metric that the board ranks by; None where that is top-1, or has no value on val."""
    rival, rows = _rival(board), dataset.rows("val")
    if board.metric == "top1" or rival is None or board.metric not in board.winner.scores:
        return None
    metric = find_metric(board.metric, find_positive(dataset, board.positive))
    first, second = (_val_probabilities(board, probe) for probe in (board.winner, rival))
    groups = None if dataset.groups is None else [dataset.groups[row] for row in rows]
    return difference(metric, dataset.labels[rows], first, second, groups)


def compare_with_majority(board: Leaderboard, labels: np.ndarray) -> Comparison | None:
    """Compare the winner with the largest class, where the labels (n,) of the validation rows are uneven."""
    majority = [probe for probe in board.baselines if probe.head == "majority"]
    if not majority or not is_uneven(labels):
        return None
    return compare_probes(board, board.winner, majority[0], labels)


def compare_probes(
    board: Leaderboard, first: ProbeResult, second: ProbeResult, labels: np.ndarray
) -> Comparison:
    """Compare two probes of a board on the validation rows, whose labels (n,) are given."""
    right, other = (
        load_probabilities(board.head_folder(probe), probe.rows).val_predicted == labels
        for probe in (first, second)
    )
    return compare(first.id, second.id, right, other)


def _val_probabilities(board: Leaderboard, probe: ProbeResult) -> np.ndarray:
    kept = load_probabilities(board.head_folder(probe), probe.rows).val
    out = scratch(kept.shape, np.float64)
    out[...] = kept
    return out


def _rival(board: Leaderboard) -> ProbeResult | None:
    return next(iter([*board.ranked[1:2], *board.baselines[:1]]), None)


def _refuse_older_vectors(board: Leaderboard, features: list[Inputs]) -> None:
    """Keep numbers of vectors that are no more from standing beside those of today."""
    now = {(inputs.features, inputs.views): inputs.digest for inputs in features}
    for probe in board.results:
        digest = now.get((probe.features, probe.views), probe.features_digest)
        if probe.keys and digest != probe.features_digest:
            raise StaleError(
                f"{board.path}: probe {probe.id} was made from vectors {probe.features_digest[:8]}, but "
                f"{probe.features_text} is now {digest[:8]}",
                remedy=Remedy("classify anew", board.dataset),
            )


def _result(
    board: Leaderboard,
    dataset: ImageDataset,
    config: ClassifyConfig,
    series: PartedSeries | None,
    ran: int,
    reused: int,
    seconds: float,
) -> ClassifyResult:
    costs = extraction_costs(config.store, board)
    return ClassifyResult(
        shared=shared_images(dataset.content, dataset.split),
        correction=last_correction(board, dataset),
        dataset=dataset.name,
        classes=len(dataset.class_ids),
        leaderboard=board.path,
        winner=board.winner.id,
        results=board.ranked,
        baselines=board.baselines,
        point=OperatingPoint.read_optional(board.head_folder(board.winner) / OperatingPoint.NAME),
        comparison=compare_best(board, dataset.labels[dataset.rows("val")]),
        difference=compare_by_metric(board, dataset),
        majority=compare_with_majority(board, dataset.labels[dataset.rows("val")]),
        published=dataset.record.published,
        notes=dataset.record.notes,
        series=series,
        protocol=(DESCRIPTION if board.select == "split" else BY_FOLDS).format(
            seed=config.seed, **asdict(board.winner.rows)
        ),
        scorings=count_scorings(board.folder, dataset.digest),
        other_seeds=board.other_seeds,
        other_rows=board.other_rows,
        other_metrics=board.other_metrics,
        costs=costs,
        front=board_front(board, costs),
        ran=ran,
        reused=reused,
        seconds=round(seconds, 1),
    )
