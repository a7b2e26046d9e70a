"""Everything the commands of `onepass classify` can be told."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from onepass.cache.commandline.flags import ClusterConfig, RunsConfig, flag, parse_bytes
from onepass.cache.errors import UsageError
from onepass.cache.tracking import LOG_HELP, LogName
from onepass.classify.goals import GOAL_HELP, parse_goal

Budget = Literal["quick", "full"]
Select = Literal["split", "folds"]
SelectOrAuto = Literal["auto", "split", "folds"]
NextRule = Literal["margin", "k-center", "both", "typical"]
Method = Literal["average", "stack"]
METHODS: tuple[Method, ...] = get_args(Method)
MetricName = Literal["top1", "balanced", "macro-f1", "auroc", "average-precision", "log-loss"]
ClassWeight = Literal["none", "balanced", "uncorrected"]

FEW_ROWS = 2_000  # training rows that a metric is of: of fewer, a tenth is too small to choose on

CLASS_WEIGHT_HELP = (
    "balanced: each class counts the same while a head learns, and its probabilities are brought back to the "
    "training mix; uncorrected: they are left as if every class were equally frequent"
)
METRIC_HELP = (
    "what is chosen and ranked by, on the selection split: top1, balanced (accuracy), macro-f1, auroc, "
    "average-precision or log-loss"
)
SELECT_HELP = (
    "split: a tenth of the training rows is held out for every choice; folds: each of them once, five times the "
    f"work; auto: folds where there are fewer than {FEW_ROWS:,}, or of a rare class that the metric is of"
)
VIEWS_HELP = (
    "stored views of the same images, such as flip, or symmetries: heads learn from all of them and predict "
    "with their mean"
)
POSITIVE_HELP = "class that auroc and average-precision are of (default: the rarer of two; the mean over all of more)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig(RunsConfig):
    """How much memory the work may take, for the commands that read many rows."""

    memory: float | None = flag(
        None,
        "how much the work may take, such as 2GB: what has no room in it is read block by block, again and again "
        "(default: half of what is free)",
        metavar="SIZE",
        parse=parse_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbingConfig(MemoryConfig, ClusterConfig):
    """Who does the work of the commands that fit many heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyConfig(ProbingConfig):
    """Which heads to try on which features; each field is the flag of the same name."""

    dataset: str = flag(help="name of a prepared data set", metavar="NAME")
    features: tuple[str, ...] = flag(
        (),
        "feature keys such as efficientnet_lite0@128; KEY,KEY puts two side by side "
        "(default: each that is stored, of the image as it is)",
        metavar="KEY",
    )
    views: tuple[str, ...] = flag((), VIEWS_HELP, metavar="VIEW")
    head: tuple[str, ...] = flag(
        ("centroid", "lda", "ridge", "logistic", "dense", "knn"),
        "kinds of head to try",
        metavar="HEAD",
    )
    baselines: Literal["few", "all"] = flag(
        "few",
        "few: largest class and linear on pixels; all: also a random guess, the backbone's own classes, "
        "a single-layer network and a small convolutional one on pixels",
    )
    metric: MetricName = flag("top1", METRIC_HELP)
    positive: str = flag("", POSITIVE_HELP, metavar="CLASS")
    class_weight: ClassWeight = flag("none", CLASS_WEIGHT_HELP)
    budget: Budget = flag("quick", "how far hyper-parameters are searched")
    select: SelectOrAuto = flag("auto", SELECT_HELP)
    folds: int = flag(
        0,
        "cross-validate on the training rows in so many folds, instead of scoring the validation split",
    )
    repeats: int = flag(1, "how often the folds are dealt anew")
    seed: int = flag(0, "of the selection split, the folds, the heads and the intervals")
    at: str = flag(
        "",
        f"operating point of the winner, kept with it and used by predict and export: {GOAL_HELP}",
        metavar="GOAL",
    )
    log: tuple[LogName, ...] = flag((), LOG_HELP)
    fresh: bool = flag(
        False,
        "start a new leaderboard; the old one and its heads are deleted, but for those of earlier states of the data set",
    )

    def __post_init__(self) -> None:
        self.check_cluster()
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected a whole number, 0 or above")
        if self.folds < 0 or self.folds == 1 or self.repeats < 1:
            raise UsageError(
                f"--folds {self.folds} --repeats {self.repeats}: expected at least 2 folds and 1 repeat"
            )
        if self.repeats > 1 and not self.folds:
            raise UsageError(f"--repeats {self.repeats}: expected --folds as well")
        if self.folds and self.select != "auto":
            raise UsageError(
                f"--select {self.select}: expected no --folds, which scores every head in the same folds and chooses none"
            )
        if self.folds and self.log:
            raise UsageError("--log: expected no --folds, whose scores stand in folds.json only")
        _check_views(self.views)
        if self.at:
            parse_goal(self.at)
            if self.folds:
                raise UsageError(
                    f"--at {self.at}: expected no --folds, which chooses no winner to keep it with"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig(MemoryConfig):
    """Which probes are put together, and how; each field is the flag of the same name."""

    dataset: str = flag(help="name of a prepared data set", metavar="NAME")
    probe: tuple[str, ...] = flag(
        (),
        "ids of probes on the leaderboard (default: the best dozen, at most two heads on the same features, if possible of two kinds)",
        metavar="ID",
    )
    method: tuple[Method, ...] = flag(
        METHODS,
        "average: weighted mean of probabilities; stack: logistic regression on their logarithms",
    )
    metric: MetricName | None = flag(
        None, "what members were chosen by, and the ensemble is (default: the leaderboard's)"
    )
    positive: str = flag("", POSITIVE_HELP, metavar="CLASS")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveConfig(MemoryConfig):
    """Of which features and head the learning curve is measured."""

    dataset: str = flag(help="name of a prepared data set", metavar="NAME")
    features: tuple[str, ...] = flag(
        (),
        "feature keys, each with a curve of its own (default: each that is stored, of the image as it is)",
        metavar="KEY",
    )
    views: tuple[str, ...] = flag((), VIEWS_HELP, metavar="VIEW")
    head: str = flag("logistic", "kind of head", metavar="HEAD")
    metric: MetricName = flag(
        "top1", "top1, balanced (accuracy), macro-f1, auroc, average-precision or log-loss"
    )
    positive: str = flag("", POSITIVE_HELP, metavar="CLASS")
    seeds: int = flag(3, "how often the folds are dealt anew, two of which are held out")
    fresh: bool = flag(False, "measure again what was measured before")

    def __post_init__(self) -> None:
        _check_views(self.views)
        if self.seeds < 1:
            raise UsageError(f"--seeds {self.seeds}: expected a whole number, 1 or above")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferConfig(MemoryConfig):
    """Which features to score before anything is trained on them."""

    dataset: str = flag(help="name of a prepared data set", metavar="NAME")
    features: tuple[str, ...] = flag(
        (),
        "feature keys such as efficientnet_lite0@128; KEY,KEY puts two side by side "
        "(default: each that is stored, of the image as it is)",
        metavar="KEY",
    )
    fresh: bool = flag(False, "score again what was scored before")


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectConfig(MemoryConfig):
    """Which probe's features are asked what they say about the data."""

    dataset: str = flag(help="name of a prepared data set", metavar="NAME")
    probe: str = flag("best", "id of a probe on the leaderboard, or best", metavar="ID")
    top: int = flag(100, "how many rows or pairs each list holds at most")

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UsageError(f"--top {self.top}: expected a whole number, 1 or above")


@dataclass(frozen=True, slots=True, kw_only=True)
class NextConfig(MemoryConfig):
    """Which unlabelled images are chosen, and by which probe."""

    dataset: str = flag(help="name of a prepared data set with a leaderboard", metavar="NAME")
    from_: str = flag(
        "",
        "name of a prepared data set that holds the unlabelled images (default: the unlabelled ones of --dataset)",
        metavar="NAME",
    )
    count: int = flag(200, "how many to label next")
    by: NextRule = flag(
        "margin",
        "margin: those that the probe is least sure of; k-center: those that are least like what is known or chosen; "
        "both: the second among the first; typical: the most typical of each group of similar images, for a beginning",
    )
    probe: str = flag("best", "id of a probe on the leaderboard, or best", metavar="ID")

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"--count {self.count}: expected a whole number, 1 or above")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig(ProbingConfig):
    """Which heads are trained together: each combination of rate, penalty, dropout and seed."""

    dataset: str = flag(help="name of a prepared data set", metavar="NAME")
    features: tuple[str, ...] = flag(
        (),
        "feature keys, each swept by itself (default: each that is stored, of the image as it is)",
        metavar="KEY",
    )
    views: tuple[str, ...] = flag((), VIEWS_HELP, metavar="VIEW")
    head: Literal["dense", "mlp"] = flag("dense", "kind of head")
    learning_rate: tuple[float, ...] = flag((3e-4, 1e-3, 2e-3, 4e-3), "of the optimiser")
    penalty: tuple[str, ...] = flag(
        ("0", "l2:1e-3", "l2:4e-3", "l1:1e-4"), "on the weights: 0, l2:NUMBER or l1:NUMBER"
    )
    dropout: tuple[float, ...] = flag((0.4, 0.65), "share of the features that a step leaves out")
    seeds: tuple[int, ...] = flag((0, 1), "of first weights and dropout")
    optimizer: Literal["adam", "sgd"] = flag("adam", "sgd: Nesterov momentum 0.9")
    label_smoothing: float = flag(0.0, "share of a target that is spread over all classes")
    mixup: float = flag(0.0, "α of mixup between feature vectors; 0: none")
    ema: float = flag(0.99, "share of the weights' running mean that a step keeps; 0: no mean")
    batch_size: int = flag(256, "rows of a step, about")
    epochs: int = flag(20, "passes over the rows of the heads that are never dropped")
    keep: int = flag(
        4, "one head of so many stays after each rung of successive halving; 1: all stay"
    )
    metric: MetricName = flag("top1", METRIC_HELP)
    positive: str = flag("", POSITIVE_HELP, metavar="CLASS")
    class_weight: ClassWeight = flag("none", CLASS_WEIGHT_HELP)
    select: SelectOrAuto = flag("auto", SELECT_HELP)
    seed: int = flag(0, "of the selection split, the order of the rows and the interval")
    fresh: bool = flag(False, "run again what was run before or was interrupted")

    def __post_init__(self) -> None:
        for name in ("learning_rate", "penalty", "dropout", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise UsageError(f"--{name.replace('_', '-')}: expected each value once, received {values}")  # fmt: skip
        self.check_cluster()
        _check_views(self.views)
        if min(self.seed, *self.seeds) < 0:
            raise UsageError("--seed and --seeds: expected whole numbers, 0 or above")
        _ = self.penalties

    @property
    def penalties(self) -> tuple[tuple[float, float], ...]:
        """The (l1, l2) pair of each penalty."""
        return tuple(_penalty(text) for text in self.penalty)


def _check_views(views: tuple[str, ...]) -> None:
    if not all(views) or len(set(views)) < len(views):
        raise UsageError(f"--views {' '.join(views)!r}: expected each view once")


def _penalty(text: str) -> tuple[float, float]:
    kind, _, number = ("l2:" + text if ":" not in text else text).partition(":")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind not in ("l1", "l2") or not 0 <= value < math.inf:
        raise UsageError(f"--penalty {text}: expected 0, l2:NUMBER or l1:NUMBER, such as l2:1e-3")
    return (value, 0.0) if kind == "l1" else (0.0, value)
