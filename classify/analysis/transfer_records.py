"""What `onepass classify transfer` finds and leaves.

`runs/<data set>/transferability.json` holds a `TransferResult`, field by field, with `format`,
`version` and `made_by`. FORMAT is the number of this layout.
"""

import logging
from dataclasses import dataclass, fields
from pathlib import Path

from scipy.stats import kendalltau, spearmanr

from onepass.cache.errors import OnepassError
from onepass.cache.files import read_json

log = logging.getLogger(__name__)

FORMAT = 1
VERSION = 1  # raised when the same vectors would be scored otherwise
FEWEST = 3  # feature sets that a rank agreement takes
SCORES = ("logme", "h_score", "nce", "leep", "zero_training")


@dataclass(frozen=True, slots=True)
class FeatureScores:
    """What is said of one set of features, from training rows only; higher is better.

    Attributes:
        features: Key texts.
        digest: Of the vectors.
        width: Numbers of a vector.
        logme: Log-evidence of the labels, a row (nats).
        h_score: H-score with shrinkage, at most K - 1.
        shrinkage: Share of the identity in its covariance, 0 … 1.
        nce, leep: From the logits (nats, at most 0); None where no logits are stored.
        zero_training: Top-1 of the backbone's own classes among those that the data set has, on the
            training rows of these; None without logits or without such classes.
        mapped_classes: How many of the classes are ImageNet's.
        seconds: Wall time.
        probe: Id of the best probe of these features on the leaderboard, or None.
        head: Its kind.
        selection_top1: Its accuracy on the selection split.
    """

    features: tuple[str, ...]
    digest: str
    width: int
    logme: float
    h_score: float
    shrinkage: float
    nce: float | None
    leep: float | None
    zero_training: float | None
    mapped_classes: int
    seconds: float
    probe: str | None = None
    head: str | None = None
    selection_top1: float | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a score orders the features that were probed, against the probes' selection accuracy.

    Attributes:
        score: Name of the score, a field of `FeatureScores`.
        count: How many sets of features have both.
        kendall: Kendall's τ-b, -1 … 1.
        spearman: Spearman's ρ, -1 … 1.
    """

    score: str
    count: int
    kendall: float
    spearman: float


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What is known of the features before a head is trained.

    Attributes:
        dataset: Name of the data set.
        dataset_digest: Its state.
        classes: How many classes it has.
        rows: Training rows that were read.
        scores: Best LogME first.
        agreement: One entry a score that three probed sets of features have.
        path: Where this result lies.
        ran: How many sets of features were scored now; the others were there.
        seconds: Wall time.
    """

    dataset: str
    dataset_digest: str
    classes: int
    rows: int
    scores: tuple[FeatureScores, ...]
    agreement: tuple[Agreement, ...]
    path: Path
    ran: int
    seconds: float


def agreements(scores: tuple[FeatureScores, ...]) -> tuple[Agreement, ...]:
    """Return how each score orders the features that were probed."""
    found = []
    for name in SCORES:
        pairs = [
            (getattr(one, name), one.selection_top1)
            for one in scores
            if getattr(one, name) is not None and one.selection_top1 is not None
        ]
        if len(pairs) < FEWEST or min(len(set(column)) for column in zip(*pairs, strict=True)) < 2:
            continue
        said, done = zip(*pairs, strict=True)
        tau, rho = kendalltau(said, done).statistic, spearmanr(said, done).statistic
        found.append(Agreement(name, len(pairs), round(float(tau), 3), round(float(rho), 3)))
    return tuple(found)


def stored_scores(path: Path, dataset_digest: str) -> dict[tuple[str, ...], FeatureScores]:
    """Return what was scored before, by key texts; nothing if that cannot be used."""
    if not path.exists():
        return {}
    try:
        value = read_json(path)
        wanted = (FORMAT, VERSION, dataset_digest)
        if (value["format"], value["version"], value["dataset_digest"]) != wanted:
            return {}
        names = {field.name for field in fields(FeatureScores)}
        entries = [{**e, "features": tuple(e["features"])} for e in value["scores"] if set(e) == names]  # fmt: skip
        return {entry["features"]: FeatureScores(**entry) for entry in entries}
    except (OnepassError, KeyError, TypeError, ValueError) as error:
        log.info(f"{path}: cannot be read ({error}); everything is scored again")
        return {}
