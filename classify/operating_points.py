"""Operating points: from which probability on an image is called positive.

One class is the positive one, all others together are the negative ones. The threshold is chosen on rows that
the model was not fitted on, the selection split, so that what is promised holds for new images of the same kind.
"""

import logging
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from scipy.stats import beta
from sklearn.model_selection import StratifiedKFold

from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import InvalidInputError, UsageError
from onepass.classify.goals import CostGoal, Goal, RateGoal
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import FOLDS, LEVEL, Detection, detection
from onepass.classify.protocol.evaluate import find_positive, selected_on
from onepass.data.dataset import ImageDataset

log = logging.getLogger(__name__)

EPSILON = 1e-9  # 20 · (1 - 0.95) is 1.0000000000000009
NEVER = float(np.nextafter(np.float16(1), np.float16(2)))  # a threshold that no probability reaches

Rule = Callable[[np.ndarray, np.ndarray], float]


@record
class OperatingPoint(Artifact):
    """`heads/<probe id>/operating_point.json`: a threshold, what it was chosen for, and what it gives.

    Attributes:
        goal: What was to be reached.
        positive, name: Id of the positive class, and its name in words.
        threshold: An image is called positive from this probability on; both are compared in half precision,
            in which probabilities are stored.
        positives, negatives: Selection rows that it was chosen on.
        expected: Where the rate lies for new images of the same kind in 95 of 100 such choices, 0 … 1; None
            for a precision or a cost.
        validation: What it gives on the validation split; None where that has no rows.
        prior_odds: What the odds of the positive class in the probabilities that it decides on were multiplied by
            (`--prior`); the threshold is for probabilities of the training mix, so that the rates stay what they are.
    """

    NAME: ClassVar[str] = "operating_point.json"
    FORMAT: ClassVar[int] = 2
    SAME_SINCE: ClassVar[int] = 0  # format 1 was always for the training mix

    goal: Goal
    positive: str
    name: str
    threshold: float
    positives: int
    negatives: int
    expected: tuple[float, float] | None
    validation: Detection | None
    prior_odds: float = 1.0

    @property
    def threshold_in_use(self) -> float:
        """The threshold of the probabilities that it decides on."""
        threshold = min(self.threshold, 1.0)  # NEVER is above
        weighed = threshold * self.prior_odds
        return weighed / (weighed + 1 - threshold)

    def decide(self, probabilities: np.ndarray, class_ids: list[str]) -> np.ndarray:
        """Return the column that each row is given, (n,) int64.

        The positive class from the threshold on; below it the most probable of the others.

        Args:
            probabilities: (n, K).
            class_ids: Of the K columns.
        """
        column = class_ids.index(self.positive)
        scores, others = probabilities[:, column], probabilities.copy()
        if self.prior_odds != 1:  # back to the training mix
            scores = scores / (scores + self.prior_odds * np.delete(others, column, 1).sum(axis=1))
        others[:, column] = -1
        called = called_positive(scores, self.threshold)
        return np.where(called, column, others.argmax(axis=1))


def operating_point(
    goal: Goal,
    positive: tuple[str, str],
    selection: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray] | None,
    prior_odds: float = 1.0,
) -> OperatingPoint:
    """Choose the threshold on the selection rows, and count what it gives on the validation rows.

    Args:
        goal: What is to be reached.
        positive: Id and name of the positive class.
        selection: Probability of the positive class of each selection row, by a model that was not fitted on
            it, (n,), and whether it is positive, bool (n,).
        validation: The same of the validation rows, by the model as it is used; None where there are none.
        prior_odds: How many times as many positive images, for each negative one, there are in use as among these
            rows. Sensitivity and specificity do not depend on it; a precision and a cost are promised in use.

    Raises:
        InvalidInputError: There are too few rows to promise it, or no threshold reaches it.
    """
    scores, truth = stored(selection[0]), selection[1]
    positives, negatives = int(truth.sum()), int((~truth).sum())
    threshold, expected = _threshold(goal, scores, truth, prior_odds)
    found = validation and detection(validation[1], called_positive(validation[0], threshold))
    return OperatingPoint(
        goal, *positive, threshold, positives, negatives, expected, found, prior_odds
    )


def choose_point(
    goal: Goal,
    column: int,
    dataset: ImageDataset,
    held_out: np.ndarray,
    selection: np.ndarray,
    val: np.ndarray,
    prior_odds: float = 1.0,
) -> OperatingPoint:
    """Choose the operating point of a model of a data set.

    Args:
        goal: What is to be reached.
        column: Of the positive class.
        dataset: Gives the labels.
        held_out: Training rows that the model was not fitted on when it gave `selection`, (n,).
        selection: Their probabilities, (n, K).
        val: Probabilities of the validation rows, (m, K); m may be 0.
        prior_odds: As in `operating_point`.

    Raises:
        InvalidInputError: As `operating_point`.
    """
    truth = dataset.labels == column
    validation = (val[:, column], truth[dataset.rows("val")]) if len(val) else None
    names = dataset.class_ids[column], dataset.class_names[column]
    scores = selection[:, column], truth[held_out]
    return operating_point(goal, names, scores, validation, prior_odds)


