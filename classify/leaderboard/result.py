"""One line of the leaderboard: a probe, or an ensemble of probes, and all that made its numbers."""

from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from onepass.cache.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One head on one set of features, chosen and scored by the protocol.

    Attributes:
        id: Digest of everything the numbers depend on, behind the head's name.
        features: Key texts of the features, side by side where there are several; for a baseline
            what it looks at, such as "pixels@32".
        keys: The same keys in full (the fields of `onepass.cache.features.FeatureKey`); none for a baseline.
        head: Kind of head.
        params: The hyper-parameters that were chosen.
        path: Every setting tried: {"params", "accuracy", "log_loss"}.
        selection_top1: Accuracy on the selection split, 0 … 1; what the ranking goes by.
        selection_log_loss: Log-loss there (nats); settles ties.
        val_top1: Accuracy on the reported split, 0 … 1.
        val_interval: Its 95 % bootstrap interval.
        val_top5: Share of reported rows with the true class among the five most probable; None
            where there are five classes or fewer.
        seconds: Wall time of the probe.
        seed: Of selection split, head and bootstrap.
        budget: How far the hyper-parameters were walked.
        converged: Whether the solver reached its tolerance.
        baseline: Whether it is a floor line and cannot win.
        dataset_digest: Of the data set.
        features_digest: Of the vectors.
        rows: How many rows were fitted on, selected on, and so on.
        made_by: Command, time, machine, versions.
        views: Other views of the images that it was fitted on and whose mean it predicts.
        members: Ids of the probes that an ensemble asks; none for a probe.
        temperature: Divides the logarithms of its probabilities (`onepass.classify.metrics.apply_temperature`).
        calibration: Expected calibration error on the reported rows, {"before", "after"}; None in
            results of an older version.
        scoring: The how-manyth model of its kind on its features that the reported rows were shown.
    """

    id: str
    features: tuple[str, ...]
    keys: tuple[dict[str, Any], ...]
    head: str
    params: dict[str, Any]
    path: tuple[dict[str, Any], ...]
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
    rows: dict[str, int]
    made_by: dict[str, Any]
    views: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    temperature: float = 1.0
    calibration: dict[str, float] | None = None
    scoring: int = 1

    def __post_init__(self) -> None:
        low, high = self.val_interval
        shares = (self.selection_top1, self.val_top1, low, high, self.val_top5 or 0.0)
        if not all(0 <= share <= 1 for share in shares) or low > high:
            raise InvalidInputError(
                f"probe {self.id}: expected accuracies in 0 … 1, received {shares}"
            )
        if not self.id or "/" in self.id or self.id.startswith("."):
            raise InvalidInputError(f"probe id {self.id!r}: expected a plain name")
        if not self.temperature > 0:
            raise InvalidInputError(
                f"probe {self.id}: expected a temperature above 0, received {self.temperature}"
            )

    @property
    def features_text(self) -> str:
        """The key texts, joined by " & ", and their views."""
        return features_text(self.features, self.views)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the result that `dataclasses.asdict` and JSON stored."""
        wanted = {field.name for field in fields(cls)}
        if set(value) != wanted:
            raise ValueError(f"expected the fields {sorted(wanted)}, received {sorted(value)}")
        names = ("features", "keys", "path", "val_interval", "views", "members")
        return cls(**{**value, **{name: tuple(value[name]) for name in names}})

    @classmethod
    def from_format_1(cls, value: dict[str, Any]) -> Self:
        """Return the result that the first format stored: what came later is at its default."""
        known = {field.name for field in fields(cls) if field.default is MISSING}
        if set(value) != known:
            raise ValueError(f"expected the fields {sorted(known)}, received {sorted(value)}")
        later = {f.name: f.default for f in fields(cls) if f.default is not MISSING}
        return cls.from_json({**value, **later})


def features_text(features: tuple[str, ...], views: tuple[str, ...]) -> str:
    """Return key texts and views as `a@64 & b@64 with flip`."""
    return " & ".join(features) + (f" with {', '.join(views)}" if views else "")
