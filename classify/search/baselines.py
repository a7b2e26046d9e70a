"""How baselines are searched: most have nothing to search, the convolutional network its epochs."""

from typing import Any

import numpy as np
from sklearn.base import clone

from onepass.classify.heads.baselines.cnn import Cnn
from onepass.classify.search.search import Search, Trial

EPOCHS = (1, 2, 3, 5, 8, 12, 18)  # after which it is evaluated
STEPS = {"quick": 3_000, "full": 6_000}  # training steps
FEWEST_EPOCHS = 12  # however many steps an epoch has
PATIENCE = 2  # evaluated epochs beyond the peak


def fit_once(search: Search[Any]) -> list[Trial]:
    """Fit and evaluate the head as it is."""
    return [search.evaluate(clone(search.head).fit(search.split.X, search.split.y), {})]


def search_cnn(search: Search[Cnn]) -> list[Trial]:
    """Train once and evaluate after more and more epochs, until the peak is passed."""
    head, X, numbers = search.prepare()
    limit = max(FEWEST_EPOCHS, STEPS[search.budget] // max(1, len(X) // head.batch_size))
    epochs = [epoch for epoch in EPOCHS if epoch <= limit]
    trials: list[Trial] = []
    for epoch, weights in enumerate(head.train(X, numbers, epochs[-1]), 1):
        if epoch not in epochs:
            continue
        trained = head.with_params(epochs=epoch).adopt_weights(weights)
        trials.append(search.evaluate(trained, {"epochs": epoch}))
        if len(trials) - 1 - int(np.argmax([trial.merit for trial in trials])) >= PATIENCE:
            break
    return trials
