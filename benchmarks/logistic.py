"""The logistic path against one fit of scikit-learn's.

    python benchmarks/logistic.py [--features efficientnet_lite0@128] [--rows 90000]

One run: (a) the search of `Logistic` of budget "full", twelve Cs from 1e-5 to 1, on raw feature rows: it
standardises, solves and scores; (b) `sklearn.linear_model.LogisticRegression(C=1e-3)`, lbfgs, with its
default tolerance (1e-4) but as many iterations as it asks for, on the same rows, standardised before, as float32;
(c) references: the solver of (a) once more, each C to a proven excess of at most 2e-5 of the objective
(tests/test_classify_solver.py holds such a reference to scikit-learn's in float64). A gap is the objective
of (a) over that of (c), less one, in float64; an accuracy gap is |(a) - (c)| in points on the rows that (a) was
evaluated on. Both count for every C up to the accuracy's peak and one beyond; the Cs after that may only
be extrapolated. Features of a prepared Tiny ImageNet are found by ONEPASS_CACHE; else 90,000 synthetic rows
of 1280 numbers in 200 classes are made. The last line is JSON.
"""

import argparse
import json
import time

from common import feature_rows, machine

TIGHT = 2e-5
PASSES = 400


def objective(head, rows, penalty: float) -> float:
    """Return the mean log-loss and the penalty's share, summed in float64."""
    import numpy as np

    total = 0.0
    for block, numbers in rows.blocks():
        scores = (block @ head.weights_ + head.bias_).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        true = scores[np.arange(len(numbers)), numbers]
        total += float((np.log(np.exp(scores).sum(axis=1)) - true).sum())
    return total / len(rows) + penalty / 2 * float((head.weights_.astype(np.float64) ** 2).sum())


def compared(trials: list, rows, scaler, X, y) -> list[tuple[float, float]]:
    """Return gaps of objective and accuracy (points, on X and y) for each C up to one beyond the peak."""
    from onepass.classify.heads.linear.logistic import Logistic
    from onepass.classify.heads.linear.solver import Solver

    peak = max(range(len(trials)), key=lambda number: trials[number].accuracy)
    solver, gaps = Solver(rows), []
    for number, trial in enumerate(trials):
        line = f"C = {trial.params['C']:<8.3g} accuracy {100 * trial.accuracy:.2f} %"
        if number > peak + 1:
            print(line + (", only extrapolated" if not trial.head.converged_ else ""))
            continue
        reference = Logistic(C=trial.params["C"])
        reference.classes_, reference.n_features_in_ = trial.head.classes_, rows.features
        reference.solve(solver, scaler, TIGHT, PASSES)
        penalty = 1 / (trial.params["C"] * len(rows))
        best = objective(reference, rows, penalty)
        gap = objective(trial.head, rows, penalty) / best - 1
        accuracy = 100 * abs(trial.accuracy - reference.score(X, y))
        gaps.append((gap, accuracy))
        print(
            f"{line}, objective {best:.5f} + {gap:.1e} (proven {trial.head.excess_:.1e}), "
            f"accuracy gap {accuracy:.2f}; reference within {reference.excess_:.1e}"
            + ("" if reference.converged_ else ", NOT CONVERGED")
            + ("" if trial.head.converged_ else ", ONLY EXTRAPOLATED"),
            flush=True,
        )
    return gaps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", default="efficientnet_lite0@128")
    parser.add_argument("--rows", type=int, default=90_000, help="of the synthetic rows")
    options = parser.parse_args()
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from onepass.classify.heads.linear.logistic import Logistic
    from onepass.classify.heads.linear.softmax_objective import SoftmaxObjective
    from onepass.classify.heads.scaler import Scaler
    from onepass.classify.search.search import Search, Split

    print(machine())
    words, X, y, V, v = feature_rows(options.features, options.rows)
    print(words, flush=True)

    begin = time.perf_counter()
    trials = Search(Logistic(), Split(X, y, V, v), budget="full").run()
    path_seconds = time.perf_counter() - begin
    print(
        f"search of {len(trials)}: {path_seconds:.1f} s, {1 + sum(p.head.n_iter_ for p in trials)} passes",
        flush=True,
    )

    scaler = Scaler.fit(X)
    standard = scaler.apply(X)
    begin = time.perf_counter()
    other = LogisticRegression(C=1e-3, max_iter=1000).fit(standard, y)
    sklearn_seconds = time.perf_counter() - begin
    print(
        f"scikit-learn at C = 0.001: {sklearn_seconds:.1f} s, {other.n_iter_[0]} iterations",
        flush=True,
    )

    classes = trials[0].head.classes_
    rows = SoftmaxObjective(standard, np.searchsorted(classes, y), len(classes))
    gaps = compared(trials, rows, scaler, V, v)
    result = {
        "path_seconds": round(path_seconds, 2),
        "sklearn_seconds": round(sklearn_seconds, 2),
        "worst_objective_gap": float(f"{max(gap for gap, _ in gaps):.2g}"),
        "worst_accuracy_gap": round(max(gap for _, gap in gaps), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
