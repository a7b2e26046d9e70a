"""Many `dense` heads in one Keras model, against those that Onepass trains with NumPy.

    python benchmarks/neural_heads.py [--rows 36000] [--epochs 4] [--rounds 3]

The Keras model is that of DINOv2's linear evaluation: a grid of heads on the same batch, an optimiser for
each learning rate, summed losses; TensorFlow runs it. All that helps it is done: rows resident as a tensor,
an epoch in one graph, one kernel for the heads of equal rate, dropout and seed, weights, moments and running
means cut down where successive halving drops heads. Both see the same rows in the same order on the grid and
the schedule of benchmarks/sweep.py, and evaluate every head that is left after every epoch.

Rounds alternate one head and 64 of each. Times are of the processor, one thread each, so that they hold on a
machine that does other work beside; import and tracing are not counted. The last line is JSON.
"""

import argparse
import json
import os
import time
from itertools import groupby
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
from common import feature_rows, machine
from sweep import GRID

from onepass.classify.heads.neural.batches import SharedSettings, batches, steps_of
from onepass.classify.heads.neural.dense import Dense
from onepass.classify.heads.scaler import Scaler
from onepass.classify.search.neural import JointTraining
from onepass.classify.search.search import Search, Split
from onepass.classify.search.successive_halving import Schedule

ONE = [{"learning_rate": 1e-3, "l1": 0.0, "l2": 0.0, "dropout": 0.4, "seed": 0}]
EVALUATED = 1_000  # rows at a time


class Kernel:
    """Heads of equal dropout, seed and learning rate: weights (D, H · K) and bias (H · K,)."""

    def __init__(self, key: tuple, params: dict[int, dict], arrays: list, classes: int) -> None:
        import keras

        self.key, self.params, self.classes = key, params, classes
        self.variables = [keras.Variable(array) for array in arrays]
        self.optimizer = keras.optimizers.Adam(key[2], use_ema=True, ema_momentum=0.99)
        self.optimizer.build(self.variables)
        self.l1, self.l2 = (
            np.repeat([p[name] for p in params.values()], classes).astype(np.float32)
            for name in ("l1", "l2")
        )

    @property
    def means(self) -> list:
        """The running means of weights and bias, which are the heads."""
        return self.optimizer._model_variables_moving_average

    def logits(self, x: Any, variables: list) -> Any:
        """(B, H, K)."""
        import tensorflow as tf

        weights, bias = variables
        return tf.reshape(x @ weights + bias, (-1, len(self.params), self.classes))

    def penalty(self) -> Any:
        import tensorflow as tf

        w = self.variables[0].value
        total = tf.reduce_sum(tf.square(w) * self.l2) if self.l2.any() else 0.0
        return total + (tf.reduce_sum(tf.abs(w) * self.l1) if self.l1.any() else 0.0)

    def keeping(self, alive: set[int]) -> "Kernel":
        """The heads that stay, with what the optimiser knows of them."""
        places = [n for n, member in enumerate(self.params) if member in alive]

        def cut(variable: Any) -> np.ndarray:
            array = np.asarray(variable)
            heads = array.reshape(*array.shape[:-1], -1, self.classes)
            return heads[..., places, :].reshape(*array.shape[:-1], -1)

        params = {m: p for m, p in self.params.items() if m in alive}
        kept = Kernel(self.key, params, [cut(v) for v in self.variables], self.classes)
        for new, old in zip(kept.optimizer.variables, self.optimizer.variables, strict=True):
            new.assign(cut(old) if len(old.shape) else old)
        return kept


