"""Everything the commands of `onepass predict` can be told."""

import re
from dataclasses import dataclass
from pathlib import Path

from onepass.cache.commandline.flags import RunsConfig, flag
from onepass.cache.errors import UsageError
from onepass.cache.names import check_name

SPLITS = ("test", "val")
WEIGHTS = ("equal", "learnt")
ANSWER_FORMATS = ("course", "kaggle", "csv", "npz")
MODEL_FORMATS = ("keras", "saved_model", "onnx", "litert")
OTHER_NAMES = {"tflite": "litert"}
MODEL_HELP = (
    "DATASET (the leaderboard's winner), DATASET#LINE (of the leaderboard, as it is numbered), DATASET/PROBE "
    "(also an ensemble), DATASET/HEAD (the best probe of that head) or DATASET/RUN (a run comes before "
    "a head of its name)"
)
MODEL = re.compile(r"(?P<dataset>[^/#]+)(?:#(?P<line>[1-9][0-9]*)|/(?P<name>[^/]+))?")


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
        if not self.models:
            raise UsageError(f"expected at least one MODEL, {MODEL_HELP}; received none")
        if len(set(self.models)) < len(self.models):
            raise UsageError(f"{' '.join(self.models)}: expected each model once")
        if len({split_model(model)[0] for model in self.models}) != 1:
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
        "csv",
        "csv: file, class, its name and probability; kaggle: CSV of file and class; npz: arrays with all "
        "probabilities; course: `test_0.JPEG n02…` lines, where no name has a space",
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

    model: str = flag(
        help="DATASET/RUN, a fine-tuned run; finetune --epochs 0 makes one of a probe",
        positional=True,
        metavar="MODEL",
    )
    format: tuple[str, ...] = flag(
        ("keras",),
        "kinds of model file; several at once; tflite is litert",
        choices=(*MODEL_FORMATS, *OTHER_NAMES),
    )
    out: Path | None = flag(
        None, "folder to write into (default: export in the run's folder)", metavar="FOLDER"
    )

    def __post_init__(self) -> None:
        split_model(self.model)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats by their own names, each once."""
        return tuple(dict.fromkeys(OTHER_NAMES.get(name, name) for name in self.format))


def split_model(text: str) -> tuple[str, int, str]:
    """Return what MODEL says: data set, line of its leaderboard (0 for none), and name ("" for none).

    Raises:
        UsageError: It is nothing that could name a model.
    """
    found = MODEL.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r}: expected {MODEL_HELP}")
    for part in filter(None, (found["dataset"], found["name"])):
        check_name(f"{text!r}: name", part)
    return found["dataset"], int(found["line"] or 0), found["name"] or ""