def choose_for_winner(
    board: Leaderboard, dataset: ImageDataset, goal: Goal, column: int
) -> OperatingPoint:
    """Choose the operating point of the leaderboard's winner, from the probabilities that are kept with it.

    Raises:
        InvalidInputError: As `operating_point`.
        CorruptFileError: The probabilities cannot be read.
    """
    kept = load_probabilities(board.head_folder(board.winner), board.winner.rows)
    held_out = selected_on(dataset, board.winner)
    return choose_point(goal, column, dataset, held_out, kept.selection, kept.val)


def carry_point(
    before: Leaderboard | None, board: Leaderboard, dataset: ImageDataset
) -> OperatingPoint | None:
    """Choose for a new winner what the winner before it promised, so that a better probe does not drop the promise.

    Args:
        before: The leaderboard as it was, perhaps of the state before of the data set; None where there was none.
        board: The leaderboard as it is.
        dataset: Gives the labels.

    Returns:
        The operating point of the winner; None where there was none, or where its goal cannot be promised now,
        which is logged.
    """
    path = board.head_folder(board.winner) / OperatingPoint.NAME
    own = OperatingPoint.read_optional(path)
    if own or before is None or not before.ranked:
        return own
    kept = OperatingPoint.read_optional(before.head_folder(before.winner) / OperatingPoint.NAME)
    if kept is None or kept.positive not in dataset.class_ids:
        return None
    column = dataset.class_ids.index(kept.positive)
    try:
        point = choose_for_winner(board, dataset, kept.goal, column)
    except InvalidInputError as error:
        log.warning(f"{board.winner.id} has no operating point, as {before.winner.id} had: {error}")
        return None
    point.write(path)
    return point


def positive_column(dataset: ImageDataset, name: str = "") -> int:
    """Return the column of the positive class, by its name or id; without one, of the rarer of two.

    Raises:
        UnknownNameError: There is no such class.
        UsageError: There are more than two classes, and none is named.
    """
    column = find_positive(dataset, name)
    if column is None:
        raise UsageError(
            f"--at: expected --positive CLASS beside it, as {dataset.name} has more than two classes"
        )
    return column


def stored(scores: np.ndarray) -> np.ndarray:
    """Return probabilities as they are when they were stored, float64."""
    return scores.astype(np.float16).astype(np.float64)


