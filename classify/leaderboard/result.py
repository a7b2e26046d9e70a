"""One line of the leaderboard: a probe, or an ensemble of probes, and all that made its numbers."""

from dataclasses import field
from typing import Any

from onepass.cache.artifacts import record
from onepass.cache.errors import InvalidInputError
from onepass.cache.features import FeatureKey
from onepass.cache.made_by import MadeBy
from onepass.cache.names import check_name
from onepass.classify.config import MetricName, Select
from onepass.classify.intervals import Estimate
from onepass.classify.metrics import METRICS
from onepass.data.views import views_text


@record
class TrialRecord:
    """One setting of a head's hyper-parameters, evaluated on the selection split.

    Attributes:
        params: The hyper-parameters.
        accuracy: Top-1, 0 … 1.
        log_loss: In nats.
    """

    params: dict[str, Any]
    accuracy: float
    log_loss: float


@record
class CalibrationErrors:
    """Expected calibration error on the validation split, 0 … 1, before and after temperature scaling."""

    before: float
    after: float


@record
class RowCounts:
    """How many rows a probe was fitted on, selected on and so on.

    Attributes:
        fit, selection: The two parts of the training rows.
        train: Both together.
        val, test: Of these splits; test may be 0.
    """

    fit: int
    selection: int
    train: int
    val: int
    test: int

    @property
    def select(self) -> Select:
        """How choices were made: with folds all training rows are fitted on as well."""
        return "folds" if self.fit == self.train else "split"


@record
class ProbeResult:
    """One head on one set of features, chosen and scored by the protocol.

    Attributes:
        id: Digest of everything the numbers depend on, behind the head's name.
        features: Key texts of the features, side by side where there are several; for a baseline
            what it looks at, such as "pixels@32".
        keys: The same keys in full, those of the views after the plain ones; none for a baseline.
        head: Kind of head.
        params: The hyper-parameters that were chosen.
        trials: Every setting tried, in order.
        selection_top1: Accuracy on the selection split, 0 … 1.
        selection_log_loss: Log-loss there (nats); settles ties.
        val_top1: Accuracy on the validation split, 0 … 1.
        val_interval: Its 95 % interval.
        val_top5: Share of validation rows with the true class among the five most probable; None
            where there are five classes or fewer.
        seconds: Wall time of the probe.
        seed: Of selection split, head and interval.
        budget: How far the hyper-parameters were searched.
        converged: Whether the solver reached its tolerance.
        baseline: Whether it is a baseline and cannot win.
        dataset_digest: Of the data set.
        features_digest: Of the vectors.
        rows: How many rows each step read.
        made_by: Who wrote it, when and with what.
        views: Other views of the images that it was fitted on and whose mean it predicts.
        members: Weight of each probe of an ensemble, by its id; empty for a probe.
        temperature: Divides the logarithms of its probabilities (`onepass.classify.metrics.apply_temperature`).
        calibration: None in results of an older version.
        scoring: The how-manyth model of its kind on its features that the validation split was shown.
        metric: What it was chosen by, and is ranked by.
        positive: Class that AUROC and average precision are of; "" for the mean over all.
        scores: Every metric on the validation split, by name, with its 95 % interval; empty in results of an
            older version. One that has no meaning there is left out.
        class_weight: How the head was fitted (`onepass.classify.heads.class_weight`); None: all rows alike.
        selection_value: The metric on the selection split; None: `selection_top1`.
    """

    id: str
    features: tuple[str, ...]
    keys: tuple[FeatureKey, ...]
    head: str
    params: dict[str, Any]
    trials: tuple[TrialRecord, ...]
    selection_top1: float
    selection_log_loss: float
    val_top1: float
    val_interval: tuple[float, float]
    val_top5: float | None
    seconds: float
    seed: int
    budget: str
    converged: bool
    baseline: bool
    dataset_digest: str
    features_digest: str
    rows: RowCounts
    made_by: MadeBy
    views: tuple[str, ...] = ()
    members: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    calibration: CalibrationErrors | None = None
    scoring: int = 1
    metric: MetricName = "top1"
    positive: str = ""
    selection_value: float | None = None
    class_weight: str | None = None
    scores: dict[str, Estimate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        low, high = self.val_interval
        shares = (self.selection_top1, self.val_top1, low, high, self.val_top5 or 0.0)
        if not all(0 <= share <= 1 for share in shares) or low > high:
            raise InvalidInputError(
                f"probe {self.id}: expected accuracies in 0 … 1, received {shares}"
            )
        check_name("probe id", self.id, InvalidInputError)
        if not self.temperature > 0:
            raise InvalidInputError(
                f"probe {self.id}: expected a temperature above 0, received {self.temperature}"
            )

    @property
    def head_text(self) -> str:
        """The kind of head, and its class weights: `logistic, balanced`."""
        return ", ".join(filter(None, [self.head, self.class_weight]))

    @property
    def chosen_by(self) -> tuple[str, str]:
        """The metric, and the class that it is of: probes are ranked among those of the same."""
        return (self.metric, self.positive if METRICS[self.metric].one_class else "")

    @property
    def value(self) -> float:
        """The metric on the selection split."""
        return self.selection_top1 if self.selection_value is None else self.selection_value

    @property
    def merit(self) -> float:
        """The same, the greatest the best."""
        return METRICS[self.metric].merit(self.value)

    @property
    def features_text(self) -> str:
        """The key texts, joined by " & ", and their views."""
        return features_text(self.features, self.views)


def features_text(features: tuple[str, ...], views: tuple[str, ...]) -> str:
    """Return key texts and views as `a@64 & b@64 with flip`."""
    return " & ".join(features) + (f" with {views_text(views)}" if views else "")
