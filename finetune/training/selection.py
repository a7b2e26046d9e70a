"""Which weights are kept: evaluated on the selection split, averaged where that helps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from onepass.cache.memory_map import release
from onepass.cache.progress import Progress
from onepass.classify import config
from onepass.classify.metrics import TOP1, accuracy, log_loss, softmax
from onepass.classify.protocol.evaluate import SELECTION_FRACTION
from onepass.finetune.recipes import Recipe
from onepass.finetune.session.checkpoint import load_variables, named_variables, save_variables
from onepass.finetune.session.history import SelectionScore
from onepass.finetune.training import hosts
from onepass.finetune.training.batches import Examples
from onepass.finetune.training.step import EvalStep

BATCH = 64
QUICK = 5.0  # seconds of an evaluation that need no progress line


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the kept weights are.

    Attributes:
        epochs: Whose weights they are; the mean of several. 0 is the network before its first step.
        accuracy: On the selection split, 0 … 1; None where nothing was chosen.
        loss: Cross-entropy there (nats).
        why: In words.
        logits: Of the selection rows, (n, K) float32; None where they were not computed with these weights, or from
            the rounded outputs of frozen layers.
    """

    epochs: tuple[int, ...]
    accuracy: float | None
    loss: float | None
    why: str
    logits: np.ndarray | None = None


class Evaluator:
    """Accuracy, loss and merit of a network on the selection rows.

    Args:
        predictor: uint8 (B, H, W, C) → logits (B, K); its variables may change between calls.
        examples: With selection rows, and what is chosen by.

    Attributes:
        logits: What the network said at the last call, (n, K) float32; None before, or where the outputs of frozen
            layers were looked up, which are rounded.
    """

    def __init__(self, predictor: keras.Model, examples: Examples) -> None:
        assert examples.selection is not None
        self.pixels, self.labels, self.rows = examples.pixels, examples.labels, examples.selection
        self.metric, self.frozen = examples.metric, examples.frozen
        self.logits: np.ndarray | None = None
        self.step = EvalStep(predictor if self.frozen is None else self.frozen.network)

    def __call__(self) -> SelectionScore:
        """Return how the network does as it is."""
        if self.frozen:
            self.frozen.compute(self.rows, np.zeros_like(self.rows))
        logits, truth = hosts.by_shares(self._logits, self.rows), self.labels[self.rows]
        self.logits = None if self.frozen else logits
        merit = None
        if self.metric.name != TOP1.name:
            chances = softmax(logits.astype(np.float64))
            merit = self.metric.merit(self.metric.value(truth, chances))
        return SelectionScore(
            accuracy(truth, logits.argmax(axis=1)), log_loss(truth, logits), merit
        )

    def _logits(self, wanted: np.ndarray) -> np.ndarray:
        """Return what the network says of rows, (n, K)."""
        parts = []
        with Progress(len(wanted), "images", "evaluation", after=QUICK) as progress:
            for first in range(0, len(wanted), BATCH):
                rows = wanted[first : first + BATCH]
                padded = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows))])
                seen = self.frozen.maps(padded) if self.frozen else self.pixels[padded]
                parts.append(np.asarray(self.step(seen))[: len(rows)])
                release(self.pixels[rows.min() : rows.max() + 1])
                progress.advance(len(rows))
        return np.concatenate(parts)


def only_the_last(rows: np.ndarray | None, recipe: Recipe) -> bool:
    """Return whether the last epoch is kept, and the selection split only tells it from the start.

    Where the rate falls to 0 the last epochs are nearly alike, and the last is what the schedule was made for. The best
    of many on a few hundred rows is a lucky one: it was worse than the last on new images
    (`benchmarks/RESULTS.md`).
    """
    few = rows is not None and len(rows) < SELECTION_FRACTION * config.FEW_ROWS
    return few and recipe.schedule == "cosine" and not recipe.patience


class BestEpochs:
    """The weights of the best epochs, one file per epoch.

    Args:
        folder: Where they lie.
        predictor: Whose weights they are.
        count: How many are kept.
    """

    def __init__(self, folder: Path, predictor: keras.Model, count: int) -> None:
        self.folder, self.predictor, self.count = folder, predictor, count

    def keep(self, epoch: int, scores: Mapping[int, SelectionScore]) -> None:
        """Write the model's weights as those of an epoch, if it is among the best.

        Args:
            epoch: Just finished.
            scores: Of all epochs so far, the best first.
        """
        if epoch in self._kept(scores):
            save_variables(self._path(epoch), {"model": named_variables(self.predictor)}, {})

    def tidy(self, scores: Mapping[int, SelectionScore]) -> None:
        """Delete the files of epochs that are no longer among the best."""
        wanted = {self._path(epoch) for epoch in self._kept(scores)}
        for path in self.folder.glob("epoch-*.npz"):
            if path not in wanted:
                path.unlink(missing_ok=True)  # another process may have

    def soup(self, scores: Mapping[int, SelectionScore], evaluate: Evaluator) -> Chosen:
        """Average the kept weights greedily into the model (Wortsman et al., ICML 2022, recipe 1).

        From the best epoch downwards, each is added to the mean if what is chosen by does not fall.

        Args:
            scores: How each epoch alone did, by its number, the best first.
            evaluate: Says how a mean does.
        """
        named = named_variables(self.predictor)
        variables = list(named.values())
        taken: list[int] = []
        mean: list[np.ndarray] = []
        best, logits = SelectionScore(0.0, np.inf), None
        for epoch in self._kept(scores):
            load_variables(self._path(epoch), {"model": named})
            one = [np.asarray(v) for v in variables]
            n = len(taken)
            trial = [(m * n + w) / (n + 1) for m, w in zip(mean, one, strict=True)] if n else one
            if not n:  # it was evaluated when it ended
                taken, mean, best = [epoch], trial, scores[epoch]
                continue
            _assign(variables, trial)
            score = evaluate()
            if score.order >= best.order:
                taken, mean, best, logits = [*taken, epoch], trial, score, evaluate.logits
        _assign(variables, mean)
        taken.sort()
        return Chosen(tuple(taken), best.accuracy, best.loss, _in_words(taken), logits)

    def _kept(self, scores: Mapping[int, SelectionScore]) -> list[int]:
        return [*scores][: self.count]

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:03d}.npz"


def _in_words(epochs: list[int]) -> str:
    if epochs == [0]:
        return "epoch 0, the start: no epoch did better on the selection split"
    names = ", ".join(map(str, epochs))
    return f"best epoch, {names}" if len(epochs) == 1 else f"mean of the weights of epochs {names}"


def _assign(variables: list, values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value.astype(variable.dtype))
