"""How often the corrected test of `onepass classify --folds` calls a difference that is none.

    python benchmarks/folds.py [--sets 200] [--rows 200] [--folds 5] [--repeats 1]

Null data sets: Gaussian rows whose labels are tosses of a coin, so that every head is right half of the time.
Each pair of heads is compared over the same folds as the command does it; reported is the share of p-values below
5 %, of the corrected test, of the plain paired t-test beside it, and of the best head against the next (which is
chosen for being the best). The last line is JSON.
"""

import argparse
import json
import os
import time
from itertools import combinations

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

from common import machine

HEADS = ("centroid", "lda", "ridge", "logistic", "knn")
FEATURES = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("sets", 200), ("rows", 200), ("folds", 5), ("repeats", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    import numpy as np

    from onepass.cache.content import source_of
    from onepass.classify.baselines import make_head
    from onepass.classify.metrics import TOP1, corrected_t_test
    from onepass.classify.resampling.folds import Fold, merits_of, search_fold
    from onepass.data.splits import fold_split

    print(machine())
    ratio, rows, start = 1 / (options.folds - 1), np.arange(options.rows), time.monotonic()
    content = np.stack([source_of(b"%d" % row) for row in rows])
    corrected, plain, best = [], [], []
    for number in range(options.sets):
        random = np.random.default_rng(number)
        X = random.normal(size=(options.rows, FEATURES)).astype(np.float32)
        labels = random.integers(0, 2, options.rows)
        found: dict[str, list[Fold]] = {kind: [] for kind in HEADS}
        for repeat in range(options.repeats):
            dealt = fold_split(
                labels, rows, content, folds=options.folds, seed=number, repeat=repeat
            )
            for fold in range(options.folds):
                parts = rows[dealt != fold], rows[dealt == fold]
                for kind in HEADS:
                    settings = search_fold(make_head(kind, 0), (X,), labels, parts, TOP1, "quick")
                    found[kind].append(Fold(repeat, fold, *map(len, parts), settings, 0.0))
        figures = {kind: merits_of(folds) for kind, folds in found.items()}
        for first, second in combinations(HEADS, 2):
            gains = figures[first] - figures[second]
            corrected.append(corrected_t_test(gains, ratio))
            plain.append(corrected_t_test(gains, 0))
        first, second, *_ = sorted(HEADS, key=lambda kind: -figures[kind].mean())
        best.append(corrected_t_test(figures[first] - figures[second], ratio))
        if number % 20 == 19:
            print(f"{number + 1} sets, {time.monotonic() - start:.0f} s", flush=True)
    alarms = {
        name: float(np.mean(np.array(values) < 0.05))
        for name, values in (("corrected", corrected), ("plain", plain), ("best", best))
    }
    print(
        f"{options.sets} null sets of {options.rows} rows, {options.folds} folds {options.repeats} times, "
        f"{len(corrected)} pairs of heads: corrected {100 * alarms['corrected']:.1f} %, plain "
        f"{100 * alarms['plain']:.1f} %, best against next {100 * alarms['best']:.1f} % below p = 0.05"
    )
    print(json.dumps({**vars(options), **alarms}))


if __name__ == "__main__":
    main()
