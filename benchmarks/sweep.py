"""What 64 heads cost together: the time of one `dense` head, and of a sweep of 64 on the same rows.

    python benchmarks/sweep.py [--features efficientnet_lite0@128] [--epochs 20] [--alone 3]

Rows to fit and to select on are those of `onepass classify` on Tiny ImageNet (36,000 and 4,000 rows
x 1280, 200 classes; random ones of that size where its features are not stored). The one head is
trained for all the epochs. Of the 64 (4 learning rates x 4 penalties x 2 shares of dropout x 2 seeds) a
quarter stays after each rung of successive halving (`onepass.classify.search.successive_halving`), and a rung ends three
times later than the one before: at epochs 20/27, 20/9, 20/3 and 20. So 102 epochs of a head are computed
instead of 1,280, and that is where most of the saving is from; no rung leaves out rows. The rest is one
read of each batch, one dropout mask for heads of equal dropout and seed, and wide products. Every head
that is left is evaluated on the selection rows after every epoch, in both timings.

The best heads are then trained alone, for as long as they were in the sweep, with their own seed (and
so another order of rows): both accuracies are printed, beside the spread between seeds. The last line
is JSON.
"""

import argparse
import json
import time

import numpy as np
from common import machine

from onepass.cache.commandline.flags import StoreConfig
from onepass.cache.errors import OnepassError
from onepass.cache.features import resolve_features
from onepass.classify.heads.base import brief
from onepass.classify.heads.neural.dense import Dense
from onepass.classify.protocol.evaluate import protocol_rows
from onepass.classify.search.neural import Grid, JointTraining
from onepass.classify.search.search import Search, Split
from onepass.classify.search.successive_halving import Schedule
from onepass.data.dataset import open_dataset

NAME = "tiny-imagenet"
GRID = Grid(
    learning_rate=(3e-4, 1e-3, 2e-3, 4e-3),
    penalty=((0.0, 0.0), (0.0, 1e-3), (0.0, 4e-3), (1e-4, 0.0)),
    dropout=(0.4, 0.7),
    seed=(0, 1),
)
Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def load(text: str) -> tuple[Rows, str]:
    """Return rows to fit and to select on with their labels, and where they are from."""
    store = StoreConfig().store
    try:
        dataset = open_dataset(store, NAME)
        (found,) = resolve_features(store, NAME, [text])
    except OnepassError:
        return synthetic(), "random features (those of Tiny ImageNet are not stored)"
    rows = protocol_rows(dataset, seed=0)
    X, y = np.asarray(found.X), dataset.labels
    return (X[rows.fit], y[rows.fit], X[rows.selection], y[rows.selection]), f"{NAME} {text}"


def synthetic() -> Rows:
    """Return 200 overlapping clouds, about as hard as Tiny ImageNet."""
    generator = np.random.default_rng(0)
    y = generator.permutation(np.arange(40_000) % 200)
    X = generator.normal(size=(40_000, 1280)) + 0.12 * generator.normal(size=(200, 1280))[y]
    X = X.astype(np.float16)
    return X[:36_000], y[:36_000], X[36_000:], y[36_000:]


def timed(rows: Rows, params: list[dict], epochs: int) -> tuple[float, list]:
    start = time.perf_counter()
    strategy = JointTraining(params, Schedule(epochs))
    strategy(Search(Dense(), Split(*rows)))
    return time.perf_counter() - start, list(zip(params, strategy.curves, strict=True))


def compare_alone(rows: Rows, swept: list, count: int) -> None:
    """Train the heads that lasted longest alone, and print what they reach on the selection rows."""
    X, y, V, v = rows
    lasted = sorted(swept, key=lambda pair: -len(pair[1].points))[:count]
    for params, curve in lasted:
        best = curve.best
        alone = [
            Dense(**{**params, "epochs": best.epochs, "seed": seed}).fit(X, y).score(V, v)
            for seed in (params["seed"], params["seed"] + 10)
        ]
        print(
            f"  {brief(params)}, epochs={best.epochs}: in the sweep {100 * best.accuracy:.2f} %, "
            f"alone {100 * alone[0]:.2f} %, alone with another seed {100 * alone[1]:.2f} %",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", default="efficientnet_lite0@128")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--alone", type=int, default=3, help="how many heads are trained alone")
    options = parser.parse_args()
    rows, source = load(options.features)
    print(
        f"{machine()}\n{source}: {len(rows[0]):,} + {len(rows[2]):,} rows, {options.epochs} epochs"
    )
    one = [{"learning_rate": 1e-3}]
    before, _ = timed(rows, one, options.epochs)
    together, swept = timed(rows, GRID.params(), options.epochs)
    after, _ = timed(rows, one, options.epochs)
    alone = (before + after) / 2
    print(
        f"one head: {before:.1f} s and {after:.1f} s; {len(swept)} heads: {together:.1f} s",
        flush=True,
    )
    print(f"ratio: {together / alone:.2f}")
    compare_alone(rows, swept, options.alone)
    print(json.dumps({"one_seconds": round(alone, 2), "sweep_seconds": round(together, 2)}))


if __name__ == "__main__":
    main()
