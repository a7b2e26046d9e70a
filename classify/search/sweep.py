"""Many heads in one pass: `onepass classify sweep`.

`runs/<data set>/sweeps/<id>.json` (`SweepRecord`) holds what became of every head. The best head goes
on the leaderboard as a probe, chosen on the selection split or by folds, refitted and scored once like any other.
The same sweep is not run again. `<id>.npz` is there while a sweep is under way: one that was
interrupted resumes from its last rung or epoch and ends with the same bits.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from onepass.cache.artifacts import record
from onepass.cache.errors import OnepassError
from onepass.cache.made_by import MadeBy
from onepass.cache.memory import within_memory
from onepass.cache.provenance import digest_json
from onepass.classify.cluster.work import run_units
from onepass.classify.config import SweepConfig
from onepass.classify.heads.neural.batches import steps_of
from onepass.classify.heads.neural.dense import Dense
from onepass.classify.heads.neural.mlp import Mlp
from onepass.classify.heads.neural.trained_head import TrainedHead
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult, only_writer
from onepass.classify.leaderboard.history import open_board
from onepass.classify.leaderboard.records import (
    Probed,
    ThrottledLog,
    intact,
    keep_line,
    probe_id,
    probe_result,
    save_probe,
)
from onepass.classify.metrics import Metric
from onepass.classify.protocol.evaluate import ProtocolRows, metric_of, protocol_rows, run_probe
from onepass.classify.protocol.inputs import Inputs, feature_inputs
from onepass.classify.search.neural import Grid, JointTraining
from onepass.classify.search.successive_halving import Schedule
from onepass.classify.search.sweep_record import Rung, SweepRecord, TrainingPlan, heads_of_sweep
from onepass.classify.search.sweep_state import StateFile
from onepass.data.dataset import ImageDataset, open_dataset

log = logging.getLogger(__name__)

KINDS: dict[str, type[TrainedHead]] = {"dense": Dense, "mlp": Mlp}


@dataclass(frozen=True, slots=True)
class SweepsResult:
    """What a command's sweeps found.

    Attributes:
        dataset: Name of the data set.
        leaderboard: Path of the leaderboard that the best heads stand on.
        paths: The records, one for each set of features.
        sweeps: Their content.
        probes: The best head of each sweep, refitted and scored.
        ran: How many of the sweeps were not cached.
    """

    dataset: str
    leaderboard: Path
    paths: tuple[Path, ...]
    sweeps: tuple[SweepRecord, ...]
    probes: tuple[ProbeResult, ...]
    ran: int


@dataclass(frozen=True, slots=True)
class FeatureSweep:
    """One sweep on one set of features.

    Attributes:
        head: Gives the kind, what all heads share, and the order of the rows.
        grid: What differs between them.
        schedule: How long they are trained.
        dataset, inputs, rows: What the heads are trained and scored on.
        seed: Of the protocol.
        metric: What is chosen by.
    """

    head: TrainedHead
    grid: Grid
    schedule: Schedule
    dataset: ImageDataset
    inputs: Inputs
    rows: ProtocolRows
    seed: int
    metric: Metric

    @classmethod
    def of(cls, config: SweepConfig, dataset: ImageDataset, inputs: Inputs) -> Self:
        """Return the sweep that the flags ask for, on one set of features."""
        kind = KINDS[config.head]
        shared = ("optimizer", "label_smoothing", "mixup", "ema", "batch_size", "seed")
        head = kind(**{name: getattr(config, name) for name in shared})
        head.set_params(class_weight=None if config.class_weight == "none" else config.class_weight)
        head.check_params()
        grid = Grid(config.learning_rate, config.penalties, config.dropout, config.seeds)
        metric = metric_of(dataset, config.metric, config.positive)
        rows = protocol_rows(dataset, config.seed, config.select, metric)
        schedule = Schedule(config.epochs, config.keep)
        return cls(head, grid, schedule, dataset, inputs, rows, config.seed, metric)

    @property
    def label(self) -> str:
        """What it is called."""
        return " · ".join([self.inputs.text, f"{len(self.grid.params())} {self.head.kind}"])

    @property
    def budget(self) -> str:
        """Digest of grid and schedule: the probe's budget on the leaderboard."""
        return f"sweep-{digest_json([asdict(self.grid), asdict(self.schedule)])[:12]}"

    @property
    def probe(self) -> str:
        """Id of the resulting probe, which is also that of the sweep."""
        return probe_id(
            self.inputs,
            self.head,
            self.seed,
            self.rows.how(self.budget),
            self.dataset.digest,
            self.metric,
        )

    def record(self, found: JointTraining, seconds: float) -> SweepRecord:
        """Return what the sweep found, to be stored."""
        fewest = min(len(fit) for fit, _ in self.rows.parts())
        steps = steps_of(fewest, self.head.batch_size)
        rungs = self.schedule.rungs(len(found.params), steps)
        searched = {*found.params[0], "epochs"}
        fixed = self.head.get_params(deep=False)
        return SweepRecord(
            id=self.probe,
            dataset=self.dataset.name,
            dataset_digest=self.dataset.digest,
            features=self.inputs.features,
            features_digest=self.inputs.digest,
            head=self.head.kind,
            fixed={name: value for name, value in fixed.items() if name not in searched},
            plan=TrainingPlan(self.schedule.epochs, self.schedule.keep),
            rungs=tuple(Rung(heads, round(end / steps, 4)) for heads, end in rungs),
            heads=heads_of_sweep(found.params, found.curves),
            probe=self.probe,
            seed=self.seed,
            rows=self.rows.counts(),
            seconds=round(seconds, 3),
            made_by=MadeBy.now(),
            views=self.inputs.views,
        )


