"""The leaderboard: every probe of a data set, ranked, with all that made its numbers.

`runs/<data set>/leaderboard.json` holds the figures, `heads/<probe id>/` the head itself
(`classify.heads.storage`), `probabilities.npz` and `calibration.json`.

FORMAT is the number of this layout. Whoever changes it raises it, keeps a reader of the old one,
and proves with a test that the old one is still read.
"""

from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    StaleError,
    unknown_name,
)
from cache.files import read_json, write_json

FORMAT = 2  # 1 knew no views, ensembles, calibration and seed of the board


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One head on one set of features, chosen and scored by the protocol.

    Attributes:
        id: Digest of everything the numbers depend on, behind the head's name.
        features: Key texts of the features, side by side where there are several; for a baseline
            what it looks at, such as "pixels@32".
        keys: The same keys in full (the fields of `cache.features.FeatureKey`); none for a baseline.
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
        temperature: Divides the logarithms of its probabilities (`classify.calibration`).
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
    """

    folder: Path
    dataset: str
    dataset_digest: str
    results: tuple[ProbeResult, ...] = ()
    seed: int = 0

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
        """The seed's probes, best first: by selection accuracy, then selection log-loss, then id."""
        return tuple(sorted((r for r in self._of_seed if not r.baseline), key=_rank))

    @property
    def baselines(self) -> tuple[ProbeResult, ...]:
        """The seed's floor lines, best first."""
        return tuple(sorted((r for r in self._of_seed if r.baseline), key=_rank))

    @property
    def other_seeds(self) -> dict[int, int]:
        """How many probes of each other seed are kept, floor lines apart."""
        kept = [r.seed for r in self.results if not r.baseline and r.seed != self.seed]
        return {seed: kept.count(seed) for seed in sorted(set(kept))}

    @property
    def _of_seed(self) -> list[ProbeResult]:
        return [result for result in self.results if result.seed == self.seed]

    @property
    def winner(self) -> ProbeResult:
        """The best probe; a baseline never wins.

        Raises:
            MissingFileError: There is no probe yet.
        """
        if not self.ranked:
            raise MissingFileError(
                f"{self.path}: no probe on features yet; run: {command(self.dataset)}"
            )
        return self.ranked[0]

    def find(self, probe: str) -> ProbeResult:
        """Return a probe by its id, or the winner for "best".

        Raises:
            UnknownNameError: There is none of that id; the nearest are named.
        """
        if probe == "best":
            return self.winner
        by_id = {result.id: result for result in self.results}
        if probe not in by_id:
            raise unknown_name("probe", probe, by_id)
        return by_id[probe]

    def head_folder(self, result: ProbeResult) -> Path:
        """Return where a probe's head and probabilities lie."""
        return self.folder / "heads" / result.id

    def holding(self, result: ProbeResult) -> "Leaderboard":
        """Return a leaderboard with one more result; it takes the place of one with the same id."""
        others = tuple(other for other in self.results if other.id != result.id)
        return replace(self, results=(*others, result))

    def save(self) -> None:
        """Write `leaderboard.json` atomically."""
        write_json(
            self.path,
            {
                "format": FORMAT,
                "dataset": self.dataset,
                "dataset_digest": self.dataset_digest,
                "seed": self.seed,
                "results": [asdict(result) for result in self.results],
            },
        )

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
            raise MissingFileError(f"{path}: no leaderboard yet; run: {command(dataset)}")
        value = read_json(path)
        try:
            if value["format"] not in (1, FORMAT):
                raise ValueError(f"format {value['format']}, this version reads 1 and {FORMAT}")
            read = ProbeResult.from_format_1 if value["format"] == 1 else ProbeResult.from_json
            results = tuple(read(result) for result in value["results"])
            last = results[-1].seed if results else 0
            seed = last if value["format"] == 1 else value["seed"]
            board = cls(folder, value["dataset"], value["dataset_digest"], results, seed)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptFileError(
                f"{path}: expected a leaderboard, but it cannot be read ({error}). "
                f"Start a new one with: {command(dataset)} --fresh"
            ) from error
        if (board.dataset, board.dataset_digest) != (dataset, dataset_digest):
            raise StaleError(
                f"{path}: made from {board.dataset} {board.dataset_digest[:8]}, but the data set is now "
                f"{dataset} {dataset_digest[:8]}. Start a new one with: {command(dataset)} --fresh"
            )
        return board


def features_text(features: tuple[str, ...], views: tuple[str, ...]) -> str:
    """Return key texts and views as `a@64 & b@64 with flip`."""
    return " & ".join(features) + (f" with {', '.join(views)}" if views else "")


def leaderboard_path(folder: Path) -> Path:
    """Return where the leaderboard of a data set's runs folder lies."""
    return folder / "leaderboard.json"


def command(dataset: str) -> str:
    """Return the command that fills a data set's leaderboard."""
    return f"python -m classify --dataset {dataset}"


def _rank(result: ProbeResult) -> tuple[float, float, str]:
    return -result.selection_top1, result.selection_log_loss, result.id
