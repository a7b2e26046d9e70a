"""Many heads in one pass: `onepass classify sweep`.

`runs/<data set>/sweeps/<id>.json` (`SweepRecord`) holds what became of every head. The best head goes
on the leaderboard as a probe, chosen on the selection split or by folds, refitted and scored once like any other.
The same sweep is not run again. `<id>.npz` is there while a sweep is under way: one that was
interrupted resumes from its last rung or epoch and ends with the same bits.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from onepass.cache.errors import OnepassError
from onepass.cache.made_by import MadeBy
from onepass.cache.memory import within_memory
from onepass.cache.progress import human_seconds
from onepass.cache.provenance import digest_json
from onepass.classify.config import SweepConfig
from onepass.classify.heads.neural.batches import steps_of
from onepass.classify.heads.neural.dense import Dense
from onepass.classify.heads.neural.mlp import Mlp
from onepass.classify.heads.neural.trained_head import TrainedHead
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult, only_writer
from onepass.classify.leaderboard.history import open_board
from onepass.classify.leaderboard.records import ThrottledLog, intact, keep, probe_id, probe_result
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
        )


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
    dataset = open_dataset(config.store, config.dataset)
    sweeps = [
        FeatureSweep.of(config, dataset, inputs)
        for inputs in feature_inputs(config.store, dataset, config.features)
    ]
    folder = config.runs / dataset.name
    paths = tuple(folder / "sweeps" / f"{sweep.probe}.json" for sweep in sweeps)
    records, ran = [], 0
    with only_writer(folder):
        board = open_board(
            folder,
            dataset,
            seed=config.seed,
            metric=sweeps[0].metric,
            select=sweeps[0].rows.select,
        )
        for sweep, path in zip(sweeps, paths, strict=True):
            state = StateFile(path.with_suffix(".npz"), sweep.probe)
            if config.fresh:
                path.unlink(missing_ok=True)
                state.remove()
            record = _known(board, sweep, path)
            if record is None:
                board, record = _run(board, sweep, state)
                record.write(path)
                ran += 1
            state.remove()  # also where a kill came between the record and this
            records.append(record)
    probes = tuple(board.find(sweep.probe) for sweep in sweeps)
    return SweepsResult(dataset.name, board.path, paths, tuple(records), probes, ran)


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
        log.info(f"{' & '.join(sweep.inputs.features)}: the same sweep was run before")
    return record


def _run(
    board: Leaderboard, sweep: FeatureSweep, state: StateFile
) -> tuple[Leaderboard, SweepRecord]:
    """Search, choose, refit, score; keep the probe."""
    together = JointTraining(sweep.grid.params(), sweep.schedule, state)
    label = " · ".join([*sweep.inputs.features, f"{len(together.params)} {sweep.head.kind}"])
    labels = sweep.dataset.labels
    outcome = run_probe(
        sweep.head,
        sweep.inputs.all_views(),
        labels,
        sweep.rows,
        together=together,
        note=ThrottledLog(label),
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
    board, result = keep(board, result, outcome, labels[sweep.rows.val])
    log.info(f"{label}: {outcome.chosen} · {human_seconds(result.seconds)}")
    return board, sweep.record(together, outcome.seconds)
