"""Settings of small networks, and the rows of each training step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onepass.classify.heads.lazy_rows import Rows


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """What may differ between heads that are trained together.

    Attributes:
        learning_rate: Of the optimiser.
        dropout: Share of the inputs that a step leaves out, one for each layer, in [0, 1).
        l1, l2: `l1 · Σ|w| + l2 · Σw²` is added to the loss.
        seed: Of first weights and dropout.
    """

    learning_rate: float
    dropout: tuple[float, ...]
    l1: float = 0.0
    l2: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SharedSettings:
    """What heads that are trained together share.

    Attributes:
        hidden: Outputs of each layer (ReLU) before the last.
        optimizer: "adam" or "sgd".
        batch_size: Rows of a step, about; see `steps_of`.
        label_smoothing: Share of each target that is spread over all classes.
        mixup: α of Zhang et al.; 0 mixes nothing.
        order: Seed of the order of the rows, and of mixup.
        ema: Momentum of the exponential moving average of the weights, which is the head; 0: the head is
            the weights of the last step.
        class_weight: See `onepass.classify.heads.class_weight`.
    """

    hidden: tuple[int, ...] = ()
    optimizer: str = "adam"
    batch_size: int = 256
    label_smoothing: float = 0.0
    mixup: float = 0.0
    order: int = 0
    ema: float = 0.0
    class_weight: str | None = None


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Rows of one step.

    Attributes:
        X: (B, D) float32.
        truth: (B,) class of each row.
        partner: (B,) class of the row mixed into it; the row's own where none is.
        share: Of the row itself in the mixture, 0.5 … 1.
    """

    X: np.ndarray
    truth: np.ndarray
    partner: np.ndarray
    share: float


def steps_of(rows: int, batch_size: int) -> int:
    """Return the steps of an epoch: 32 at least, as far as a step keeps 16 rows."""
    return max(1, round(rows / batch_size), min(32, rows // 16))


def batches(
    X: Rows,
    numbers: np.ndarray,
    shared: SharedSettings,
    skip: int = 0,
    steps: int | None = None,
) -> Iterator[FeatureBatch]:
    """Yield the steps of one epoch after the other, without end.

    The rows are shuffled globally: they lie in the order of their classes. An epoch is a whole
    number of equal steps; the few rows left over differ from epoch to epoch. Rows are mixed with
    their neighbours in the shuffled order, one share a step (Zhang, Cisse, Dauphin and Lopez-Paz,
    "mixup", ICLR 2018, there on pixels).

    Args:
        X: Standardised features (n, D) float32.
        numbers: (n,) classes.
        shared: Batch size, mixup, seed.
        skip: Steps that were taken before: their random draws are repeated, their rows are not read.
        steps: Of an epoch (default: `steps_of` them).
    """
    generator = np.random.default_rng(shared.order)
    steps = steps or steps_of(len(X), shared.batch_size)
    size, share = len(X) // steps, 1.0
    while True:
        order = generator.permutation(len(X))
        for step in range(steps):
            if shared.mixup:
                share = float(generator.beta(shared.mixup, shared.mixup))
                share = max(share, 1 - share)
            if skip:
                skip -= 1
                continue
            rows = order[step * size : (step + 1) * size]
            part, truth = X[rows], numbers[rows]
            partner = truth
            if shared.mixup:
                part *= np.float32(share)
                part += np.float32(1 - share) * X[np.roll(rows, 1)]
                partner = np.roll(truth, 1)
            yield FeatureBatch(part, truth, partner, share)
