"""Error analysis of a finished run: `errors.json` and a contact sheet, `mistakes.png`, in its folder."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import OnepassError
from onepass.cache.locks import exclusive
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import (
    accuracy,
    class_accuracy,
    compare,
    confidence_interval,
    confident_mistakes,
    confused_pairs,
    confusion_matrix,
    softmax,
    worst_classes,
)
from onepass.data.contact_sheet import INK, RIGHT, WRONG, Cell, contact_sheet
from onepass.data.dataset import ImageDataset
from onepass.finetune.config import ErrorsConfig
from onepass.finetune.session.runs import FinishedRun, open_run

log = logging.getLogger(__name__)

SAMPLE = 1000  # random validation images that De (2020) looked at
LISTED = 10
SHEET, ERRORS = "mistakes.png", "errors.json"


@record
class ClassErrors:
    """How one class fares.

    Attributes:
        class_id, class_name: Which.
        rows: Its images.
        accuracy: Share of them that is right, 0 … 1.
    """

    class_id: str
    class_name: str
    rows: int
    accuracy: float


@record
class ConfusedPair:
    """How often images of one class were predicted as another.

    Attributes:
        true_id, true_name: The images' own class.
        predicted_id, predicted_name: The class they were mistaken for.
        count: How many images.
    """

    true_id: str
    true_name: str
    predicted_id: str
    predicted_name: str
    count: int


@record
class Mistake:
    """One image that was mistaken for another class.

    Attributes:
        row: Of the data set.
        file: Its name there.
        true_id, true_name: Its class.
        predicted_id, predicted_name: The class it was mistaken for.
        confidence: Probability of that class, 0 … 1.
        true_probability: Probability of its own class, 0 … 1.
    """

    row: int
    file: str
    true_id: str
    true_name: str
    predicted_id: str
    predicted_name: str
    confidence: float
    true_probability: float


@record
class SampleErrors:
    """The errors among as many random images as De (2020) looked at.

    Attributes:
        seed: Of the sample.
        interval: 95 % interval of the accuracy.
        rows: Images.
        wrong: How many of them are wrong.
        top1: Accuracy, 0 … 1.
        worst_classes: Worst first.
        confused_pairs: Most often confused first.
    """

    seed: int
    interval: tuple[float, float]
    rows: int
    wrong: int
    top1: float
    worst_classes: tuple[ClassErrors, ...]
    confused_pairs: tuple[ConfusedPair, ...]


@record
class ClassChange:
    """What fine-tuning changed for one class; shares are None where it has no images or no probe is left.

    Attributes:
        class_id, class_name: Which.
        rows: Its images.
        accuracy: Share that the run has right, 0 … 1.
        probe_accuracy: Share that the frozen probe has right.
        difference: The former less the latter.
    """

    class_id: str
    class_name: str
    rows: int
    accuracy: float | None
    probe_accuracy: float | None
    difference: float | None


@record
class AgainstProbe:
    """A run beside the frozen probe that it started from.

    Attributes:
        id: Of the probe.
        top1: Its accuracy, 0 … 1.
        gained: Rows that only the run has right.
        lost: Rows that only the probe has right.
        p_value: McNemar's test.
        helped: Classes that gained most, first.
        harmed: Classes that lost most, first.
    """

    id: str
    top1: float
    gained: int
    lost: int
    p_value: float
    helped: tuple[ClassChange, ...]
    harmed: tuple[ClassChange, ...]


@record
class EpochGap:
    """How far training accuracy ran ahead in one epoch.

    Attributes:
        epoch: From 1.
        train: Accuracy on the training images as they were seen, 0 … 1.
        selection: Accuracy on the selection split; None where nothing was held out.
        gap: The former less the latter; None as well.
    """

    epoch: int
    train: float
    selection: float | None
    gap: float | None


@record
class RunErrors(Artifact):
    """`errors.json`: what a finished run gets wrong on the validation split.

    Attributes:
        run: DATASET/RUN.
        split: "val".
        rows: Images.
        wrong: How many of them are wrong.
        top1: Accuracy, 0 … 1.
        worst_classes: Worst first.
        confused_pairs: Most often confused first.
        sample: The same of a random sample.
        mistakes: The most confident ones, first.
        probe: Against the frozen probe it started from; None where that is gone.
        classes: Every class, in the order of the labels.
        epochs: Every epoch.
        final_gap: Training accuracy of the last epoch less `top1`; None without an epoch.
        contact_sheet: File name of the picture; None where nothing is wrong.
    """

    SAME_SINCE: ClassVar[int] = 0

    run: str
    split: str
    rows: int
    wrong: int
    top1: float
    worst_classes: tuple[ClassErrors, ...]
    confused_pairs: tuple[ConfusedPair, ...]
    sample: SampleErrors
    mistakes: tuple[Mistake, ...]
    probe: AgainstProbe | None
    classes: tuple[ClassChange, ...]
    epochs: tuple[EpochGap, ...]
    final_gap: float | None
    contact_sheet: str | None


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Where the analysis lies, and what it says.

    Attributes:
        path: Of `errors.json`.
        sheet: Of the contact sheet; None where nothing is wrong.
        found: What the file holds.
    """

    path: Path
    sheet: Path | None
    found: RunErrors


