"""The leaderboard: every probe of a data set, ranked, with all that made its numbers.

`runs/<data set>/leaderboard.json` holds the figures, `heads/<probe id>/` the head itself
(`onepass.classify.heads.storage`), `probabilities.npz` and `calibration.json`
(`onepass.classify.leaderboard.records`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    Remedy,
    StaleError,
    unknown_name,
)
from onepass.cache.features import key_of_format_1
from onepass.cache.locks import clear_leftovers, exclusive
from onepass.classify.config import MetricName, Select
from onepass.classify.leaderboard.result import ProbeResult
from onepass.classify.metrics import Metric


@record
class LeaderboardFile(Artifact):
    """`runs/<data set>/leaderboard.json`; the attributes are those of `Leaderboard`."""

    FORMAT: ClassVar[int] = 5
    SAME_SINCE: ClassVar[int] = 4  # which knew one metric only, top-1

    dataset: str
    dataset_digest: str
    seed: int
    results: tuple[ProbeResult, ...]
    metric: MetricName = "top1"
    positive: str = ""
    select: Select = "split"

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 1 had no views, ensembles, calibration and seed of the board.

        Format 2 had the weights of an ensemble's members among its hyper-parameters, and `path` for
        `trials`. Format 3 had the data set and its digest in every feature key.
        """
        results = [_result_of_format_3(dict(result)) for result in value["results"]]
        if found == 1:
            later = {
                "views": [],
                "members": [],
                "temperature": 1.0,
                "calibration": None,
                "scoring": 1,
            }
            results = [{**result, **later} for result in results]
            value = {**value, "seed": results[-1]["seed"] if results else 0}
        if found <= 2:
            results = [_result_of_format_2(dict(result)) for result in results]
        return {**value, "results": results}


def _result_of_format_3(result: dict[str, Any]) -> dict[str, Any]:
    """Return a line of format 3, or earlier, with the feature keys of format 4."""
    return {**result, "keys": [key_of_format_1(key) for key in result["keys"]]}


