"""What the page is made of, opened once: data set, leaderboard, runs, feature files, other artifacts."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from onepass.cache.artifacts import Artifact
from onepass.cache.commandline.advice import onepass_command
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.features import open_features
from onepass.cache.stores import AnyStore
from onepass.classify.analysis.inspection import Inspection
from onepass.classify.analysis.transferability import Transferability
from onepass.classify.goals import RateGoal
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.classify.leaderboard.pareto import extraction_costs
from onepass.classify.leaderboard.prediction_record import PredictionRecord
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.leaderboard.result import features_text
from onepass.classify.metrics import softmax
from onepass.classify.operating_points import OperatingPoint, choose_for_winner, choose_point
from onepass.classify.protocol.evaluate import find_positive
from onepass.classify.resampling.curve import CurveFile
from onepass.classify.resampling.folds import CrossValidation
from onepass.classify.search.sweep_record import SweepRecord
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.finetune.ablation import ABLATION, Ablation
from onepass.finetune.errors import ERRORS, RunErrors
from onepass.finetune.session.best import beats_winner, best_run
from onepass.finetune.session.result import FinetuneResult
from onepass.finetune.session.runs import (
    Run,
    by_start,
    load_logits,
    logits_path,
    read_run,
    run_folders,
)
from onepass.predict.pictures.held_out import HeldOutAnswers
from onepass.report.feature_files import FeatureFile, feature_files
from onepass.report.names import display_names, feature_words

USUAL = RateGoal("sensitivity", 0.95)


class _OfDataset(Protocol):
    """An artifact that belongs to one state of a data set."""

    @property
    def dataset_digest(self) -> str: ...


A = TypeVar("A", bound=_OfDataset)
F = TypeVar("F", bound=Artifact)


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """What a probe or a fine-tuned run predicts for the validation rows.

    Attributes:
        stage: "frozen" or "fine-tuned".
        name: Its name in full.
        probabilities: (n, K) float32.
        predicted: (n,) predicted class.
        truth: (n,) true class.
    """

    stage: str
    name: str
    probabilities: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each row is right, bool (n,)."""
        return self.predicted == self.truth


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """The finished run that is compared with the winner.

    Attributes:
        run: The run.
        result: What it found.
        errors: Its error analysis; None where that was not made.
    """

    run: Run
    result: FinetuneResult
    errors: RunErrors | None


@dataclass(frozen=True, slots=True)
class ReportContext:
    """The results of a data set, ready to be shown.

    Attributes:
        store: Root of the store.
        dataset: The data set.
        class_names: A short, unique name for each class.
        board: The leaderboard; it has a winner.
        costs: Of the extraction of each probe's features, ms per image, by its id; None where unknown.
        files: The feature files of this state of the data set.
        runs: The fine-tuning runs, in the order they were started.
        compared: The run that is compared with the winner; None where none is finished.
        frozen: The winner on the validation split.
        tuned: The compared run on the validation split.
        tuned_wins: Whether that run, not the winner, is the model to use.
        ensembles: Scored predictions of several models or views, in the order they were made.
        sweeps: Searches over many neural heads.
        transferability, inspection, folds, curve, ablation: What those commands found; None where they were not run.
        notes: What was left out, and why.
        points: Operating points by the model's stage, where one class is to be found and enough rows were held out:
            that of the winner on record, else USUAL; of the compared run for the same goal.
        held_out: What a model says of the held-out pictures; None where none was asked.
        vectors: (N, D) of every image, those that the winner looks at first; None where they are gone.
    """

    store: AnyStore
    dataset: ImageDataset
    class_names: list[str]
    board: Leaderboard
    costs: dict[str, float | None]
    files: list[FeatureFile]
    runs: list[Run]
    compared: ComparedRun | None
    frozen: EvaluatedModel
    tuned: EvaluatedModel | None
    tuned_wins: bool
    ensembles: list[PredictionRecord]
    sweeps: list[SweepRecord]
    transferability: Transferability | None
    inspection: Inspection | None
    folds: CrossValidation | None
    curve: CurveFile | None
    ablation: Ablation | None
    notes: list[str]
    points: dict[str, OperatingPoint] = field(default_factory=dict)
    held_out: HeldOutAnswers | None = None
    vectors: np.ndarray | None = None

    @property
    def point(self) -> OperatingPoint | None:
        """The operating point of the model to use, else of the winner; None where neither has one."""
        return self.points.get(self.chosen.stage) or self.points.get(self.frozen.stage)

    @property
    def positive(self) -> int | None:
        """Column of the class that is to be found; None where no one class is."""
        if self.point:
            return self.dataset.class_ids.index(self.point.positive)
        return find_positive(self.dataset, self.board.positive)

    @property
    def winner(self) -> ProbeResult:
        """The best probe."""
        return self.board.winner

    @property
    def evaluated(self) -> list[EvaluatedModel]:
        """The winner and, where there is one, the compared run."""
        return [self.frozen, *([self.tuned] if self.tuned else [])]

    @property
    def chosen(self) -> EvaluatedModel:
        """The model to use: the compared run where it does better than the winner, else that."""
        return self.tuned if self.tuned and self.tuned_wins else self.frozen

    @property
    def chosen_name(self) -> str:
        """Its name, DATASET/PROBE or DATASET/RUN."""
        run = self.compared.run if self.compared and self.chosen is self.tuned else None
        return f"{self.dataset.name}/{run.name if run else self.winner.id}"

    def images_per_second(self, probe: ProbeResult) -> float:
        """Return how fast the features of a probe are extracted; 0 where it was not measured."""
        cost = self.costs.get(probe.id)
        return 1000 / cost if cost else 0.0


