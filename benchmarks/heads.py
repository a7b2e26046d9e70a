"""Ridge and nearest neighbours against the bare matrix products inside them, and against scikit-learn's.

    python benchmarks/heads.py [--features efficientnet_lite0@128] [--rows 40000] [--rounds 5]

One run, interleaved, medians of the rounds, in seconds of the processor with one thread each, so that they hold
on a machine that does other work beside: (a) gram: X.T @ X of the standardised, resident float32 rows;
(b) ridge: the search of `Ridge` on the same rows as they are stored (float16) with a tenth as many selection rows:
standardising, Gram matrix, every penalty, temperatures and scores; (c) product: queries @ rows.T, float32 and
resident, in the blocks of (d); (d) knn: `predict` of 10,000 queries by `Neighbours`, from float16 rows;
(e) sklearn_knn: scikit-learn's brute-force search of as many cosine neighbours, float32 and resident; (f)
leave_one_out: every row left out once (`onepass.classify.analysis.out_of_sample`), its 7 penalties; (g)
sklearn_leave_one_out: `RidgeClassifierCV` with the same penalties, on one-vs-all targets. (f) and (g) read a
quarter of the rows, (g) once.
Features of a prepared Tiny ImageNet are found by ONEPASS_CACHE; else synthetic ones are made. The last line is JSON.
"""

import argparse
import json
import os
import time

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

from common import feature_rows, machine

QUERIES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", default="efficientnet_lite0@128")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    import numpy as np
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.neighbors import NearestNeighbors

    from onepass.classify.analysis.out_of_sample import PENALTIES, leave_one_out
    from onepass.classify.heads.linear.ridge import Ridge
    from onepass.classify.heads.linear.spectrum import Spectrum
    from onepass.classify.heads.neighbours.knn import Neighbours
    from onepass.classify.heads.neighbours.nearest import BASE_ROWS, BLOCK_NUMBERS
    from onepass.classify.heads.scaler import Scaler
    from onepass.classify.search.search import Search, Split

    print(machine())
    words, X, y, V, v = feature_rows(options.features, options.rows)
    print(words, flush=True)
    X, y, V, v = X[: options.rows], y[: options.rows], V[:QUERIES], v[:QUERIES]
    standard, queries = (Scaler.fit(X).apply(part) for part in (X, V))
    neighbours = Neighbours().fit(X, y)
    choose = np.linspace(0, len(V) - 1, min(len(V), len(X) // 10)).astype(int)
    size = BLOCK_NUMBERS // min(BASE_ROWS, len(X))
    split = Split(X, y, V[choose], v[choose])

    def product() -> None:
        for start in range(0, len(queries), size):
            queries[start : start + size] @ standard.T

    brute = NearestNeighbors(n_neighbors=neighbours.k, algorithm="brute", metric="cosine").fit(
        standard
    )
    part, numbers = slice(0, None, 4), np.searchsorted(np.unique(y), y)

    def left_out() -> None:
        spectrum = Spectrum.of(X[part], numbers[part], len(np.unique(y)))
        leave_one_out(X[part], numbers[part], spectrum)

    def left_out_by_sklearn() -> None:
        alphas = [penalty * len(X[part]) for penalty in PENALTIES]
        RidgeClassifierCV(alphas).fit(standard[part], y[part])

    work = {
        "gram": lambda: standard.T @ standard,
        "ridge": Search(Ridge(), split).run,
        "product": product,
        "knn": lambda: neighbours.predict(V),
        "sklearn_knn": lambda: brute.kneighbors(queries),
        "leave_one_out": left_out,
        "sklearn_leave_one_out": left_out_by_sklearn,
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(options.rounds):
        for name, run in work.items():
            if number and run is left_out_by_sklearn:
                continue  # it takes minutes
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    for name, times in seconds.items():
        print(f"{name}: " + " ".join(f"{t:.2f}" for t in times) + " s")
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    print(
        f"ridge {medians['ridge'] / medians['gram']:.2f} of its Gram product, "
        f"knn {medians['knn'] / medians['product']:.2f} of its product; scikit-learn's knn "
        f"{medians['sklearn_knn'] / medians['knn']:.2f} of ours, its leave-one-out "
        f"{medians['sklearn_leave_one_out'] / medians['leave_one_out']:.1f} of ours"
    )
    print(json.dumps({f"{name}_seconds": round(t, 3) for name, t in medians.items()}))


if __name__ == "__main__":
    main()
