"""Choosing by folds: every training row is held out once, where a tenth of them would be too few to choose on.

Each fold is searched as the selection split is. The setting that is chosen is the best over all folds together, and
every training row has a probability by a head that has not seen it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import gmean

from onepass.cache.memory import scratch
from onepass.classify.heads.base import Head
from onepass.classify.metrics import Metric, log_probabilities
from onepass.classify.protocol.views import mean_probabilities
from onepass.classify.search.search import Trial, best_trial


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the folds say.

    Attributes:
        trials: One for each setting that every fold has tried, with its means over the folds.
        best: That of the setting that was chosen, evaluated on all rows that were held out.
        probabilities: Of these rows, (n, K) float32, each by the head of its fold.
    """

    trials: list[Trial]
    best: Trial
    probabilities: np.ndarray


def setting_of(head: Head, params: dict[str, Any]) -> str:
    """Return the hyper-parameters that were tried, without those that a search fits, as text."""
    return json.dumps({name: v for name, v in params.items() if name not in head.CALIBRATED})


def choose_by_folds(
    searched: Sequence[Sequence[Trial]],
    views: tuple[Any, ...],
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    metric: Metric,
) -> Chosen:
    """Choose one setting for all folds.

    Args:
        searched: The trials of each fold: of a head that learnt from its rows, evaluated on those held out.
        views: Vectors of all rows, in each view.
        labels: (N,) of all rows.
        parts: Rows that are fitted on and rows that are held out, fold by fold.
        metric: What is chosen by.
    """
    found = [{setting_of(trial.head, trial.params): trial for trial in fold} for fold in searched]
    common = [key for key in found[0] if all(key in fold for fold in found)]
    weights = [len(held) for _, held in parts]
    trials = [_mean([fold[key] for fold in found], weights) for key in common]
    key = common[trials.index(best_trial(trials))]
    held, mean = np.sort(np.concatenate([held for _, held in parts])), trials[common.index(key)]
    probabilities = scratch((len(held), len(mean.head.classes_)), np.float32)
    for fold, (_, rows) in zip(found, parts, strict=True):
        part = mean_probabilities(fold[key].head, views, rows)
        probabilities[np.searchsorted(held, rows)] = part
    truth = np.searchsorted(mean.head.classes_, labels[held])
    best = Trial.of(mean.head, mean.params, truth, log_probabilities(probabilities), metric)
    return Chosen(trials, best, probabilities)


def _mean(trials: Sequence[Trial], weights: Sequence[int]) -> Trial:
    """Return the trials of a setting as one: means by rows; what the search fits, such as a temperature, too."""
    head, params = trials[0].head, dict(trials[0].params)
    for name in head.CALIBRATED:
        if name in params:
            params[name] = float(gmean([trial.params[name] for trial in trials]))
    accuracy, loss, merit = (
        float(np.average([getattr(trial, name) for trial in trials], weights=weights))
        for name in ("accuracy", "log_loss", "merit")
    )
    return Trial(params, accuracy, loss, merit, head.with_params(**params))
