"""Class weights: every class counts the same while a head learns, and probabilities stay those of the training mix."""

import numpy as np
import pytest
from classify_store import rare_digits
from sklearn.linear_model import LogisticRegression

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.base import Head
from onepass.classify.heads.class_weight import class_weights
from onepass.classify.heads.linear.lda import Lda
from onepass.classify.heads.linear.logistic import Logistic
from onepass.classify.heads.linear.ridge import Ridge
from onepass.classify.heads.neighbours.knn import Neighbours
from onepass.classify.heads.neural.dense import Dense
from onepass.classify.heads.neural.mlp import Mlp
from onepass.classify.heads.scaler import Scaler
from onepass.classify.metrics import balanced_accuracy, find_metric
from onepass.classify.search.search import Search, Split, best_trial

WEIGHTED = [Ridge, Lda, Logistic, Dense, Mlp, Neighbours]
SMALL = {Mlp: {"hidden": 64}}  # a search over 512 would take most of this file's time


def uneven(features: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """10 rows of class 0 and 40 of class 1 that overlap."""
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1], [10, 40])
    return generator.normal(size=(50, features)) + y[:, None] * 0.8, y


@pytest.mark.parametrize("features", [5, 80])  # more features than rows: solved in row space
@pytest.mark.parametrize("kind", [Ridge, Lda])
def test_a_weight_is_worth_as_many_rows(kind: type[Head], features: int) -> None:
    X, y = uneven(features)
    weighted = kind(class_weight="uncorrected").fit(X, y)
    copied = np.concatenate([np.tile(np.arange(10), 4), np.arange(10, 50)])
    repeated = kind().fit(X[copied], y[copied])
    np.testing.assert_allclose(weighted.logits(X), repeated.logits(X), rtol=1e-3, atol=1e-3)


def test_the_weighted_log_loss_is_that_of_scikit_learn() -> None:
    X, y = uneven()
    ours = Logistic(C=0.5, tol=1e-7, class_weight="uncorrected").fit(X, y)
    theirs = LogisticRegression(C=0.5, class_weight="balanced", tol=1e-10)
    rows = Scaler.fit(X).apply(X)
    expected = theirs.fit(rows, y).predict_proba(rows)
    np.testing.assert_allclose(ours.predict_proba(X), expected, atol=1e-4)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_probabilities_are_brought_back_to_the_training_mix(kind: type[Head]) -> None:
    X, y = uneven()
    raw, corrected = (
        kind(class_weight=word).fit(X, y).predict_proba(X).astype(np.float64)
        for word in ("uncorrected", "balanced")
    )
    # Saerens et al., equation 2.4, by hand: new prior over old prior, then normalised
    expected = raw * np.array([0.2, 0.8]) / 0.5
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(corrected, expected, atol=1e-5)
    plain = kind().fit(X, y).predict_proba(X)
    assert abs(corrected[:, 0].mean() - 0.2) < min(0.08, abs(raw[:, 0].mean() - 0.2))
    if kind is Neighbours:  # votes are counted, not learnt
        np.testing.assert_allclose(corrected, plain, atol=1e-6)
    else:
        assert np.abs(corrected - plain).max() > 1e-3


@pytest.mark.parametrize("kind", WEIGHTED)
def test_a_search_evaluates_what_the_refitted_head_says(kind: type[Head]) -> None:
    data = rare_digits()
    train, held = np.flatnonzero(data.split == 0), np.flatnonzero(data.split == 1)
    rows = data.X[train], data.labels[train], data.X[held], data.labels[held]
    chosen = {}
    for word in (None, "balanced", "uncorrected"):
        head = kind(class_weight=word, **SMALL.get(kind, {}))
        search = Search(head, Split(*rows), metric=find_metric("balanced"))
        trial = best_trial(search.run())
        probabilities = trial.head.refit(*rows[:2]).predict_proba(rows[2])
        loss = -np.log(np.maximum(probabilities[np.arange(len(held)), rows[3]], 1e-7)).mean()
        assert loss == pytest.approx(trial.log_loss, rel=0.02, abs=2e-3)
        chosen[word] = probabilities
    recall = {
        word: balanced_accuracy(rows[3], found.argmax(axis=1)) for word, found in chosen.items()
    }
    assert recall["uncorrected"] > recall[None] - 0.01  # equal shares: no rare row is overruled


def test_a_weight_is_one_on_average() -> None:
    weights = class_weights("balanced", np.repeat([0, 1, 2], [1, 2, 7]), 3)
    np.testing.assert_allclose(weights, 10 / (3 * np.array([1, 2, 7])))
    with pytest.raises(InvalidInputError, match="received 'heavy'"):
        class_weights("heavy", np.array([0, 1]), 2)
