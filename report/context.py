"""All that a page is made of, opened once: data set, leaderboard, runs, feature files, references."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.errors import OnepassError
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.classify.leaderboard.pareto import extraction_costs
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.references import report_numbers
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.report.artifacts import FeatureFile, FinetuneRun, feature_files, finetune_runs
from onepass.report.names import display_names
from onepass.report.optional import Record, read_ensembles, read_optional

OPTIONAL = (
    "transferability",
    "inspection",
    "tables",
    "finetune/ablation",
)  # files under runs/<data set>


@dataclass(frozen=True, slots=True)
class Judged:
    """What a probe or a fine-tuned run says of the reported rows.

    Attributes:
        stage: "frozen" or "fine-tuned".
        name: Its name in full.
        probabilities: (n, K) float32.
        predicted: (n,) most probable class.
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
class Material:
    """What the stages left, ready to be shown.

    Attributes:
        dataset: The data set.
        class_names: Class k's name, short enough to be read, and its own.
        board: The leaderboard; it has a winner.
        costs: Of the extraction of each probe's features, ms an image, by its id; None where unknown.
        files: The feature files of this state of the data set.
        runs: The runs of fine-tuning, in the order they were begun.
        run: The run that is compared with the winner; None where none is finished.
        judged: The winner and that run, where their probabilities can be read.
        reference: Results of the report that is followed: title, source, lines; may be empty.
        ensembles: Scored predictions of several runs or views, in the order they were made.
        records: What other commands left, by the names in OPTIONAL; only what is there.
        notes: What was left out, and why.
    """

    dataset: ImageDataset
    class_names: list[str]
    board: Leaderboard
    costs: dict[str, float | None]
    files: list[FeatureFile]
    runs: list[FinetuneRun]
    run: FinetuneRun | None
    judged: list[Judged]
    reference: Mapping[str, Any]
    ensembles: list[Record]
    records: dict[str, Record]
    notes: list[str]

    @property
    def winner(self) -> ProbeResult:
        """The best probe."""
        return self.board.winner

    def images_per_second(self, probe: ProbeResult) -> float:
        """Return how fast the features of a probe are made; 0 where it was not measured."""
        cost = self.costs.get(probe.id)
        return 1000 / cost if cost else 0.0


def probe_name(probe: ProbeResult) -> str:
    """Return what a probe is, in a few words."""
    if probe.members:
        return f"{probe.head} of {len(probe.members)} probes"
    if probe.baseline and probe.head == "majority":
        return "always the largest class"
    return f"{probe.features_text} + {probe.head}"


def gather(store: Path, runs_root: Path, name: str) -> Material:
    """Open what there is of a data set.

    Raises:
        MissingFileError: It is not prepared, or no probe was made yet.
        StaleError: The leaderboard was made from another state of the data set.
    """
    dataset = open_dataset(store, name)
    board = Leaderboard.load(runs_root / name, name, dataset.digest)
    winner = board.winner
    files, notes = feature_files(store, dataset)
    runs, more = finetune_runs(runs_root / name / "finetune", dataset)
    notes += more
    run = compared_run(runs)
    judged = []
    for source in (winner, run):
        try:
            judged += [_judge(dataset, board, source)] if source else []
        except OnepassError as error:
            notes.append(str(error))
    folder = runs_root / name
    records = {file: read_optional(folder / f"{file}.json", dataset.digest, notes) for file in OPTIONAL}  # fmt: skip
    reference = report_numbers(str(dataset.record.get("kind", "")))
    return Material(
        dataset=dataset,
        class_names=display_names(dataset.class_ids, dataset.class_names),
        board=board,
        costs=extraction_costs(store, board),
        files=files,
        runs=runs,
        run=run,
        judged=judged,
        reference=reference if reference["lines"] else {},
        ensembles=read_ensembles(folder, dataset.digest, notes),
        records={file: record for file, record in records.items() if record},
        notes=notes,
    )


def compared_run(runs: list[FinetuneRun]) -> FinetuneRun | None:
    """Return the run to compare with the winner: best on the selection split, else begun last.

    Nothing is chosen on the reported split: a run without a selection score is taken for its date.
    """
    finished = [run for run in runs if run.finished]
    if not finished:
        return None
    by_date = {run.name: place for place, run in enumerate(finished)}
    return max(finished, key=lambda r: (r.result.get("selection_top1") or -1.0, by_date[r.name]))


def _judge(dataset: ImageDataset, board: Leaderboard, source: ProbeResult | FinetuneRun) -> Judged:
    truth = dataset.labels[dataset.rows("val")]
    if isinstance(source, FinetuneRun):
        given = source.val_probabilities(dataset)
        return Judged("fine-tuned", source.name, given, given.argmax(axis=1), truth)
    found = load_probabilities(board.head_folder(source), source.rows)
    return Judged(
        "frozen", probe_name(source), found.val.astype(np.float32), found.val_predicted, truth
    )
