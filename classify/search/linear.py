"""How the hyper-parameters of linear heads are searched: every penalty from one pass over the rows."""

import numpy as np
from sklearn.base import clone

from onepass.cache.memory import scratch
from onepass.classify.heads.class_weight import log_prior
from onepass.classify.heads.lazy_rows import Rows, blocks
from onepass.classify.heads.linear.centroid import METRICS, Centroid
from onepass.classify.heads.linear.lda import Lda
from onepass.classify.heads.linear.logistic import Logistic
from onepass.classify.heads.linear.ridge import Ridge
from onepass.classify.heads.linear.solver import Solver
from onepass.classify.heads.scaler import Scaler
from onepass.classify.metrics import fit_temperature
from onepass.classify.search.search import Search, Trial

TEMPERATURE_ROWS = 1_000  # on which a temperature is fitted: one number is to be found

WEAKEST, STRONGEST = 1e-6, 1e3  # penalties of ridge that are tried
STEPS_PER_DECADE = {"quick": 1, "full": 8}
START = (0.01, 0.001)  # where the climb begins

SHRINKAGES = {
    "quick": (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01),
    "full": (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3),
}

CS = {
    "quick": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0),
    "full": tuple(float(f"{C:.3g}") for C in np.logspace(-5, 0, 12)),
}
SEARCH_TOL = 1e-3  # proven; what is chosen is fitted again, to the head's own tolerance


def search_centroid(search: Search[Centroid]) -> list[Trial]:
    """Try both metrics, each with its best temperature."""
    fitted = clone(search.head).fit(search.split.X, search.split.y)
    truth = np.searchsorted(fitted.classes_, search.split.y_selection)
    trials = []
    for metric in METRICS:
        head = fitted.with_params(metric=metric, temperature=1.0)
        logits = head.logits(search.split.X_selection)
        head.temperature = fit_temperature(truth, logits, TEMPERATURE_ROWS)
        logits /= logits.dtype.type(head.temperature)
        trials.append(search.evaluate(head, head.get_params(), logits))
    return trials


def search_ridge(search: Search[Ridge]) -> list[Trial]:
    """Climb from `START` while the metric rises.

    "quick" goes by powers of ten, "full" tries all of 100 to 1e-6 and then around the best. Of equally
    good penalties the strongest is the best.
    """
    head, X, numbers = search.prepare()
    equations = head.equations(X, numbers)
    prior = log_prior(head.class_weight, equations.weights).astype(np.float32)
    rows = equations.scaler.rows(search.split.X_selection)
    truth = np.searchsorted(head.classes_, search.split.y_selection)

    def trial(penalty: float) -> Trial:
        weights = equations.solve(penalty)
        scores = _scores(rows, weights, equations.share)
        temperature = fit_temperature(truth, scores, TEMPERATURE_ROWS, prior)
        params = {"penalty": float(penalty), "temperature": temperature}
        fitted = head.with_params(**params).adopt_solution(equations, weights)
        return search.evaluate(fitted, params, _calibrated(scores, temperature, prior))

    step = STEPS_PER_DECADE[search.budget]
    wanted = [round(step * np.log10(penalty)) for penalty in START]
    if search.budget == "full":
        wanted = list(range(2 * step, -6 * step - 1, -2))
    trials: dict[int, Trial] = {}  # by the power of ten of the penalty, in steps
    while wanted:
        trials |= {power: trial(10 ** (power / step)) for power in wanted}
        best = max(trials, key=lambda power: (trials[power].merit, power))
        wanted = [
            power
            for power in (best + 1, best - 1)
            if power not in trials and WEAKEST <= 10 ** (power / step) <= STRONGEST
        ]
    return [trials[power] for power in sorted(trials, reverse=True)]


def search_lda(search: Search[Lda]) -> list[Trial]:
    """Try shrinkages from strong to weak, of one covariance."""
    head, X, numbers = search.prepare()
    covariance = head.covariance(X, numbers)
    prior = log_prior(head.class_weight, covariance.weights).astype(np.float32)
    rows = covariance.moments.scaler.rows(search.split.X_selection)
    truth = np.searchsorted(head.classes_, search.split.y_selection)
    trials = []
    for shrinkage in SHRINKAGES[search.budget]:
        weights, bias = covariance.solve(shrinkage)
        scores = _scores(rows, weights, bias)
        temperature = fit_temperature(truth, scores, TEMPERATURE_ROWS, prior)
        params = {"shrinkage": shrinkage, "temperature": temperature}
        fitted = head.with_params(**params).adopt_solution(covariance, weights, bias)
        logits = _calibrated(scores, temperature, prior)
        trials.append(search.evaluate(fitted, params, logits))
    return trials


def search_logistic(search: Search[Logistic]) -> list[Trial]:
    """Try C upwards, each solved from the last solutions.

    "quick" ends where the peak is clearly passed. "full" continues to the last C, but once a trial is
    worse than the best one, the next is only extrapolated from the last two solutions; it is
    solved after all where that turns out better than the best. A head that was only extrapolated has
    taken no pass over the rows (`n_iter_`) and has not converged (`converged_`).
    """
    head, X, numbers = search.prepare()
    scaler = Scaler.fit(X)
    solver = Solver(head.objective(X, numbers, scaler))
    tol = max(head.tol, SEARCH_TOL)
    trials: list[Trial] = []
    for C in CS[search.budget]:
        if search.budget == "quick" and past_peak(trials, 1):
            break
        best = max((trial.merit for trial in trials), default=-np.inf)
        declining = bool(trials) and trials[-1].merit < best
        if search.budget == "full" and declining:
            guess = head.with_params(C=C).extrapolate(solver, scaler)
            trial = search.evaluate(guess, {"C": C})
            if trial.merit <= best:
                trials.append(trial)
                continue
        solved = head.with_params(C=C).solve(solver, scaler, tol, head.max_iter)
        trials.append(search.evaluate(solved, {"C": C}))
    return trials


def _scores(rows: Rows, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return `rows @ weights + bias`, (n, K) float32."""
    small, out = weights.astype(np.float32), scratch((len(rows), len(bias)), np.float32)
    for block in blocks(rows):
        np.matmul(rows[block], small, out=out[block])
    out += bias.astype(np.float32)
    return out


def _calibrated(scores: np.ndarray, temperature: float, prior: np.ndarray) -> np.ndarray:
    """Return scores as logits; in place, as they are many."""
    scores /= np.float32(temperature)
    scores += prior
    return scores


def past_peak(trials: list[Trial], patience: int) -> bool:
    """Say whether the last `patience` trials are all worse than the best before them.

    A metric of a few hundred rows is noisy, so a trial is worse only if it is below the best and its
    log-loss, which is smooth in C, has risen as well.
    """
    if len(trials) <= patience:
        return False
    before, last = trials[:-patience], trials[-patience:]
    merit = max(trial.merit for trial in before)
    loss = min(trial.log_loss for trial in before)
    return all(trial.merit < merit and trial.log_loss > loss for trial in last)
