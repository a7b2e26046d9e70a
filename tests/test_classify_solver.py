"""The logistic solver: exact within its bound, out of core, wide rows, and a path that learns."""

import numpy as np
import pytest
from classify_store import digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from onepass.cache.errors import InvalidInputError
from onepass.cache.memory import memory_budget
from onepass.classify.heads.lazy_rows import LazyRows
from onepass.classify.heads.linear import softmax_objective
from onepass.classify.heads.linear.logistic import Logistic
from onepass.classify.heads.linear.softmax_objective import SoftmaxObjective, residuals
from onepass.classify.heads.linear.solver import Solver
from onepass.classify.heads.scaler import Scaler
from onepass.classify.search.linear import CS
from onepass.classify.search.search import Search, Split


@pytest.fixture(autouse=True)
def one_thread():
    """Small problems, and a machine that does more than this."""
    with threadpool_limits(1):
        yield


def problem(classes: int = 10) -> tuple[SoftmaxObjective, np.ndarray]:
    data = digits(classes)
    return SoftmaxObjective(Scaler.fit(data.X).apply(data.X), data.labels, classes), data.labels


def objective(
    weights: np.ndarray, bias: np.ndarray, rows: SoftmaxObjective, penalty: float
) -> float:
    """F in float64, written down again."""
    scores = rows.X.astype(np.float64) @ weights + bias
    top = scores.max(axis=1)
    total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    loss = np.mean(total - scores[np.arange(len(rows)), rows.numbers])
    return float(loss + penalty / 2 * np.sum(weights.astype(np.float64) ** 2))


@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0])
def test_the_bound_holds_against_scikit_learn_converged_in_double_precision(C: float) -> None:
    rows, y = problem()
    exact = LogisticRegression(C=C, tol=1e-9, max_iter=5000).fit(rows.X.astype(np.float64), y)
    penalty = 1 / (C * len(rows))
    best = objective(exact.coef_.T, exact.intercept_, rows, penalty)
    for tol in (1e-2, 1e-3, 2e-5):
        point, converged = Solver(rows).solve(penalty, tol, 300)
        excess = objective(point.weights[:-1], point.weights[-1], rows, penalty) / best - 1
        assert converged and point.bound <= tol
        assert -1e-6 <= excess <= point.bound + 1e-6
        assert point.objective == pytest.approx(best * (1 + excess), rel=1e-6)


def test_a_path_takes_fewer_passes_than_single_fits() -> None:
    rows, _ = problem()
    penalties = [1 / (C * len(rows)) for C in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)]
    along = Solver(rows)
    for penalty in penalties:
        assert along.solve(penalty, 1e-3, 300)[1]
    single = 0
    for penalty in penalties:
        alone = Solver(rows)
        assert alone.solve(penalty, 1e-3, 300)[1]
        single += alone.passes
    assert along.passes < 0.8 * single


def test_gradient_is_that_of_the_loss() -> None:
    rows, _ = problem(3)
    generator = np.random.default_rng(0)
    weights, step = (0.1 * generator.normal(size=(65, 3)).astype(np.float32) for _ in range(2))
    gradient = rows.evaluate(weights).gradient
    up, down = (
        objective((weights + s * step)[:-1], (weights + s * step)[-1], rows, 0.0)
        for s in (1e-3, -1e-3)
    )
    assert np.vdot(gradient, step) == pytest.approx((up - down) / 2e-3, rel=1e-3)


def test_rows_that_are_read_in_blocks_from_a_map_give_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(softmax_objective, "BLOCK", 100)
    data = digits(10)
    data.X.astype(np.float16).tofile(tmp_path / "rows")
    X = np.memmap(tmp_path / "rows", np.float16, "r", shape=data.X.shape)
    scaler = Scaler.fit(X)
    with memory_budget(1 << 30):
        resident = SoftmaxObjective(scaler.rows(X), data.labels, 10)
    with memory_budget(1000):
        streamed = SoftmaxObjective(scaler.rows(X), data.labels, 10)
    assert isinstance(streamed.X, LazyRows) and isinstance(resident.X, np.ndarray)
    assert all(len(block) <= 100 for block, _ in streamed.blocks())
    first, second = (Solver(rows).solve(0.05, 1e-5, 200)[0] for rows in (resident, streamed))
    np.testing.assert_array_equal(first.weights, second.weights)


@pytest.mark.parametrize("classes", [2, 3])
def test_fewer_rows_than_features(classes: int) -> None:
    generator = np.random.default_rng(1)
    y = np.arange(40) % classes
    X = generator.normal(size=(40, 150)) + 0.5 * y[:, None]
    head = Logistic(C=0.1).fit(X, y)
    exact = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000).fit(
        Scaler.fit(X).apply(X, np.float64), y
    )
    expected = exact.predict_proba(Scaler.fit(X).apply(X, np.float64))
    np.testing.assert_allclose(head.predict_proba(X), expected, atol=5e-3)
    assert head.converged_


def test_a_full_search_goes_to_the_end_and_only_extrapolates_what_is_past_the_peak() -> None:
    data = digits(10)
    labels = data.labels[::8].copy()
    labels[::4] = (labels[::4] + 1) % 10  # wrong labels: a weak penalty learns them by heart
    split = Split(data.X[::8], labels, data.X[1::2], data.labels[1::2])
    trials = Search(Logistic(), split, budget="full").run()
    assert [trial.params for trial in trials] == [{"C": C} for C in CS["full"]]
    extrapolated = [trial.head.n_iter_ == 0 for trial in trials]
    assert extrapolated == sorted(extrapolated) and any(extrapolated)
    for trial, guessed in zip(trials, extrapolated, strict=True):
        assert trial.head.converged_ is not guessed


def test_residuals_of_huge_logits_stay_finite() -> None:
    scores = np.array([[1e4, 0, -1e4], [0, 1e4, 0]], np.float32)
    loss = residuals(scores, np.array([0, 0]))
    assert loss == pytest.approx(1e4)
    np.testing.assert_allclose(scores, [[0, 0, 0], [-1, 1, 0]], atol=1e-6)


@pytest.mark.parametrize("params", [{"C": 0.0}, {"tol": 0.0}, {"max_iter": 0}])
def test_refuses_senseless_parameters(params: dict) -> None:
    with pytest.raises(InvalidInputError, match="logistic: expected"):
        Logistic(**params).fit([[0.0], [1.0]], [0, 1])