def called_positive(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return whether each probability (n,) reaches the threshold, bool (n,)."""
    return stored(scores) >= threshold


def _threshold(
    goal: Goal, scores: np.ndarray, positive: np.ndarray, prior_odds: float
) -> tuple[float, tuple[float, float] | None]:
    if isinstance(goal, CostGoal):  # a miss counts as often as there are positive images
        in_use = CostGoal(goal.false_alarm, goal.miss * prior_odds)
        return least_cost(in_use, scores, positive), None
    if goal.kind == "sensitivity":
        return conformal_sensitivity(goal, scores[positive])
    if goal.kind == "specificity":
        return conformal_specificity(goal, scores[~positive])
    return precision_threshold(goal, scores, positive, prior_odds), None


def conformal_sensitivity(
    goal: RateGoal, positives: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Return the threshold that a new positive image reaches with the probability that is asked for.

    The k-th smallest of the n scores, k = ⌊(n + 1)(1 − share)⌋. If the n images and the new one are
    exchangeable, the new one lies below it with a probability of at most k / (n + 1), whatever the model and
    the distribution (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; for one class
    at a time: Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers With Bounded Error Levels",
    JASA 114, 2019). That probability is a mean over choices of the n images: that of one choice is a draw from
    Beta(n + 1 − k, k) (Vovk, "Conditional Validity of Inductive Conformal Predictors", ACML 2012).

    Two things are beyond the guarantee: the head is fitted again on all training rows after the choice, and
    its hyper-parameters were chosen on the same rows.

    Args:
        goal: Its share is what is promised.
        positives: Scores of the positive selection rows, (n,).

    Returns:
        The threshold, and the 95 % interval of its sensitivity.

    Raises:
        InvalidInputError: There are too few rows.
    """
    n, k = len(positives), _rank(goal, "positive", len(positives))
    return float(np.sort(positives)[k - 1]), _beta_interval(n, k)


def conformal_specificity(
    goal: RateGoal, negatives: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Return the lowest threshold that a new negative image stays below with the probability that is asked for.

    The same as for the sensitivity, from the other end: just above the k-th largest of the n scores.
    """
    n, k = len(negatives), _rank(goal, "negative", len(negatives))
    highest = np.float16(np.sort(negatives)[n - k])
    return float(np.nextafter(highest, np.float16(np.inf))), _beta_interval(n, k)


def _rank(goal: RateGoal, kind: str, rows: int) -> int:
    """Return k of `conformal_sensitivity`, after checking that there are rows enough."""
    rank = int((rows + 1) * (1 - goal.share) + EPSILON)
    if rank < 1:
        least = int(np.ceil(goal.share / (1 - goal.share) - EPSILON))
        raise InvalidInputError(
            f"--at {goal}: expected at least {least} {kind} selection rows to promise it by, received {rows}; "
            "promise less, choose by folds (--select folds), or label more"
        )
    return rank


def _beta_interval(n: int, k: int) -> tuple[float, float]:
    low, high = beta.interval(LEVEL, n + 1 - k, k)
    return float(low), float(high)


def precision_threshold(
    goal: RateGoal, scores: np.ndarray, positive: np.ndarray, prior_odds: float = 1.0
) -> float:
    """Return the lowest threshold that keeps the share of false alarms among the rows called positive.

    The lowest threshold that just reaches a precision on some rows was lucky there and falls short on others.
    One false alarm more is counted than there were, so that the share of false alarms among the new images
    called positive is at most 1 − share on average, where none is called it counts as 0 (the "+ 1" of Barber and
    Candès, "Controlling the False Discovery Rate via Knockoffs", Annals of Statistics 43, 2015, and of conformal
    selection: Jin and Candès, "Selection by Prediction with Conformal p-values", JMLR 24, 2023).

    Args:
        goal: Its share is what is promised.
        scores: (n,) of all selection rows.
        positive: Whether each is positive, bool (n,).
        prior_odds: As in `operating_point`: so many does each positive row stand for.

    Raises:
        InvalidInputError: No threshold does.
    """
    thresholds, true, false = _counts(scores, positive)
    reached = prior_odds * true / (prior_odds * true + false + 1)
    precise = np.flatnonzero(reached >= goal.share - EPSILON)
    if not len(precise):
        raise InvalidInputError(
            f"--at {goal}: no threshold reaches it on the {len(scores):,} selection rows, the best one can "
            f"promise {np.floor(1000 * reached.max()) / 1000:g}; promise less"
        )
    return float(thresholds[precise[-1]])


def least_cost(goal: CostGoal, scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the threshold of least mean cost.

    If the probabilities are true, it is FP / (FP + FN) (Elkan, "The Foundations of Cost-Sensitive Learning",
    IJCAI 2001). The threshold of least cost on the selection rows takes its place where such thresholds, chosen on
    four fifths of the rows, cost less on the other fifth.

    Args:
        goal: The costs.
        scores: (n,) of all selection rows.
        positive: Whether each is positive, bool (n,).
    """
    by_theory = float(stored(np.array(goal.false_alarm / (goal.false_alarm + goal.miss))))

    def rule(scores: np.ndarray, positive: np.ndarray) -> float:
        thresholds, true, false = _counts(scores, positive)
        costs = goal.false_alarm * false - goal.miss * true
        return float(thresholds[costs.argmin()])

    crossed = detection(positive, cross_fitted(rule, scores, positive, goal))
    if mean_cost(goal, crossed) < mean_cost(goal, detection(positive, scores >= by_theory)):
        return rule(scores, positive)
    return by_theory


def mean_cost(goal: CostGoal, found: Detection, prior_odds: float = 1.0) -> float:
    """Return the cost per row, where each positive row stands for `prior_odds` of them."""
    rows = prior_odds * found.sensitivity.rows + found.specificity.rows
    misses = prior_odds * found.false_negative
    return (goal.false_alarm * found.false_positive + goal.miss * misses) / rows


def cross_fitted(
    rule: Rule, scores: np.ndarray, positive: np.ndarray, goal: Goal, seed: int = 0
) -> np.ndarray:
    """Return which rows are called positive by thresholds that were chosen on the other folds, bool (n,).

    Raises:
        InvalidInputError: There are fewer positive or negative rows than folds.
    """
    fewest = int(min(positive.sum(), (~positive).sum()))
    if fewest < FOLDS:
        raise InvalidInputError(
            f"--at {goal}: expected at least {FOLDS} positive and {FOLDS} negative selection rows, received "
            f"{int(positive.sum())} and {int((~positive).sum())}; label more"
        )
    called = np.zeros(len(scores), bool)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for others, own in folds.split(scores, positive):
        called[own] = scores[own] >= rule(scores[others], positive[others])
    return called


def _counts(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every threshold, NEVER and then downwards, with the true and false positives from it on."""
    thresholds = np.append(NEVER, np.unique(scores)[::-1])
    true, false = (
        len(part) - np.searchsorted(np.sort(part), thresholds, side="left")
        for part in (scores[positive], scores[~positive])
    )
    return thresholds, true, false
