"""Hyper-parameter search: heads are fitted on one part of the training rows and compared on another.

A `Search` says what is searched; a strategy, a function of it, says how. Each kind of head has one
(`onepass.classify.search.strategies`), so that what a head can share between its settings, such as one
decomposition for all penalties, is shared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args

import numpy as np
from sklearn.base import clone

from onepass.cache.errors import InvalidInputError
from onepass.classify.config import Budget
from onepass.classify.heads.base import Head, brief
from onepass.classify.heads.lazy_rows import Rows
from onepass.classify.metrics import TOP1, Metric, accuracy, log_loss
from onepass.classify.search.strategies import find_strategy

AnyHead = TypeVar("AnyHead", bound=Head)
Note = Callable[[str], None]
BUDGETS: tuple[Budget, ...] = get_args(Budget)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to fit heads on, and rows to compare them on.

    Attributes:
        X, y: Features (n, D) and labels (n,) to fit on.
        X_selection, y_selection: Features (m, D) and labels (m,) to compare on.
    """

    X: Rows
    y: np.ndarray
    X_selection: Rows
    y_selection: np.ndarray


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of a head's hyper-parameters, evaluated on the selection rows.

    Attributes:
        params: The hyper-parameters that were tried.
        accuracy: Top-1 on the selection rows, 0 … 1.
        log_loss: Mean negative log-probability of the true class there (nats); settles ties.
        merit: What is chosen by, the greatest the best (`onepass.classify.metrics.Metric.merit`).
        head: The head, fitted with them.
    """

    params: dict[str, Any]
    accuracy: float
    log_loss: float
    merit: float
    head: Head

    @classmethod
    def of(
        cls,
        head: Head,
        params: dict[str, Any],
        truth: np.ndarray,
        logits: np.ndarray,
        metric: Metric = TOP1,
    ) -> "Trial":
        """Evaluate what a head says of rows.

        Args:
            head: Fitted.
            params: Its hyper-parameters, as far as they were searched.
            truth: Column of the true class of each row, (m,).
            logits: (m, K).
            metric: What is chosen by.
        """
        share, loss = accuracy(truth, logits.argmax(axis=1)), log_loss(truth, logits)
        known = {"top1": share, "log-loss": loss}
        if metric.name in known:
            value = known[metric.name]
        else:
            value = metric.value_of_logits(truth, logits)
        return cls(params, share, loss, metric.merit(value), head)

    def __str__(self) -> str:
        words = brief(self.params)
        return (words and words + ": ") + f"selection top-1 {100 * self.accuracy:.1f} %"


@dataclass(frozen=True, slots=True)
class Search(Generic[AnyHead]):
    """What is searched: a head's hyper-parameters, on a split, as far as a budget allows.

    Attributes:
        head: Gives the kind, and the hyper-parameters that are not searched.
        split: Rows to fit on and rows to compare on.
        budget: "quick" or "full": how far and how finely the strategy of the head's kind searches.
        note: Called with each trial as text.
        metric: What the settings are compared by.
    """

    head: AnyHead
    split: Split
    budget: Budget = "quick"
    note: Note | None = None
    metric: Metric = TOP1

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            raise InvalidInputError(
                f"budget: expected {' or '.join(BUDGETS)}, received {self.budget!r}"
            )

    def run(self) -> list[Trial]:
        """Return the trials, the most regularised first."""
        return find_strategy(self.head.kind)(self)

    def prepare(self) -> tuple[AnyHead, Rows, np.ndarray]:
        """Check the rows to fit on.

        Returns:
            A copy of the head that knows the classes, the rows' features as floats (n, D), and their
            class numbers (n,), indices into the head's `classes_`.
        """
        head = clone(self.head)
        X, numbers = head.check_training(self.split.X, self.split.y)
        return head, X, numbers

    def evaluate(
        self, head: Head, params: dict[str, Any], logits: np.ndarray | None = None
    ) -> Trial:
        """Evaluate a fitted head on the selection rows.

        Args:
            head: Fitted on the split.
            params: Its hyper-parameters, as far as they were searched.
            logits: What it says of the selection rows, (m, K), where that is known already.
        """
        scores = head.logits(self.split.X_selection) if logits is None else logits
        truth = np.searchsorted(head.classes_, self.split.y_selection)
        trial = Trial.of(head, params, truth, scores, self.metric)
        if self.note:
            self.note(str(trial))
        return trial


Strategy = Callable[[Search[Any]], list[Trial]]


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the best trial by the metric; ties go to the lower log-loss, then to the earlier."""
    return min(trials, key=lambda trial: (-trial.merit, trial.log_loss))
