"""Many heads in one pass: `onepass classify sweep`.

`runs/<data set>/sweeps/<id>.json` holds what became of every head, `onepass.classify.search.sweep_records` says how. The best head
goes on the leaderboard as a probe, chosen on the selection split, refitted and scored once like any
other. The same sweep is not run again. `<id>.npz` is there while a sweep is under way: one that was
interrupted goes on from its last rung or epoch and ends with the same bits.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from onepass.cache.files import write_json
from onepass.cache.locks import exclusive
from onepass.cache.progress import human_seconds
from onepass.cache.provenance import digest_json, made_by
from onepass.classify.config import SweepConfig
from onepass.classify.heads.base import Head, Note, PathPoint
from onepass.classify.heads.neural.batches import steps_of
from onepass.classify.heads.neural.dense import Dense
from onepass.classify.heads.neural.mlp import Mlp
from onepass.classify.heads.neural.successive_halving import Plan
from onepass.classify.heads.neural.sweep_state import Saved
from onepass.classify.heads.neural.trained import Grid, Sweep, TrainedHead
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult, leaderboard_path
from onepass.classify.leaderboard.records import Narrator, intact, keep, probe_id, probe_result
from onepass.classify.protocol.evaluate import ProtocolRows, protocol_rows, run_probe
from onepass.classify.protocol.inputs import Inputs, feature_inputs
from onepass.classify.search.sweep_records import FORMAT, Record, heads_of, read_record
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
        probes: The best head of each, refitted and scored.
        ran: How many sweeps ran now.
    """

    dataset: str
    leaderboard: Path
    paths: tuple[Path, ...]
    sweeps: tuple[Record, ...]
    probes: tuple[ProbeResult, ...]
    ran: int


class SweptHead(Head):
    """Gives `run_probe` a sweep for a path, and remembers what became of every head.

    Args:
        head: Gives the kind, what all heads share, and the order of the rows.
        grid: What differs between them.
        plan: How long they are trained.
        saved: Where an interrupted sweep goes on from.
    """

    def __init__(self, head: TrainedHead, grid: Grid, plan: Plan, saved: Saved) -> None:
        self.head, self.grid, self.plan, self.saved = head, grid, plan, saved
        self.found: Sweep | None = None

    def path(
        self,
        X: np.ndarray,
        y: np.ndarray,
        X_selection: np.ndarray,
        y_selection: np.ndarray,
        *,
        budget: str = "quick",
        note: Note | None = None,
    ) -> list[PathPoint]:
        """Run the sweep, whatever the budget; see `Head.path`."""
        params = self.grid.params()
        self.found = self.head.sweep(
            X, y, X_selection, y_selection, params, self.plan, note, self.saved
        )
        return self.found.points


@dataclass(frozen=True, slots=True)
class Job:
    """One sweep on one set of features.

    Attributes:
        head, grid, plan: See `SweptHead`.
        dataset, inputs, rows: What it looks at.
        seed: Of the protocol.
    """

    head: TrainedHead
    grid: Grid
    plan: Plan
    dataset: ImageDataset
    inputs: Inputs
    rows: ProtocolRows
    seed: int

    @classmethod
    def of(cls, config: SweepConfig, dataset: ImageDataset, inputs: Inputs) -> Self:
        """Return what the flags ask for."""
        kind = KINDS[config.head]
        shared = ("optimizer", "label_smoothing", "mixup", "ema", "batch_size", "seed")
        head = kind(**{name: getattr(config, name) for name in shared})
        head.check_params()
        grid = Grid(config.learning_rate, config.penalties, config.dropout, config.seeds)
        rows = protocol_rows(dataset.labels, dataset.rows, dataset.class_ids, config.seed)
        plan = Plan(config.epochs, config.keep)
        return cls(head, grid, plan, dataset, inputs, rows, config.seed)

    @property
    def budget(self) -> str:
        """What stands for the grid in the probe's line and id."""
        return f"sweep-{digest_json([asdict(self.grid), asdict(self.plan)])[:12]}"

    @property
    def probe(self) -> str:
        """Id of the probe that comes of it, which is also that of the sweep."""
        return probe_id(self.inputs, self.head, self.seed, self.budget, self.dataset.digest)

    def record(self, found: Sweep, seconds: float) -> Record:
        """Return the sweep as JSON; see `Record`."""
        steps = steps_of(len(self.rows.fit), self.head.batch_size)
        rungs = self.plan.rungs(len(found.params), steps)
        fixed = self.head.get_params(deep=False)
        for name in (*found.params[0], "epochs"):
            fixed.pop(name)
        return {
            "format": FORMAT,
            "id": self.probe,
            "dataset": self.dataset.name,
            "dataset_digest": self.dataset.digest,
            "features": list(self.inputs.features),
            "features_digest": self.inputs.digest,
            "head": self.head.kind,
            "fixed": fixed,
            "plan": {"epochs": self.plan.epochs, "keep": self.plan.keep},
            "rungs": [{"heads": heads, "epoch": round(end / steps, 4)} for heads, end in rungs],
            "heads": heads_of(found),
            "probe": self.probe,
            "seed": self.seed,
            "rows": self.rows.counts(),
            "seconds": round(seconds, 3),
            "made_by": made_by(),
        }


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
    jobs = [
        Job.of(config, dataset, inputs)
        for inputs in feature_inputs(config.store, dataset, config.features)
    ]
    folder = config.runs / dataset.name
    paths = tuple(folder / "sweeps" / f"{job.probe}.json" for job in jobs)
    records, ran = [], 0
    with exclusive(leaderboard_path(folder)):
        board = Leaderboard(folder, dataset.name, dataset.digest, seed=config.seed)
        if board.path.exists():
            board = Leaderboard.load(folder, dataset.name, dataset.digest)
            board = replace(board, seed=config.seed)
        for job, path in zip(jobs, paths, strict=True):
            saved = Saved(path.with_suffix(".npz"), job.probe)
            if config.fresh:
                path.unlink(missing_ok=True)
                saved.remove()
            record = _known(board, job, path)
            if record is None:
                board, record = _run(board, job, saved)
                write_json(path, record)
                saved.remove()
                ran += 1
            records.append(record)
    probes = tuple(board.find(job.probe) for job in jobs)
    return SweepsResult(dataset.name, board.path, paths, tuple(records), probes, ran)


def _known(board: Leaderboard, job: Job, path: Path) -> Record | None:
    """Return the record of the same sweep, if its probe is there too."""
    probe = next((result for result in board.results if result.id == job.probe), None)
    if probe is None or not path.exists() or not intact(board.head_folder(probe), probe):
        return None
    record = read_record(path, job.probe)
    if record is not None:
        log.info(f"{' & '.join(job.inputs.features)}: the same sweep was run before")
    return record


def _run(board: Leaderboard, job: Job, saved: Saved) -> tuple[Leaderboard, Record]:
    """Sweep, choose, refit, score; keep the probe."""
    label = " · ".join([*job.inputs.features, f"{len(job.grid.params())} {job.head.kind}"])
    swept = SweptHead(job.head, job.grid, job.plan, saved)
    labels = job.dataset.labels
    outcome = run_probe(swept, job.inputs.all_views(), labels, job.rows, note=Narrator(label))
    result = probe_result(
        job.probe, job.inputs, outcome, job.dataset, job.rows, seed=job.seed, budget=job.budget
    )
    board, result = keep(board, result, outcome, labels[job.rows.val])
    log.info(f"{label}: {outcome.chosen} · {human_seconds(result.seconds)}")
    assert swept.found is not None
    return board, job.record(swept.found, outcome.seconds)