def analyse_errors(config: ErrorsConfig) -> ErrorReport:
    """Look at what a finished run gets wrong on the validation split.

    Raises:
        MissingFileError: There is no such run.
        CorruptFileError: Its logits are damaged.
        LockedError: Another process writes into its folder.
    """
    run = open_run(config.store, config.runs, config.run)
    with exclusive(run.folder):
        return analyse_run(run, config.runs, seed=config.seed, pictures=config.pictures)


def analyse_run(run: FinishedRun, runs: Path, *, seed: int = 0, pictures: int = 24) -> ErrorReport:
    """Write `errors.json` and the contact sheet of a run; nothing is computed by a network.

    Args:
        run: Finished; its `val_logits.npz` is what is looked at.
        runs: Root of the results, where its probe lies.
        seed: Of the random sample.
        pictures: Mistakes on the contact sheet.
    """
    logits, rows = run.logits("val")
    dataset, truth = run.dataset, run.dataset.labels[rows]
    probabilities = softmax(logits)
    predicted = probabilities.argmax(axis=1)
    sure = confident_mistakes(truth, predicted, probabilities, pictures)
    mistakes = [_mistake(dataset, probabilities[i], int(rows[i])) for i in sure]
    frozen = _probe_predictions(run, runs)
    found = RunErrors(
        run=run.name, split="val", **_counted(dataset, truth, predicted),
        sample=_sample(dataset, truth, predicted, seed), mistakes=tuple(mistakes),
        probe=None if frozen is None else _against(run, truth, predicted, frozen),
        classes=_by_class(dataset, truth, predicted, frozen), **_gaps(run, accuracy(truth, predicted)),
        contact_sheet=SHEET if mistakes else None,
    )  # fmt: skip
    sheet = run.folder / SHEET if mistakes else None
    if sheet:
        contact_sheet(sheet, [_cell(dataset.pixels[m.row], m) for m in mistakes])
    found.write(run.folder / ERRORS)
    return ErrorReport(run.folder / ERRORS, sheet, found)


def _cell(pixels: np.ndarray, mistake: "Mistake") -> Cell:
    wrong = f"{100 * mistake.confidence:.0f} % {mistake.predicted_name}"
    return Cell(pixels, ((mistake.true_name, RIGHT), (wrong, WRONG), (mistake.file, INK)))