def probe_name(probe: ProbeResult) -> str:
    """Return what a probe is, in a few words."""
    if probe.members:
        return f"{probe.head} of {len(probe.members)} probes"
    if probe.features:
        seen = features_text(tuple(map(feature_words, probe.features)), probe.views)
        return f"{seen} + {probe.head}"
    return {"majority": "majority class", "guess": "random guess"}.get(probe.head, probe.head)


def open_context(store: AnyStore, runs_root: Path, name: str) -> ReportContext:
    """Open the results of a data set. What another state of it left is left out, with a note.

    Raises:
        MissingFileError: It is not prepared, or no probe was made yet.
        StaleError: The leaderboard was made from another state of the data set.
        CorruptFileError: A file that belongs on the page is damaged; the message names it.
    """
    dataset = open_dataset(store, name)
    folder, flags = runs_root / name, ("--dataset", name)
    board = Leaderboard.load(folder, name, dataset.digest)
    files, notes = feature_files(store, dataset)
    runs = _runs(folder / "finetune", dataset, notes)
    compared = _compared_run(runs)

    def current(kind: type[Any], *command: str) -> Any:
        path = folder / kind.NAME
        return _current(path, _read(kind, path, *command), dataset, notes)

    return ReportContext(
        store=store,
        dataset=dataset,
        class_names=display_names(dataset.class_ids, dataset.class_names),
        board=board,
        costs=extraction_costs(store, board),
        files=files,
        runs=runs,
        compared=compared,
        frozen=_evaluate_probe(dataset, board),
        tuned=_evaluate_run(dataset, compared.run) if compared else None,
        tuned_wins=compared is not None and beats_winner(compared.run, board, dataset),
        ensembles=_ensembles(folder, dataset, notes),
        sweeps=_sweeps(folder / "sweeps", dataset, notes),
        transferability=current(Transferability, "classify", "transfer", *flags),
        inspection=current(Inspection, "classify", "inspect", *flags),
        folds=current(CrossValidation, "classify", "--folds", "5", *flags),
        curve=current(CurveFile, "classify", "curve", *flags),
        ablation=_read(Ablation, folder / "finetune" / ABLATION, "finetune", "ablate", *flags),
        notes=notes,
        points=_operating_points(dataset, board, compared),
        held_out=current(HeldOutAnswers, "predict", name),
        vectors=_vectors(store, dataset, board),
    )


def _operating_points(
    dataset: ImageDataset, board: Leaderboard, compared: ComparedRun | None
) -> dict[str, OperatingPoint]:
    """Return the operating points by stage; without one where too few rows were held out to promise it."""
    kept = OperatingPoint.read_optional(board.head_folder(board.winner) / OperatingPoint.NAME)
    column = find_positive(dataset, board.positive)
    if kept:
        column = dataset.class_ids.index(kept.positive)
    if column is None:
        return {}
    points = {"frozen": kept} if kept else {}
    with suppress(InvalidInputError):
        if not kept:
            points["frozen"] = choose_for_winner(board, dataset, USUAL, column)
    with suppress(InvalidInputError, MissingFileError):  # a run of --no-select held no rows out
        if compared:
            folder, goal = compared.run.folder, kept.goal if kept else USUAL
            size = len(dataset.class_ids), len(dataset.labels)
            logits, rows = load_logits(logits_path(folder, "selection"), *size)
            val, _ = load_logits(logits_path(folder, "val"), *size)
            points["fine-tuned"] = choose_point(
                goal, column, dataset, rows, softmax(logits), softmax(val)
            )
    return points