def _result_of_format_2(result: dict[str, Any]) -> dict[str, Any]:
    """Return a line of format 2 as one of format 3."""
    params = dict(result.pop("params"))
    weights = params.pop("weights") if result["members"] else {}
    trials = result.pop("path")
    return {**result, "params": params, "members": weights, "trials": trials}


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The probes of one state of one data set.

    Attributes:
        folder: `runs/<data set>`.
        dataset: Name of the data set.
        dataset_digest: Its state that all results belong to.
        results: In the order they were made.
        seed: The one that is ranked. Results of another seed were selected on other rows: they are
            kept, but their selection accuracy says nothing beside these.
        metric: The one that is ranked by. Results that were chosen by another one are kept likewise.
        positive: Class that AUROC and average precision are of; "" for the mean over all.
        select: Whether those are ranked that were chosen on the selection split, or by folds.
    """

    folder: Path
    dataset: str
    dataset_digest: str
    results: tuple[ProbeResult, ...] = ()
    seed: int = 0
    metric: MetricName = "top1"
    positive: str = ""
    select: Select = "split"

    def __post_init__(self) -> None:
        ids = [result.id for result in self.results]
        if len(set(ids)) < len(ids):
            raise InvalidInputError(f"{self.path}: expected each probe once, received {ids}")
        if any(result.dataset_digest != self.dataset_digest for result in self.results):
            raise InvalidInputError(f"{self.path}: expected probes of one state of the data set")

    @property
    def path(self) -> Path:
        """Where it lies."""
        return leaderboard_path(self.folder)

    @property
    def ranked(self) -> tuple[ProbeResult, ...]:
        """The probes of its seed and metric, best first; ties go to the lower selection log-loss, then by id."""
        return tuple(sorted((r for r in self._comparable if not r.baseline), key=_rank))

    @property
    def baselines(self) -> tuple[ProbeResult, ...]:
        """The baselines of its seed and metric, best first."""
        return tuple(sorted((r for r in self._comparable if r.baseline), key=_rank))

    @property
    def other_seeds(self) -> dict[int, int]:
        """How many probes of each other seed are kept, baselines apart."""
        kept = [r.seed for r in self.results if not r.baseline and r.seed != self.seed]
        return {seed: kept.count(seed) for seed in sorted(set(kept))}

    @property
    def other_metrics(self) -> dict[str, int]:
        """How many probes of its seed are kept that were chosen by each other metric, baselines apart."""
        kept = [
            " of ".join(filter(None, result.chosen_by))
            for result in self.results
            if not result.baseline
            and result.seed == self.seed
            and result.rows.select == self.select
            and not self.chosen_alike(result)
        ]
        return {metric: kept.count(metric) for metric in sorted(set(kept))}

    @property
    def _comparable(self) -> list[ProbeResult]:
        return [r for r in self.results if r.seed == self.seed and self.chosen_alike(r)]

    @property
    def other_rows(self) -> int:
        """How many probes of its seed are kept that were chosen on other rows: by folds, or not."""
        kept = (r for r in self.results if not r.baseline and r.seed == self.seed)
        return sum(r.rows.select != self.select for r in kept)

    def chosen_alike(self, result: ProbeResult) -> bool:
        """Say whether a probe was chosen by what the board ranks by."""
        metric, positive = result.chosen_by
        if result.rows.select != self.select:
            return False
        return metric == self.metric and positive in ("", self.positive)

    @property
    def winner(self) -> ProbeResult:
        """The best probe; a baseline never wins.

        Raises:
            MissingFileError: There is no probe yet.
        """
        if not self.ranked:
            raise MissingFileError(
                f"{self.path}: no probe on features yet", remedy=Remedy("classify", self.dataset)
            )
        return self.ranked[0]

    def get(self, probe: str) -> ProbeResult | None:
        """Return a probe by its id, or None."""
        return next((result for result in self.results if result.id == probe), None)

    def find(self, probe: str) -> ProbeResult:
        """Return a probe by its id, or the winner for "best".

        Raises:
            UnknownNameError: There is none of that id; the nearest are named.
        """
        if probe == "best":
            return self.winner
        if found := self.get(probe):
            return found
        raise unknown_name("probe", probe, [result.id for result in self.results])

    def ranked_by(self, metric: Metric, class_ids: Sequence[str]) -> "Leaderboard":
        """Return the same leaderboard, ranked by another metric."""
        positive = "" if metric.positive is None else class_ids[metric.positive]
        return replace(self, metric=metric.name, positive=positive)

    def head_folder(self, result: ProbeResult) -> Path:
        """Return where a probe's head and probabilities lie."""
        return self.folder / "heads" / result.id

    def holding(self, result: ProbeResult) -> "Leaderboard":
        """Return a leaderboard with one more result; it takes the place of one with the same id."""
        others = tuple(other for other in self.results if other.id != result.id)
        return replace(self, results=(*others, result))

    def save(self) -> None:
        """Write `leaderboard.json` atomically."""
        LeaderboardFile(
            self.dataset,
            self.dataset_digest,
            self.seed,
            self.results,
            self.metric,
            self.positive,
            self.select,
        ).write(self.path)

    @classmethod
    def load(cls, folder: Path, dataset: str, dataset_digest: str) -> Self:
        """Read a data set's leaderboard.

        Args:
            folder: `runs/<data set>`.
            dataset: Name of the data set.
            dataset_digest: Its digest today.

        Raises:
            MissingFileError: There is none yet.
            CorruptFileError: It is damaged.
            StaleError: It was made from another state of the data set.
        """
        path = leaderboard_path(folder)
        if not path.exists():
            raise MissingFileError(
                f"{path}: no leaderboard yet", remedy=Remedy("classify", dataset)
            )
        try:
            file = LeaderboardFile.read(path)
            board = cls(
                folder, file.dataset, file.dataset_digest, file.results,
                file.seed, file.metric, file.positive, file.select,
            )  # fmt: skip
        except (CorruptFileError, InvalidInputError) as error:
            raise CorruptFileError(str(error), remedy=Remedy("classify anew", dataset)) from error
        if (board.dataset, board.dataset_digest) != (dataset, dataset_digest):
            raise StaleError(
                f"{path}: made from {board.dataset} {board.dataset_digest[:8]}, but the data set is now "
                f"{dataset} {dataset_digest[:8]}",
                remedy=Remedy("classify", dataset),
            )
        return board


def leaderboard_path(folder: Path) -> Path:
    """Return where the leaderboard of a data set's runs folder lies."""
    return folder / "leaderboard.json"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the one process that writes leaderboard, heads and sweeps of a data set for as long as the block runs.

    Raises:
        LockedError: Another one does.
    """
    with exclusive(leaderboard_path(folder)):
        for owned in ("heads", "sweeps"):
            clear_leftovers(folder / owned)
        yield


def _rank(result: ProbeResult) -> tuple[float, float, str]:
    return -result.merit, result.selection_log_loss, result.id
