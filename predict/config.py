"""Everything the commands of `onepass predict` can be told."""

from dataclasses import dataclass
from pathlib import Path

from onepass.cache.commandline.flags import RunsConfig, flag
from onepass.cache.errors import UsageError

SPLITS = ("test", "val")
WEIGHTS = ("equal", "learnt")
ANSWER_FORMATS = ("course", "kaggle", "csv", "npz")
MODEL_FORMATS = ("keras", "saved_model", "onnx", "litert")
MODEL_HELP = "DATASET (the leaderboard's winner), DATASET/PROBE (also an ensemble) or DATASET/RUN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsConfig(RunsConfig):
    """Which models predict, and how several are put together."""

    models: tuple[str, ...] = flag(
        help=f"{MODEL_HELP}; several are averaged", positional=True, metavar="MODEL"
    )
    views: tuple[str, ...] = flag(
        (),
        "views of each image that a run averages with the whole image: flip, scale:FACTOR, "
        "crop:tl|tr|bl|br|center, five-crop",
        metavar="VIEW",
    )
    weights: str = flag(
        "equal",
        "of several models; learnt: on selection rows that none was trained on",
        choices=WEIGHTS,
    )
    temperature: bool = flag(
        True,
        "divide the logits by a temperature learnt on the selection rows, where some were held out",
    )

    def __post_init__(self) -> None:
        for model in self.models:
            check_model(model)
        if len(set(self.models)) < len(self.models):
            raise UsageError(f"{' '.join(self.models)}: expected each model once")
        if len({model.split("/")[0] for model in self.models}) != 1:
            raise UsageError(f"{' '.join(self.models)}: expected models of one data set")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig(ModelsConfig):
    """Which split is predicted, and how the answers are written."""

    split: str = flag("test", "the rows to predict", choices=SPLITS)
    score: bool = flag(
        False,
        "with --split test: how good the predictions are, by the labels of test/<class>/, which "
        "nothing else looks at",
    )
    format: str = flag(
        "course",
        "course: `test_0.JPEG n02…` lines; kaggle: CSV of file and class; "
        "csv: with class name and probability as well; npz: arrays with all probabilities",
        choices=ANSWER_FORMATS,
    )
    header: tuple[str, ...] = flag(
        ("Id", "Category"), "the two column names of --format kaggle", metavar="NAME"
    )
    out: Path | None = flag(
        None, "file to write (default: in the run's folder, else runs/DATASET/predictions/…)",
        metavar="FILE",
    )  # fmt: skip

    def __post_init__(self) -> None:
        ModelsConfig.__post_init__(self)
        if self.score and self.split != "test":
            raise UsageError(
                "--score: expected --split test; the validation split is always scored"
            )
        if len(self.header) != 2:
            raise UsageError(f"--header: expected two column names, received {len(self.header)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig(RunsConfig):
    """Which run becomes a model file for other programs, and of which kinds."""

    model: str = flag(help="DATASET/RUN, a fine-tuned run", positional=True, metavar="MODEL")
    format: tuple[str, ...] = flag(
        ("keras",), "kinds of model file; several at once", choices=MODEL_FORMATS
    )
    out: Path | None = flag(
        None, "folder to write into (default: export in the run's folder)", metavar="FOLDER"
    )

    def __post_init__(self) -> None:
        check_model(self.model)


def check_model(text: str) -> None:
    """Refuse what cannot name a model.

    Raises:
        UsageError: It is not DATASET, DATASET/PROBE or DATASET/RUN.
    """
    parts = text.split("/")
    if len(parts) > 2 or not all(parts):
        raise UsageError(f"{text!r}: expected {MODEL_HELP}")