class KerasHeads:
    """All kernels, and the graph that trains them for an epoch."""

    def __init__(self, params: list[dict], features: int, classes: int) -> None:
        import keras

        def key(member: int) -> tuple:
            return tuple(params[member][name] for name in ("dropout", "seed", "learning_rate"))

        self.kernels = []
        for shared, members in groupby(sorted(range(len(params)), key=key), key):
            own = {member: params[member] for member in members}
            arrays = [
                np.zeros((*shape, len(own) * classes), np.float32) for shape in ((features,), ())
            ]
            self.kernels.append(Kernel(shared, own, arrays, classes))
        self.noise = {k.key[:2]: keras.random.SeedGenerator(k.key[1]) for k in self.kernels}

    def compiled(self, *example: Any) -> Any:
        """Return the graph of an epoch: X (n, D), y (n,), rows of each step (steps, B)."""
        import tensorflow as tf

        X, y, order = example
        graph = tf.function(self._epoch)
        return graph.get_concrete_function(X, y, tf.TensorSpec((None, *order.shape[1:]), tf.int32))

    def _epoch(self, X: Any, y: Any, order: Any) -> None:
        import keras
        import tensorflow as tf

        for rows in order:
            x, truth = tf.gather(X, rows), tf.gather(y, rows)
            left = {
                key: keras.random.dropout(x, key[0], seed=generator)
                for key, generator in self.noise.items()
            }
            with tf.GradientTape() as tape:
                loss = 0.0
                for kernel in self.kernels:
                    logits = kernel.logits(left[kernel.key[:2]], kernel.variables)
                    labels = tf.repeat(truth[:, None], len(kernel.params), axis=1)
                    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                    loss += tf.reduce_sum(losses) / tf.cast(tf.size(truth), tf.float32)
                    loss += kernel.penalty()
            gradients = tape.gradient(loss, [[v.value for v in k.variables] for k in self.kernels])
            for kernel, own in zip(self.kernels, gradients, strict=True):
                kernel.optimizer.apply(own, kernel.variables)

    def evaluate(self, V: Any, truth: np.ndarray) -> dict[int, float]:
        """Return the top-1 of each head that is left."""
        found: dict[int, float] = {}
        for kernel in self.kernels:
            right = np.zeros(len(kernel.params))
            for start in range(0, len(truth), EVALUATED):
                part = slice(start, start + EVALUATED)
                logits = kernel.logits(V[part], kernel.means).numpy()
                right += (logits.argmax(axis=2) == truth[part, None]).sum(axis=0)
            found |= dict(zip(kernel.params, right / len(truth), strict=True))
        return found

    def keep(self, alive: set[int]) -> None:
        """Drop the other heads."""
        self.kernels = [k.keeping(alive) for k in self.kernels if alive & k.params.keys()]
        self.noise = {k.key[:2]: self.noise[k.key[:2]] for k in self.kernels}


def with_keras(split: Split, params: list[dict], epochs: int) -> tuple[float, float]:
    """Return seconds, tracing apart, and the best top-1 on the selection rows."""
    import tensorflow as tf

    begin, tracing = time.process_time(), 0.0
    scaler = Scaler.fit(split.X)
    X, V = (tf.constant(scaler.apply(part)) for part in (split.X, split.X_selection))
    y = tf.constant(split.y.astype(np.int32))
    heads = KerasHeads(params, split.X.shape[1], int(split.y.max()) + 1)
    numbers = np.arange(len(split.X), dtype=np.int32)  # so that a batch's classes are its rows
    source = batches(numbers[:, None], numbers, SharedSettings())
    steps, taken, best, last = (
        steps_of(len(split.X), 256),
        0,
        0.0,
        dict.fromkeys(range(len(params)), 0.0),
    )
    for count, end in Schedule(epochs).rungs(len(params), steps):
        heads.keep(set(sorted(last, key=lambda member: -last[member])[:count]))
        graph = None
        while taken < end:
            stop = min(end, (taken // steps + 1) * steps)
            order = tf.constant(np.stack([next(source).truth for _ in range(stop - taken)]))
            if graph is None:
                start = time.process_time()
                graph = heads.compiled(X, y, order)
                tracing += time.process_time() - start
            graph(X, y, order)
            taken, last = stop, heads.evaluate(V, split.y_selection)
            best = max(best, *last.values())
    return time.process_time() - begin - tracing, best


def with_numpy(split: Split, params: list[dict], epochs: int) -> tuple[float, float]:
    """Return the same of `onepass.classify.search.successive_halving`."""
    begin = time.process_time()
    strategy = JointTraining(params, Schedule(epochs))
    strategy(Search(Dense(), split))
    seconds = time.process_time() - begin
    return seconds, max(p.selection_accuracy for c in strategy.curves for p in c.points)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", default="efficientnet_lite0@128")
    parser.add_argument("--rows", type=int, default=36_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(machine())
    words, X, y, V, v = feature_rows(options.features, options.rows)
    print(words, flush=True)
    split = Split(X[: options.rows], y[: options.rows], V[:4_000], v[:4_000])
    with_keras(split, ONE, 1)  # what TensorFlow does once
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for params in (ONE, GRID.params()):
            for train in (with_numpy, with_keras):
                name = f"{train.__name__.removeprefix('with_')}_{len(params)}"
                spent, best = train(split, params, options.epochs)
                seconds.setdefault(name, []).append(spent)
                print(f"{name}: {spent:.2f} s, best top-1 {100 * best:.2f} %", flush=True)
    rounds = {name: np.array(times) for name, times in seconds.items()}
    ratios = {
        "one_keras_over_numpy": rounds["keras_1"] / rounds["numpy_1"],
        "all_keras_over_numpy": rounds["keras_64"] / rounds["numpy_64"],
        "numpy_all_over_one": rounds["numpy_64"] / rounds["numpy_1"],
        "keras_all_over_one": rounds["keras_64"] / rounds["keras_1"],
    }
    print(json.dumps({name: round(float(np.median(r)), 2) for name, r in ratios.items()}))


if __name__ == "__main__":
    main()
