"""What each part of an augmentation is worth: the table and its statistics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.artifacts import Artifact, record
from onepass.classify.metrics import confidence_interval, mcnemar
from onepass.finetune.recipes import Augmentation, recipe_name_today

ABLATION = "ablation.json"  # under runs/<data set>/finetune
EVERYTHING = "everything"


@record
class AblationLine:
    """What short runs without a part of the augmentation reached, beside those with all parts.

    Attributes:
        left_out: A part; "" for none of them, `EVERYTHING` for all of them.
        selection_accuracy: On the selection split, 0 … 1, mean of the seeds.
        interval: 95 % bootstrap interval over the selection images.
        difference: Accuracy less that with all parts; None in the line with all parts.
        difference_interval: Its 95 % bootstrap interval; None there as well.
        p_value: Sign test over the images that the two get right unequally often (McNemar's test with
            one seed); None there as well.
        epochs: Of each run.
        rows: Images that each run was trained on.
        seconds: Of training, all seeds together.
    """

    left_out: str
    selection_accuracy: float
    interval: tuple[float, float]
    difference: float | None
    difference_interval: tuple[float, float] | None
    p_value: float | None
    epochs: int
    rows: int
    seconds: float


@record
class Ablation(Artifact):
    """`runs/<data set>/finetune/ablation.json`: short runs with all parts, and with each part left out.

    Attributes:
        dataset: Name of the data set.
        start: Features and head that every run started from.
        recipe: Name of the recipe.
        augmentation: All parts.
        seeds: Runs per line.
        epochs: Of each run.
        rows: As `--rows` said; 0 for all.
        lines: All parts first, then each left out, then everything left out.
    """

    dataset: str
    start: str
    recipe: str
    augmentation: Augmentation
    seeds: int
    epochs: int
    rows: int
    lines: tuple[AblationLine, ...]

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 0 had the first names of three recipes."""
        return {**value, "recipe": recipe_name_today(value["recipe"])}


@dataclass(frozen=True, slots=True)
class AblationResult:
    """What `onepass finetune ablate` did.

    Attributes:
        path: Of `ablation.json`.
        start: Features and head that every run started from.
        lines: Those of the file.
        stopped: Why it is not complete; "" if it is.
    """

    path: Path
    start: str
    lines: tuple[AblationLine, ...]
    stopped: str


def compare_line(
    part: str, values: np.ndarray, reference: np.ndarray, *, epochs: int, rows: int, seconds: float
) -> AblationLine:
    """Return the line of the table for one part.

    Args:
        part: What is left out; "" for nothing.
        values: (n,) share of the seeds that had each selection image right.
        reference: (n,) the same with all parts.
        epochs, rows, seconds: Those of the line.
    """
    apart = values - reference
    return AblationLine(
        left_out=part, selection_accuracy=float(values.mean()), interval=confidence_interval(values),
        difference=float(apart.mean()) if part else None,
        difference_interval=confidence_interval(apart, bounds=(-1, 1)) if part else None,
        p_value=mcnemar(int(np.sum(apart > 0)), int(np.sum(apart < 0))) if part else None,
        epochs=epochs, rows=rows, seconds=seconds,
    )  # fmt: skip


def line_title(part: str) -> str:
    """Return what the runs of a line have, in words."""
    return f"without {part}" if part else "with all parts"
