"""What a run of fine-tuning found: `result.json` in its folder, once it is finished."""

from pathlib import Path
from typing import Any, ClassVar

from onepass.cache.artifacts import Artifact, record
from onepass.cache.notebook import as_html
from onepass.finetune.recipes import Recipe, recipe_name_today
from onepass.finetune.session.history import EpochRow, SelectionScore

RESULT = "result.json"


@record
class FinetuneResult(Artifact):
    """What `onepass finetune` did; `result.json` in the run's folder, once the run is finished.

    Attributes:
        run: DATASET/RUN, as `onepass predict` takes it.
        folder: Where everything of the run lies; the file holds its name only.
        start: Features and head that it started from, or the earlier run and its features.
        warm_start_difference: Largest difference of a logit before step 1 from the probe's, or the earlier run's;
            None where the head started at random, or that run learnt from another state of the data set.
        history: One row per finished epoch.
        stopped: Why training stopped before its end; "" if it did not.
        probe_top1: Accuracy of the frozen probe on the validation split, 0 … 1.
        val_top1: Accuracy of the fine-tuned network there; None where training is not finished.
        val_interval: Its 95 % interval.
        p_value: McNemar's test against the probe.
        seconds: Of this process.
        recipe: Its name.
        settings: The recipe with what the flags changed; None in results of an early version.
        unfrozen: What was trained: "all", "last:N" or "from:LAYER".
        from_scratch: Whether the backbone started from random weights.
        trained_rows: How many images were trained on; 0 in results of an early version.
        selection_rows: How many the epoch was chosen on; 0 where nothing was chosen.
        ended: Why there were no more epochs.
        kept: Which weights were kept, in words.
        kept_epochs: Their epochs; 0 is the start, before step 1.
        selection_top1: Accuracy of the kept weights on the selection split; None where nothing was chosen.
        images_per_second: Speed of training in the process that finished it.
        devices: What it ran on.
        gpu_use: Mean use of the GPUs while it trained, 0 … 1; None where it is not known.
        probe: Id of the probe that it started from; "" in results of an early version.
        start_selection: How the network did on the selection split before step 1; None where that did
            not count.
        test_rows: How many images the data set has to be predicted; 0 in results of an early version.
        from_run: DATASET/RUN of the run whose network it went on from; "" where it started from the probe.
    """

    FORMAT: ClassVar[int] = 3
    SAME_SINCE: ClassVar[int] = 1  # knew no probe, and did not evaluate the start; 2: no run before

    run: str
    folder: Path
    start: str
    warm_start_difference: float | None
    history: tuple[EpochRow, ...]
    stopped: str
    probe_top1: float
    val_top1: float | None = None
    val_interval: tuple[float, float] | None = None
    p_value: float | None = None
    seconds: float = 0.0
    recipe: str = "default"
    settings: Recipe | None = None
    unfrozen: str = "all"
    from_scratch: bool = False
    trained_rows: int = 0
    selection_rows: int = 0
    ended: str = ""
    kept: str = ""
    kept_epochs: tuple[int, ...] = ()
    selection_top1: float | None = None
    images_per_second: float | None = None
    devices: tuple[str, ...] = ()
    gpu_use: float | None = None
    probe: str = ""
    start_selection: SelectionScore | None = None
    test_rows: int = 0
    from_run: str = ""

    def _repr_html_(self) -> str:
        from onepass.finetune.text import train_text

        return as_html(train_text(self))

    @property
    def gain(self) -> float | None:
        """Validation accuracy less that of the frozen probe; None before it is scored."""
        return None if self.val_top1 is None else self.val_top1 - self.probe_top1

    @property
    def kept_start(self) -> bool:
        """Whether the kept weights are those before step 1."""
        return self.kept_epochs == (0,)

    @property
    def kept_another(self) -> bool:
        """Whether the kept weights are those of the run that it went on from."""
        return self.kept_start and bool(self.from_run)

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 0 had null for an empty list, and the first names of three recipes."""
        lists = {name: value.get(name) or [] for name in ("kept_epochs", "devices")}
        return {**value, **lists, "recipe": recipe_name_today(value.get("recipe", "default"))}
