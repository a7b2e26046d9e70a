"""Small networks trained side by side: one read of each batch, one wide matrix product per layer.

The heads are one or two dense layers behind dropout, as in De (2020). Of many such heads on the same
features, those with equal dropout and seed see the same rows with the same columns dropped: their first
layers are one product of (B, D) by (D, heads · outputs). Weights lie as (inputs, heads, outputs) for that.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from onepass.cache.memory import scratch
from onepass.classify.heads.class_weight import class_weights, log_prior
from onepass.classify.heads.lazy_rows import Rows, blocks
from onepass.classify.heads.neural.batches import FeatureBatch, HeadSettings, SharedSettings
from onepass.classify.heads.neural.optimizers import OPTIMIZERS
from onepass.classify.metrics import TOP1, Metric

BLOCK_NUMBERS = 1 << 22  # logits held at a time while heads are evaluated
PARTS = 1 << 16  # dropout is drawn in 65,536ths


class Group:
    """Heads of equal dropout and seed; their weights lie side by side.

    Attributes:
        members: Position of each head among all settings.
        arrays: weights (I, H, O) and biases (H, O) of the layers in turn, float32.
        weights: What a row of each class counts, (K,); None: all alike.
        prior: Added to the logits of the classes when the heads are asked, (K,) or ().
    """

    def __init__(
        self,
        settings: list[HeadSettings],
        members: list[int],
        shared: SharedSettings,
        sizes: list[int],
        weights: np.ndarray | None,
    ) -> None:
        self.members, self.shared, self.weights = members, shared, weights
        self.prior = log_prior(shared.class_weight, weights).astype(np.float32)
        first = settings[members[0]]
        self.dropout = first.dropout
        self.noise = np.random.default_rng([first.seed, 1])
        self.arrays = first_weights(sizes, len(members), first.seed)
        rate, l1, l2 = (
            np.array([getattr(settings[member], name) for member in members])
            for name in ("learning_rate", "l1", "l2")
        )
        self.gradients = [np.empty_like(array) for array in self.arrays]  # written anew each step
        self.optimizer = OPTIMIZERS[shared.optimizer](self.arrays, rate, l1, l2, shared.ema)

    def keep(self, survivors: set[int]) -> None:
        """Drop all other heads."""
        chosen = [place for place, member in enumerate(self.members) if member in survivors]
        if len(chosen) < len(self.members):
            self.members = [self.members[place] for place in chosen]
            self.optimizer.keep(np.array(chosen, dtype=int))
            self.gradients = [np.empty_like(array) for array in self.arrays]

    def scores(self, X: np.ndarray, place: int | None = None) -> np.ndarray:
        """Return the logits (n, H, K) of rows (n, D) float32, without dropout; of one head, (n, 1, K)."""
        arrays = self.optimizer.means
        if place is not None:
            arrays = [array[..., place : place + 1, :] for array in arrays]
        scores = self._forward([X], arrays)[-1]
        scores += self.prior
        return scores

    def step(self, batch: FeatureBatch) -> tuple[np.ndarray, np.ndarray]:
        """Take one step; return each head's log-loss and accuracy on the batch before it, (H,)."""
        values = self._forward([batch.X], self.arrays, training=True)
        scores = values[-1]
        rows = np.arange(len(scores))
        right = (scores.argmax(axis=2) == batch.truth[:, None]).mean(axis=0)
        scores -= scores.max(axis=2, keepdims=True)
        own = scores[rows, :, batch.truth]
        np.exp(scores, out=scores)
        total = scores.sum(axis=2, keepdims=True)
        loss = (np.log(total[..., 0]) - own).mean(axis=0)
        scores /= total
        self._subtract_targets(scores, batch)
        scores /= np.float32(len(rows))
        self._backward(values)
        self.optimizer.step(self.gradients)
        return loss, right

    def _subtract_targets(self, scores: np.ndarray, batch: FeatureBatch) -> None:
        """Turn probabilities (B, H, K) into the gradient of the cross-entropy, in place."""
        rows, smoothing = np.arange(len(scores)), self.shared.label_smoothing
        scores[rows, :, batch.truth] -= np.float32((1 - smoothing) * batch.share)
        if batch.share < 1:
            scores[rows, :, batch.partner] -= np.float32((1 - smoothing) * (1 - batch.share))
        if smoothing:
            scores -= np.float32(smoothing / scores.shape[2])
        if self.weights is not None:  # a mixed row counts with the mean of its classes' weights
            own, other = self.weights[batch.truth], self.weights[batch.partner]
            counts = batch.share * own + (1 - batch.share) * other
            scores *= counts.astype(np.float32)[:, None, None]

    def _forward(
        self, values: list[np.ndarray], arrays: list[np.ndarray], training: bool = False
    ) -> list[np.ndarray]:
        """Append each layer's output to [X]; in training each input is replaced by what dropout leaves of it."""
        for layer, (weights, bias) in enumerate(_pairs(arrays)):
            if training and self.dropout[layer]:
                values[-1] = self._dropped_out(values[-1], self.dropout[layer])
            out = _product(values[-1], weights)
            out += bias
            if layer < len(self.dropout) - 1:
                np.maximum(out, 0, out=out)
            values.append(out)
        return values

    def _dropped_out(self, value: np.ndarray, dropout: float) -> np.ndarray:
        """Return (B, D) or (B, H, I) with a share of its numbers dropped, the rest scaled up."""
        rows, columns = len(value), value.shape[-1]
        draws = self.noise.integers(0, 2**64 - 1, -(-rows * columns // 4), np.uint64, endpoint=True)
        kept = draws.view(np.uint16)[: rows * columns].reshape(rows, columns) >= _dropped_parts(
            dropout
        )
        remaining = value * (kept if value.ndim == 2 else kept[:, None])
        remaining *= _scale(dropout)
        return remaining

    def _backward(self, values: list[np.ndarray]) -> None:
        """Fill `gradients` from the layers' inputs and the gradient of the logits."""
        flow = values.pop()
        for layer in range(len(values) - 1, -1, -1):
            read, weights = values[layer], self.arrays[2 * layer]
            _outer(read, flow, self.gradients[2 * layer])
            flow.sum(axis=0, out=self.gradients[2 * layer + 1])
            if layer:
                turned = np.matmul(flow.transpose(1, 0, 2), weights.transpose(1, 2, 0))
                flow = turned.transpose(1, 0, 2) * (read > 0)
                flow *= _scale(self.dropout[layer])


class Networks:
    """All heads that are trained together.

    Args:
        settings: One for each head.
        shared: What they share.
        features: D.
        classes: K.
        numbers: Class of each row that they will be trained on, (n,).
    """

    def __init__(
        self,
        settings: list[HeadSettings],
        shared: SharedSettings,
        features: int,
        classes: int,
        numbers: np.ndarray,
    ) -> None:
        sizes = [features, *shared.hidden, classes]
        alike: dict[tuple[tuple[float, ...], int], list[int]] = {}
        for member, setting in enumerate(settings):
            alike.setdefault((setting.dropout, setting.seed), []).append(member)
        self.count = len(settings)
        weights = class_weights(shared.class_weight, numbers, classes)
        self.groups = [
            Group(settings, members, shared, sizes, weights) for members in alike.values()
        ]

    def train(self, source: Iterator[FeatureBatch], steps: int) -> np.ndarray:
        """Take steps; return the mean log-loss and accuracy on their batches, (heads, 2).

        They are what Keras prints: each batch as the head saw it, before the step, with dropout.
        """
        sums = np.zeros((self.count, 2))
        # a head of too high a rate may diverge; it is evaluated accordingly
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for _ in range(steps):
                batch = next(source)
                for group in self.groups:
                    sums[group.members] += np.stack(group.step(batch), axis=1)
        return sums / steps

    def evaluate(self, X: Rows, truth: np.ndarray, metric: Metric = TOP1) -> np.ndarray:
        """Return log-loss, accuracy and merit on rows (n, D) float32 of classes `truth` (n,), (heads, 3).

        A head that has diverged has the log-loss infinity, the accuracy 0 and the merit -infinity; so
        has one that was dropped.
        """
        found = np.tile([np.inf, 0.0, -np.inf], (self.count, 1))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for group in self.groups:
                found[group.members] = _evaluate(group, X, truth, metric)
        return found

    def keep(self, survivors: set[int]) -> None:
        """Drop all other heads."""
        for group in self.groups:
            group.keep(survivors)
        self.groups = [group for group in self.groups if group.members]

    def arrays(self, member: int) -> list[np.ndarray]:
        """Return copies of a head's weights (I, O) and biases (O,), layer by layer."""
        group = next(group for group in self.groups if member in group.members)
        place = group.members.index(member)
        arrays = [array[..., place, :].copy() for array in group.optimizer.means]
        arrays[-1] += group.prior
        return arrays


def first_weights(sizes: list[int], heads: int, seed: int) -> list[np.ndarray]:
    """Return the arrays of untrained heads, all of them equal.

    The last layer starts from zero: it is then neither right nor wrong about any class, and softmax
    regression, which is convex, has nothing to unlearn. Layers before it start as Keras starts them
    (Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, uniform).
    """
    generator = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        bound = np.sqrt(6 / (inputs + outputs)) if layer < len(sizes) - 2 else 0.0
        drawn = generator.uniform(-bound, bound, (inputs, 1, outputs)).astype(np.float32)
        arrays += [np.repeat(drawn, heads, axis=1), np.zeros((heads, outputs), np.float32)]
    return arrays


def _scale(dropout: float) -> np.float32:
    """Return the factor that makes up for the inputs that are dropped."""
    return np.float32(PARTS / (PARTS - _dropped_parts(dropout)))


def _dropped_parts(dropout: float) -> int:
    return min(round(dropout * PARTS), PARTS - 1)


def _pairs(arrays: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def _product(value: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (B, D) or (B, H, I) times (I, H, O): (B, H, O)."""
    inputs, heads, outputs = weights.shape
    if value.ndim == 2:  # all heads read the same: one wide product
        return (value @ weights.reshape(inputs, -1)).reshape(len(value), heads, outputs)
    out = np.empty((len(value), heads, outputs), np.float32)
    np.matmul(value.transpose(1, 0, 2), weights.transpose(1, 0, 2), out=out.transpose(1, 0, 2))
    return out


def _outer(read: np.ndarray, flow: np.ndarray, out: np.ndarray) -> None:
    """Write the gradient of the weights (I, H, O) from what was read and the outputs' gradient."""
    if read.ndim == 2:
        np.matmul(read.T, flow.reshape(len(flow), -1), out=out.reshape(len(out), -1))
    else:
        np.matmul(read.transpose(1, 2, 0), flow.transpose(1, 0, 2), out=out.transpose(1, 0, 2))


def _evaluate(group: Group, X: Rows, truth: np.ndarray, metric: Metric) -> np.ndarray:
    width = sum(array.shape[1] for array in group.arrays[1::2]) * len(group.members)
    rows = max(1, BLOCK_NUMBERS // width)
    loss, right = np.zeros(len(group.members)), np.zeros(len(group.members))
    for start in range(0, len(X), rows):
        scores = group.scores(X[start : start + rows])
        own = truth[start : start + rows]
        right += (scores.argmax(axis=2) == own[:, None]).sum(axis=0)
        scores -= scores.max(axis=2, keepdims=True)
        true = scores[np.arange(len(own)), :, own].astype(np.float64)
        loss += (np.log(np.exp(scores, out=scores).sum(axis=2)) - true).sum(axis=0)
    sound = np.isfinite(loss)
    loss, right = np.where(sound, loss / len(X), np.inf), np.where(sound, right / len(X), 0.0)
    values = {"top1": right, "log-loss": loss}.get(metric.name)
    if values is None:  # of all rows of a head at once
        values = np.full(len(loss), np.nan)
        for place in np.flatnonzero(sound):
            logits = scratch((len(X), group.arrays[-1].shape[1]), np.float32)
            for block in blocks(X):
                logits[block] = group.scores(X[block], int(place))[:, 0]
            values[place] = metric.value_of_logits(truth, logits)
    return np.stack([loss, right, [metric.merit(value) for value in values]], axis=1)