def _counted(dataset: ImageDataset, truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return counts, worst classes and most-confused pairs of some rows."""
    confusion = confusion_matrix(truth, predicted, len(dataset.class_ids))
    share, total = class_accuracy(confusion), confusion.sum(axis=1)
    wrong = int(np.sum(truth != predicted))
    return {
        "rows": len(truth), "wrong": wrong, "top1": 1 - wrong / len(truth),
        "worst_classes": tuple(
            ClassErrors(**_named(dataset, k), rows=int(total[k]), accuracy=float(share[k]))
            for k in worst_classes(confusion, LISTED)
        ),
        "confused_pairs": tuple(
            ConfusedPair(**_named(dataset, i, "true"), **_named(dataset, j, "predicted"), count=count)
            for i, j, count in confused_pairs(confusion, LISTED)
        ),
    }  # fmt: skip


def _sample(
    dataset: ImageDataset, truth: np.ndarray, predicted: np.ndarray, seed: int
) -> SampleErrors:
    """Return the same of random rows, as De (2020) looked at."""
    count = min(SAMPLE, len(truth))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(truth))[:count])
    interval = confidence_interval(truth[chosen] == predicted[chosen], seed)
    return SampleErrors(seed, interval, **_counted(dataset, truth[chosen], predicted[chosen]))


def _named(dataset: ImageDataset, k: int, prefix: str = "class") -> dict[str, str]:
    return {f"{prefix}_id": dataset.class_ids[k], f"{prefix}_name": dataset.class_names[k]}


def _mistake(dataset: ImageDataset, probabilities: np.ndarray, row: int) -> Mistake:
    true, predicted = int(dataset.labels[row]), int(probabilities.argmax())
    return Mistake(
        row=row, file=dataset.names[row],
        **_named(dataset, true, "true"), **_named(dataset, predicted, "predicted"),
        confidence=float(probabilities[predicted]), true_probability=float(probabilities[true]),
    )  # fmt: skip


def _probe_predictions(run: FinishedRun, runs: Path) -> np.ndarray | None:
    """Return the classes that the frozen probe gave to the validation rows; None where it is gone."""
    name = run.dataset.name
    try:
        board = Leaderboard.load(runs / name, name, run.dataset.digest)
        probe = board.find(run.identity.probe)
        return load_probabilities(board.head_folder(probe), probe.rows).val_predicted
    except (OnepassError, KeyError) as error:
        log.info(f"{run.name}: not compared with a frozen probe ({error})")
        return None


def _against(
    run: FinishedRun, truth: np.ndarray, predicted: np.ndarray, frozen: np.ndarray
) -> AgainstProbe:
    """Return what fine-tuning bought and what it broke."""
    test = compare("fine-tuned", "probe", predicted == truth, frozen == truth)
    changes = [(c.difference or 0.0, c) for c in _by_class(run.dataset, truth, predicted, frozen)]
    changes.sort(key=lambda change: change[0])
    return AgainstProbe(
        id=run.identity.probe, top1=accuracy(truth, frozen), gained=test.only_first,
        lost=test.only_second, p_value=test.p_value,
        helped=tuple([c for difference, c in changes[::-1] if difference > 0][:LISTED]),
        harmed=tuple([c for difference, c in changes if difference < 0][:LISTED]),
    )  # fmt: skip


def _by_class(
    dataset: ImageDataset, truth: np.ndarray, predicted: np.ndarray, frozen: np.ndarray | None
) -> tuple[ClassChange, ...]:
    """Return accuracy by class, of the run and of the frozen probe, in the order of the labels."""
    count = len(dataset.class_ids)
    rows = np.bincount(truth, minlength=count)
    ours = class_accuracy(confusion_matrix(truth, predicted, count))
    theirs = None if frozen is None else class_accuracy(confusion_matrix(truth, frozen, count))
    changes = []
    for k in range(count):
        accuracy = float(ours[k]) if rows[k] else None
        before = float(theirs[k]) if rows[k] and theirs is not None else None
        both = accuracy is not None and before is not None
        difference = float(ours[k] - theirs[k]) if both else None  # type: ignore[index]
        named = _named(dataset, k)
        changes.append(ClassChange(**named, rows=int(rows[k]), accuracy=accuracy,
                                   probe_accuracy=before, difference=difference))  # fmt: skip
    return tuple(changes)


def _gaps(run: FinishedRun, top1: float) -> dict[str, Any]:
    """Return how far training accuracy ran ahead of that of rows not trained on, epoch by epoch."""
    history = run.result.history
    gaps = [
        EpochGap(row.epoch, row.accuracy, held, None if held is None else row.accuracy - held)
        for row in history
        for held in (row.selection_accuracy,)
    ]
    return {"epochs": tuple(gaps), "final_gap": gaps[-1].train - top1 if gaps else None}