@record
class Swept:
    """What a sweep found, whose best head's files are stored."""

    probed: Probed
    record: SweepRecord


@dataclass(frozen=True, slots=True)
class Sweeping:
    """What the flags ask for; a unit is the number of a set of features.

    Attributes:
        config: The flags.
        dataset, features: What is read.
        sweeps: One for each set.
    """

    NAME: ClassVar[str] = "sweeps"
    FOUND: ClassVar[type] = Swept

    config: SweepConfig
    dataset: ImageDataset
    features: list[Inputs]
    sweeps: list[FeatureSweep]

    @classmethod
    def of(cls, config: SweepConfig) -> Self:
        """Open what the flags name; see `run_sweeps`."""
        dataset = open_dataset(config.store, config.dataset)
        features = feature_inputs(config.store, dataset, config.features, config.views)
        sweeps = [FeatureSweep.of(config, dataset, inputs) for inputs in features]
        config = replace(config, select=sweeps[0].rows.select)  # for all who do a part of it
        return cls(config, dataset, features, sweeps)

    @property
    def folder(self) -> Path:
        """Where the results of the data set lie."""
        return self.config.runs / self.dataset.name

    def label(self, unit: int) -> str:
        """Return what a sweep is called."""
        return self.sweeps[unit].label

    def state(self, unit: int) -> StateFile:
        """Return the file from which a sweep resumes."""
        probe = self.sweeps[unit].probe
        return StateFile(self.folder / "sweeps" / f"{probe}.npz", probe)

    def run(self, unit: int) -> Swept:
        """Search, choose, refit, score; store the files of the best head."""
        sweep = self.sweeps[unit]
        together = JointTraining(sweep.grid.params(), sweep.schedule, self.state(unit))
        labels = sweep.dataset.labels
        outcome = run_probe(
            sweep.head,
            sweep.inputs.all_views(),
            labels,
            sweep.rows,
            together=together,
            note=ThrottledLog(sweep.label),
            metric=sweep.metric,
        )
        result = probe_result(
            sweep.probe,
            sweep.inputs,
            outcome,
            sweep.dataset,
            sweep.rows,
            seed=sweep.seed,
            budget=sweep.budget,
            metric=sweep.metric,
        )
        probed = save_probe(self.folder, result, outcome, labels[sweep.rows.val])
        return Swept(probed, sweep.record(together, outcome.seconds))


@within_memory
def run_sweeps(config: SweepConfig) -> SweepsResult:
    """Sweep the grid on every set of features, and put the best head of each on the leaderboard.

    Args:
        config: Data set, features, grid, training, folders.

    Returns:
        What became of every head, and the probes that came of it.

    Raises:
        OnepassError: Something is missing, unknown, stale, damaged or unusable; one line says what.
    """
    work = Sweeping.of(config)
    dataset, sweeps, folder = work.dataset, work.sweeps, work.folder
    paths = tuple(folder / "sweeps" / f"{sweep.probe}.json" for sweep in sweeps)
    with only_writer(folder):
        board = open_board(
            folder,
            dataset,
            seed=config.seed,
            metric=sweeps[0].metric,
            select=sweeps[0].rows.select,
        )
        if config.fresh:
            for unit, path in enumerate(paths):
                path.unlink(missing_ok=True)
                work.state(unit).remove()
        records = {
            unit: record
            for unit, path in enumerate(paths)
            if (record := _known(board, sweeps[unit], path)) is not None
        }

        def accept(unit: int, found: Swept) -> None:
            nonlocal board
            board, _ = keep_line(board, found.probed)
            log.info(f"{work.label(unit)}: {found.probed}")
            found.record.write(paths[unit])
            work.state(unit).remove()
            records[unit] = found.record

        for unit in records:
            work.state(unit).remove()  # a kill may have come between the record and this
        missing = [unit for unit in range(len(sweeps)) if unit not in records]
        run_units(work, missing, accept)
    probes = tuple(board.find(sweep.probe) for sweep in sweeps)
    found = tuple(records[unit] for unit in range(len(sweeps)))
    return SweepsResult(dataset.name, board.path, paths, found, probes, len(missing))


def _known(board: Leaderboard, sweep: FeatureSweep, path: Path) -> SweepRecord | None:
    """Return the record of the same sweep, if its probe is there too."""
    probe = next((result for result in board.results if result.id == sweep.probe), None)
    if probe is None or not intact(board.head_folder(probe), probe):
        return None
    try:
        record = SweepRecord.read_optional(path)
    except OnepassError as error:
        log.info(f"{error}; it is run again")
        return None
    if record:
        log.info(f"{sweep.inputs.text}: the same sweep was run before")
    return record
