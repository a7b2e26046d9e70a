"""What `onepass classify inspect` finds and leaves.

`runs/<data set>/inspection.json` holds an `Inspection`, field by field, with `format` and `made_by`.
Rows are rows of the data set, classes are labels (indices of its class ids and names). FORMAT is the
number of this layout.
"""

from dataclasses import dataclass
from pathlib import Path

from onepass.classify.analysis.duplicates import Pair

FORMAT = 1


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A row whose label is probably wrong.

    Attributes:
        row: Row of the data set.
        name: File name.
        split: "train" or "val".
        given: Its class.
        suggested: The class that it looks like.
        given_probability, suggested_probability: Of these classes, by a head that has not seen the row.
        score: 0 … 1, lower is worse: cleanlab's normalised margin.
    """

    row: int
    name: str
    split: str
    given: int
    suggested: int
    given_probability: float
    suggested_probability: float
    score: float


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Likely label errors of one split.

    Attributes:
        split: "train" or "val".
        rows: How many rows were judged.
        suspected: How many are likely errors.
        accuracy: Top-1 of the head that judged them, on these rows.
        judge: What head judged them.
        worst: The likeliest errors, worst first.
    """

    split: str
    rows: int
    suspected: int
    accuracy: float
    judge: str
    worst: tuple[LabelIssue, ...]


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Images that are there twice.

    Attributes:
        counts: How many rows of each split have a near-duplicate among the training rows.
        exact: How many of them have every pixel in common with one.
        conflicts: How many pairs carry different labels (test rows have none).
        pairs: The most alike pairs; those between splits first, as they leak.
    """

    counts: dict[str, int]
    exact: dict[str, int]
    conflicts: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Outlier:
    """A row that is far from every training row.

    Attributes:
        row: Row of the data set.
        name: File name.
        split: Its split.
        label: Its class, -1 where unknown.
        distance: 1 - cosine to its tenth nearest training row, 0 … 2.
    """

    row: int
    name: str
    split: str
    label: int
    distance: float


@dataclass(frozen=True, slots=True)
class ClassReport:
    """How one class fares.

    Attributes:
        label: The class.
        id, name: Its identity, its name for people.
        train_rows, val_rows: How many images it has.
        train_accuracy: Share of its training rows that are right when left out.
        val_accuracy: Share of its reported rows that the probe has right; None without any.
        taken_for: The class that its reported rows are most often taken for, or None.
    """

    label: int
    id: str
    name: str
    train_rows: int
    val_rows: int
    train_accuracy: float
    val_accuracy: float | None
    taken_for: int | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """Two classes that the probe mixes up on the reported rows.

    Attributes:
        first, second: The classes.
        first_as_second, second_as_first: How many rows of one were taken for the other.
        share: Of the two classes' rows, 0 … 1.
    """

    first: int
    second: int
    first_as_second: int
    second_as_first: int
    share: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a probe's features say about the data.

    Attributes:
        dataset: Name of the data set.
        dataset_digest: Its state.
        probe: Id of the probe.
        features: Key texts whose vectors were compared.
        head: Kind of the probe's head.
        val_top1: Its accuracy on the reported rows.
        class_names: Names for people, by label.
        labels: Likely label errors of the training rows and of the reported rows.
        duplicates: Images that are there twice.
        outliers: The rows farthest from the training rows, farthest first.
        classes: Every class, the worst on the reported rows first.
        confusions: The most confused pairs of classes, most first.
        path: Where this result lies.
        seconds: Wall time.
    """

    dataset: str
    dataset_digest: str
    probe: str
    features: tuple[str, ...]
    head: str
    val_top1: float
    class_names: tuple[str, ...]
    labels: tuple[LabelReport, ...]
    duplicates: DuplicateReport
    outliers: tuple[Outlier, ...]
    classes: tuple[ClassReport, ...]
    confusions: tuple[Confusion, ...]
    path: Path
    seconds: float
