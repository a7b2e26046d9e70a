"""What made a file of predictions: the JSON beside it."""

from pathlib import Path
from typing import Any, ClassVar

from onepass.cache.artifacts import Artifact, record
from onepass.cache.made_by import MadeBy
from onepass.classify.operating_points import OperatingPoint
from onepass.classify.prior import Prior


@record
class MemberRecord:
    """One model that predicted.

    Attributes:
        name: DATASET/PROBE or DATASET/RUN.
        views: In what ways a run looked at each image, "" being the whole one; none for a probe.
        weight: Its share in the average; 1 where it is alone.
        description: What it is, in words; "" in records of an early version.
        temperature: Divided the logarithms of its probabilities before they were averaged; 1 where it is alone.
    """

    name: str
    views: tuple[str, ...]
    weight: float
    description: str = ""
    temperature: float = 1.0


@record
class PredictionRecord(Artifact):
    """What made a file of predictions, and how good they are; `<file>.json` beside it.

    Attributes:
        dataset: Name of the data set.
        dataset_digest: Its state.
        split: Which rows were predicted, "val" or "test".
        rows: How many.
        file_format: How the file is written: "course", "kaggle", "csv" or "npz".
        members: The models.
        weights: "equal", or "learnt" on selection rows.
        temperature: Divided the logarithms of the probabilities, of an average those of the mean; 1.0 for none.
        learnt_on: Selection rows that weights and temperature were learnt on; 0 for none.
        note: That a run learnt from another state of the data set, or why nothing was learnt, where it was asked
            for; else "".
        val_top1: Accuracy on the validation split, 0 … 1; None for another split.
        val_interval: Its 95 % interval.
        log_loss: Mean negative log-probability of the true classes (nats); None for rows without labels.
        made_by: Who wrote it, when and with what.
        test_top1: Accuracy on the test split, 0 … 1; None where it was not asked for with --score.
        test_interval: Its 95 % interval.
        point: By which the classes were decided; None: the most probable class is the answer.
        prior: The mix of classes that the probabilities are for; None: that of the training images.
        selection_top1: Accuracy on the selection rows that no member was trained on, 0 … 1, by weights that were learnt on
            others of them (cross-fitted): models are chosen by it. None where there are none.
        selection_interval: Its 95 % interval.
    """

    FORMAT: ClassVar[int] = 4
    # 3 had neither selection accuracy nor temperatures of members, 2 no prior, 1 no operating point
    SAME_SINCE: ClassVar[int] = 1

    dataset: str
    dataset_digest: str
    split: str
    rows: int
    file_format: str
    members: tuple[MemberRecord, ...]
    weights: str
    temperature: float
    learnt_on: int
    note: str
    val_top1: float | None
    val_interval: tuple[float, float] | None
    log_loss: float | None
    made_by: MadeBy
    test_top1: float | None = None
    test_interval: tuple[float, float] | None = None
    point: OperatingPoint | None = None
    prior: Prior | None = None
    selection_top1: float | None = None
    selection_interval: tuple[float, float] | None = None

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """In format 0 the file's format stood in "format", and the scores of unlabelled rows were left out."""
        unscored = {"val_top1": None, "val_interval": None, "log_loss": None}
        kept = {name: item for name, item in value.items() if name != "format"}
        return {**unscored, **kept, "file_format": value["format"]}


def record_path(answers: Path) -> Path:
    """Return where the record of a file of predictions lies."""
    return answers.with_name(answers.name + ".json")
