"""What a sweep leaves in `runs/<data set>/sweeps/<id>.json`."""

from collections.abc import Sequence
from typing import Any, ClassVar

from onepass.cache.artifacts import Artifact, record
from onepass.cache.made_by import MadeBy
from onepass.classify.leaderboard.result import RowCounts, features_text
from onepass.classify.search.learning_curve import CurvePoint, LearningCurve


@record
class BestEpoch:
    """The checkpoint at which a head was best.

    Attributes:
        epochs: After how many.
        accuracy: Top-1 on the selection split, 0 … 1; of several views each is an image of its own.
        log_loss: There (nats), likewise.
        train_accuracy: Top-1 of the epoch's training steps, with dropout.
    """

    epochs: int
    accuracy: float
    log_loss: float
    train_accuracy: float


@record
class HeadOfSweep:
    """What became of one head.

    Attributes:
        params: The hyper-parameters that differ between the heads.
        rank: From 1, by the best checkpoint; heads that were dropped before their first checkpoint
            come last, by how far they came.
        best: None where there was no checkpoint.
        history: Its learning curve.
    """

    params: dict[str, Any]
    rank: int
    best: BestEpoch | None
    history: tuple[CurvePoint, ...]


@record
class Rung:
    """How many heads were trained up to which epoch (a fraction inside one)."""

    heads: int
    epoch: float


@record
class TrainingPlan:
    """Epochs of the heads that are never dropped; one head of `keep` stayed after each rung."""

    epochs: int
    keep: int


@record
class SweepRecord(Artifact):
    """One sweep on one set of features.

    Attributes:
        id: Digest of everything the numbers depend on, behind the head's name.
        dataset, dataset_digest, features, features_digest, seed, rows, made_by: As in `ProbeResult`.
        head: Kind of head.
        fixed: Its hyper-parameters that are equal in all heads.
        plan: How long the heads were trained.
        rungs: Of successive halving.
        heads: In the order of the grid.
        probe: Id of the best head on the leaderboard; its validation accuracy stands there only.
        seconds: Wall time of sweep, refit and scoring.
        views: As in `ProbeResult`. The best head predicts with their mean, and was chosen among all checkpoints by it.
    """

    FORMAT: ClassVar[int] = 2
    SAME_SINCE: ClassVar[int] = 1  # format 1 had no views

    id: str
    dataset: str
    dataset_digest: str
    features: tuple[str, ...]
    features_digest: str
    head: str
    fixed: dict[str, Any]
    plan: TrainingPlan
    rungs: tuple[Rung, ...]
    heads: tuple[HeadOfSweep, ...]
    probe: str
    seed: int
    rows: RowCounts
    seconds: float
    made_by: MadeBy
    views: tuple[str, ...] = ()

    @property
    def features_text(self) -> str:
        """The key texts, joined by " & ", and their views."""
        return features_text(self.features, self.views)

    @property
    def best(self) -> HeadOfSweep:
        """The head of rank 1."""
        return min(self.heads, key=lambda head: head.rank)


def heads_of_sweep(
    params: Sequence[dict[str, Any]], curves: Sequence[LearningCurve]
) -> tuple[HeadOfSweep, ...]:
    """Return what became of each head, ranked."""

    def order(place: int) -> tuple[float, ...]:
        last, best = curves[place].points[-1], curves[place].best
        if best is None:
            return (1, -last.epoch, -last.merit, place)
        return (0, -best.merit, best.loss, place)

    ranked = sorted(range(len(curves)), key=order)
    rank = {place: number for number, place in enumerate(ranked, 1)}
    return tuple(
        HeadOfSweep(own, rank[place], _best_epoch(curve), tuple(curve.points))
        for place, (own, curve) in enumerate(zip(params, curves, strict=True))
    )


def _best_epoch(curve: LearningCurve) -> BestEpoch | None:
    best = curve.best
    if best is None:
        return None
    trained = {point.epoch: point.train_accuracy for point in curve.points}
    return BestEpoch(best.epochs, best.accuracy, best.loss, trained[best.epochs])