def _vectors(store: AnyStore, dataset: ImageDataset, board: Leaderboard) -> np.ndarray | None:
    """Return the first features that the winner, or a member of it, looks at; None where they are gone."""
    lines = [board.winner, *(board.find(member) for member in board.winner.members)]
    keys = [key for line in lines for key in line.keys if not key.view]
    path = keys[0].find(store, dataset.name) if keys else None
    if path is None:
        return None
    found = open_features(path).X
    return found if len(found) == len(dataset.labels) else None


def _read(kind: type[F], path: Path, *command: str) -> F | None:
    """Read an artifact; None where there is none.

    Args:
        kind: Its class.
        path: Of the file.
        command: What makes it, without `onepass`.
    """
    try:
        return kind.read_optional(path)
    except CorruptFileError as error:
        raise CorruptFileError(
            f"{error}. Delete the file, then make it again with: {onepass_command(*command)}"
        ) from error


def _current(path: Path, found: A | None, dataset: ImageDataset, notes: list[str]) -> A | None:
    """Return an artifact; None, with a note, where it was made from another state of the data set."""
    if found is not None and found.dataset_digest != dataset.digest:
        notes.append(f"{path}: made from another state of the data set.")
        return None
    return found


def _runs(place: Path, dataset: ImageDataset, notes: list[str]) -> list[Run]:
    """Return the runs of this state of the data set in the order they were started."""
    found = [_open_run(folder) for folder in run_folders(place)]
    runs = [run for run in found if _current(run.folder, run.identity, dataset, notes)]
    return by_start(runs)


def _open_run(folder: Path) -> Run:
    try:
        return read_run(folder)
    except CorruptFileError as error:
        raise CorruptFileError(
            f"{error}. Move {folder} elsewhere to leave this run out, and train it again"
        ) from error


def _compared_run(runs: list[Run]) -> ComparedRun | None:
    """Return the run to compare with the winner."""
    run = best_run(runs)
    if run is None or run.result is None:
        return None
    errors = _read(RunErrors, run.folder / ERRORS, "finetune", "errors", "--run", run.result.run)
    return ComparedRun(run, run.result, errors)


def _sweeps(place: Path, dataset: ImageDataset, notes: list[str]) -> list[SweepRecord]:
    command = ("classify", "sweep", "--dataset", dataset.name)
    found = [
        _current(path, _read(SweepRecord, path, *command), dataset, notes)
        for path in sorted(place.glob("*.json"))
    ]
    return [sweep for sweep in found if sweep]


def _ensembles(folder: Path, dataset: ImageDataset, notes: list[str]) -> list[PredictionRecord]:
    """Return the scored predictions of several models or views."""
    paths = [*folder.glob("predictions/*.json"), *folder.glob("finetune/*/val*.json")]
    found = [
        _current(path, _read(PredictionRecord, path, "predict", dataset.name), dataset, notes)
        for path in sorted(paths)
    ]
    several = [
        record
        for record in found
        if record
        and record.val_top1 is not None
        and (len(record.members) > 1 or any(record.members[0].views))
    ]
    return sorted(several, key=lambda record: record.made_by.created)


def _evaluate_probe(dataset: ImageDataset, board: Leaderboard) -> EvaluatedModel:
    probe = board.winner
    found = load_probabilities(board.head_folder(probe), probe.rows)
    truth = dataset.labels[dataset.rows("val")]
    return EvaluatedModel(
        "frozen", probe_name(probe), found.val.astype(np.float32), found.val_predicted, truth
    )


def _evaluate_run(dataset: ImageDataset, run: Run) -> EvaluatedModel:
    path = logits_path(run.folder, "val")
    logits, rows = load_logits(path, len(dataset.class_ids), len(dataset.labels))
    if not np.array_equal(rows, dataset.rows("val")):
        raise CorruptFileError(
            f"{path}: expected the logits of the validation rows, received those of other rows; "
            "delete the run's folder and train it again"
        )
    probabilities = softmax(logits)
    predicted = probabilities.argmax(axis=1)
    return EvaluatedModel("fine-tuned", run.name, probabilities, predicted, dataset.labels[rows])
