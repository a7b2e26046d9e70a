"""Which model a data set stands for: the best of its fine-tuned runs, or the winner of its leaderboard.

Nothing here needs Keras, so that naming a model costs no start-up.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onepass.cache.errors import MissingFileError
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import softmax
from onepass.classify.protocol.evaluate import metric_of, selected_on
from onepass.data.dataset import ImageDataset
from onepass.finetune.session.runs import Run, by_start, finished_runs, load_logits, logits_path


def best_run(runs: Sequence[Run]) -> Run | None:
    """Return the scored run that did best on the selection split, else the one that comes last; None where none is scored.

    Nothing is chosen on the validation split: runs without a selection score are taken by their order. One that kept the
    network of the run before it gives way to that one.

    Args:
        runs: Of one state of a data set, in the order they were started.
    """
    scored = [
        (run.result.selection_top1 or -1.0, not run.result.kept_another, place)
        for place, run in enumerate(runs)
        if run.result is not None and run.result.val_top1 is not None
    ]
    return runs[max(scored)[-1]] if scored else None


def run_to_use(place: Path, dataset: ImageDataset, board: Leaderboard | None) -> Run | None:
    """Return the run that a data set stands for; None where its leaderboard's winner does as well, or no run is finished.

    Args:
        place: `runs/<data set>/finetune`.
        dataset: The data set; a run of another state of it does not count.
        board: Its leaderboard; None where there is none.

    Raises:
        CorruptFileError: A file of one of the runs, or of the winner, is not what is written there.
    """
    current = [run for run in finished_runs(place) if run.identity.dataset_digest == dataset.digest]
    best = best_run(by_start(current))
    return best if best and beats_winner(best, board, dataset) else None


def beats_winner(run: Run, board: Leaderboard | None, dataset: ImageDataset) -> bool:
    """Return whether a scored run, rather than the winner of the leaderboard, is the model to use.

    It is where it does better by the leaderboard's metric on the training images that neither of the two had seen; of
    equal ones the probe is to be used, which costs less. A run that kept the weights of its probe does not beat it.

    One that held nothing out leaves nothing to choose on but the validation split, where it must be no worse.

    Args:
        run: It started from any probe, not only from the winner.
        board: Of the same state of the data set; None: there is no winner to beat.
        dataset: Gives the labels.

    Raises:
        CorruptFileError: The run's logits or the winner's probabilities cannot be read.
    """
    result = run.result
    assert result is not None and result.val_top1 is not None
    if result.kept_start and not result.kept_another:
        return False
    if board is None or not board.ranked:
        return True
    winner, classes = board.winner, len(dataset.class_ids)
    try:
        path = logits_path(run.folder, "selection")
        logits, rows = load_logits(path, classes, len(dataset.labels))
    except MissingFileError:
        return result.val_top1 >= winner.val_top1
    shared, ours, theirs = np.intersect1d(rows, selected_on(dataset, winner), return_indices=True)
    if not len(shared):  # held out with different seeds
        return (result.selection_top1 or 0.0) > winner.selection_top1
    kept = load_probabilities(board.head_folder(winner), winner.rows)
    metric = metric_of(dataset, board.metric, board.positive)
    network, probe = (
        metric.merit(metric.value(dataset.labels[shared], probabilities.astype(np.float64)))
        for probabilities in (softmax(logits[ours]), kept.selection[theirs])
    )
    return network > probe
