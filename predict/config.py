"""Everything the commands of `onepass predict` can be told."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from onepass.cache.commandline.flags import ClusterConfig, RunsConfig, StoreConfig, flag
from onepass.cache.errors import UsageError
from onepass.cache.names import check_name
from onepass.cache.stores import roots
from onepass.classify.goals import GOAL_HELP, parse_goal
from onepass.data.views import VIEW_HELP
from onepass.extract.config import ENGINES, choose_engine

SPLITS = ("test", "val")
WEIGHTS = ("equal", "learnt")
ANSWER_FORMATS = ("course", "kaggle", "csv", "npz")
ANSWER_FILES = (".csv", ".jsonl", ".parquet")
MODEL_FORMATS = ("folder", "keras", "saved_model", "onnx", "litert", "openvino")
OTHER_NAMES = {"tflite": "litert"}
NO_POINT = "none"  # of --at
ESTIMATE = "estimate"  # of --prior
PRIOR_HELP = (
    "the mix of classes in use, where it is another than in training: CLASS:SHARE,… such as defective:0.02 (the other "
    "classes share what is left as they do in training)"
)
MODEL_FILE = "model.json"  # what makes a folder a model folder
MODEL_HELP = (
    "DATASET (its best fine-tuned run; the leaderboard's winner where none is better), DATASET#LINE (of the "
    "leaderboard, as it is numbered), DATASET/PROBE (also an ensemble), DATASET/HEAD (the best probe of that head) "
    "or DATASET/RUN (a run comes before a head of its name), or a model folder that `onepass predict export` wrote"
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
        f"views of each image that a run averages with the whole image: {VIEW_HELP}",
        metavar="VIEW",
    )
    weights: str = flag(
        "equal",
        "of several models; learnt: on selection rows that none was trained on",
        choices=WEIGHTS,
    )
    temperature: bool = flag(
        True,
        "divide the logits by a temperature learnt on the selection rows, where some were held out; of several models: "
        "those of their average, each being at its own already",
    )
    batch_size: int | None = flag(
        None,
        "new pictures a step (default: as many as when the stored features were computed, which gives "
        "their very numbers); a smaller one answers a single picture sooner",
    )
    abstain: float = flag(
        0.0,
        "share of known pictures, such as 0.05, whose answer may be left open: of new pictures that are unlike "
        "all that was learnt, or whose most probable class is not probable enough",
    )
    at: str = flag(
        "",
        f"answer by an operating point: {GOAL_HELP}; {NO_POINT}: by the most probable class (default: the "
        "operating point that `onepass classify --at` chose for the model, if there is one)",
        metavar="GOAL",
    )
    positive: str = flag(
        "", "with --at: the class that is to be found (default: the rarer of two)", metavar="CLASS"
    )
    prior: str = flag(
        "",
        f"{PRIOR_HELP}, or {ESTIMATE}: from all that is predicted. Probabilities are corrected to it (Saerens et al., "
        "2002); --at and --abstain keep their promises",
        metavar="MIX",
    )
    engine: str | None = flag(
        None,
        "what computes new pictures' vectors: keras, openvino (on a CPU) or auto: what computed the stored ones, "
        "or keras where that cannot be had (default: $ONEPASS_ENGINE, else auto)",
        choices=ENGINES,
    )
    backbone_weights: Path | None = flag(
        None, "the weights file that a probe's features were extracted with by --weights"
    )

    @property
    def chosen_engine(self) -> str:
        """The engine asked for."""
        return choose_engine(self.engine)

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size: expected 1 or more, received {self.batch_size}")
        if not 0 <= self.abstain < 1:
            raise UsageError(
                f"--abstain: expected a share of 0 or more, below 1; received {self.abstain}"
            )
        if self.at not in ("", NO_POINT):
            parse_goal(self.at)
        elif self.positive:
            raise UsageError(f"--positive {self.positive}: expected --at GOAL beside it")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig(ModelsConfig, ClusterConfig):
    """Which pictures or which split are predicted, and how the answers are written."""

    models: tuple[str, ...] = flag(
        help=f"first {MODEL_HELP}; several are averaged. Then new pictures: files, folders, patterns such "
        "as 'new/**/*.jpg', zips, tars, http(s) addresses, a .csv or .parquet with a column of them, or - for "
        "names on standard input; without any, a split of the data set is predicted",
        positional=True,
        metavar="MODEL [IMAGES]",
    )
    images: tuple[str, ...] = flag(
        (), "more new pictures; the same as naming them after the model", metavar="IMAGES"
    )
    column: str = flag(
        "",
        "column of file names in a .csv or .parquet (default: file, path, image or filename, or the only one)",
    )
    top: int = flag(1, "classes to name for each new picture, the most probable first")
    copy_to: Path | None = flag(
        None,
        "copy each new picture into FOLDER/<its class>; nothing is moved or overwritten",
        metavar="FOLDER",
    )
    link: bool = flag(
        False, "with --copy-to: symbolic links to files of this machine instead of copies"
    )
    explain: Path | None = flag(
        None,
        "write each new picture into FOLDER with what speaks for its class laid over it (class activation map)",
        metavar="FOLDER",
    )
    split: str | None = flag(
        None,
        "the rows of the data set to predict, where no new pictures are named (default: test)",
        choices=SPLITS,
    )
    score: bool = flag(
        False,
        "with --split test: how good the predictions are, by the labels of test/<class>/, which "
        "nothing else looks at",
    )
    format: str = flag(
        "csv",
        "of a split. csv: file, class, its name and probability; kaggle: CSV of file and class; npz: arrays "
        "with all probabilities; course: `test_0.JPEG n02…` lines, where no name has a space",
        choices=ANSWER_FORMATS,
    )
    header: tuple[str, ...] = flag(
        ("Id", "Category"), "the two column names of --format kaggle", metavar="NAME"
    )
    out: Path | None = flag(
        None,
        "file to write (default for a split: in the run's folder, else runs/DATASET/predictions/…); for new "
        "pictures .csv, .jsonl or .parquet",
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        ModelsConfig.__post_init__(self)
        self.check_cluster()
        if self.score and self.rows != "test":
            raise UsageError(
                "--score: expected --split test; the validation split is always scored"
            )
        if len(self.header) != 2:
            raise UsageError(f"--header: expected two column names, received {len(self.header)}")
        if self.top < 1:
            raise UsageError(f"--top: expected 1 or more, received {self.top}")
        if self.explain and self.prior == ESTIMATE:
            raise UsageError(
                f"--explain: expected --prior CLASS:SHARE,… beside it, as --prior {ESTIMATE} decides the classes when "
                "the last picture has been seen"
            )
        if self.explain and self.address:
            raise UsageError(
                "--explain: expected --executor local, as the overlays are made of pixels that this machine decodes"
            )
        if self.link and not self.copy_to:
            raise UsageError("--link: expected --copy-to FOLDER beside it")

    @property
    def rows(self) -> str:
        """The split that is predicted where no new pictures are named."""
        return self.split or "test"

    def parted(self) -> "PredictConfig":
        """Return the same with the words after the models as `images`.

        The first word is a model. A later one is a model too, unless a file or folder of that name
        exists that is no model folder, or it could not name a model.
        """
        count = 1
        while count < len(self.models) and self._is_model(self.models[count]):
            count += 1
        models, images = self.models[:count], self.models[count:] + self.images
        if images and (self.split or self.score):
            raise UsageError(
                f"expected new pictures or --split, received both: {' '.join(images[:3])}"
            )
        if self.address and not images:
            raise UsageError(
                f"--executor {self.executor}: expected new pictures after the model; a split is predicted here"
            )
        return replace(self, models=models, images=images)

    def _is_model(self, word: str) -> bool:
        if is_model_folder(word):
            return True
        found = MODEL.fullmatch(word)
        if found is None or on_disk(word):
            return False
        return any(on_disk(str(top / found["dataset"])) for top in (*roots(self.store), self.runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig(ModelsConfig):
    """Which model becomes files for other programs or another machine, and of which kinds."""

    format: tuple[str, ...] = flag(
        ("folder",),
        "folder: all of it, for Onepass on another machine; the others: one network for other programs. "
        "Several at once; tflite is litert",
        choices=(*MODEL_FORMATS, *OTHER_NAMES),
    )
    out: Path | None = flag(
        None,
        "folder to write into (default: export in the run's folder, else runs/DATASET/export)",
        metavar="FOLDER",
    )

    def __post_init__(self) -> None:
        ModelsConfig.__post_init__(self)
        if self.prior == ESTIMATE:
            raise UsageError(
                f"--prior {ESTIMATE}: expected CLASS:SHARE,…, as an export sees no images to estimate it on"
            )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats by their own names, each once."""
        return tuple(dict.fromkeys(OTHER_NAMES.get(name, name) for name in self.format))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarConfig(StoreConfig):
    """Which images the most similar stored ones are looked for."""

    dataset: str = flag(help="name of a prepared data set with features", positional=True)
    images: tuple[str, ...] = flag(
        help="names of its images, or new pictures: files, folders, patterns, zips, tars, http(s) addresses",
        positional=True,
        metavar="IMAGE",
    )
    count: int = flag(10, "stored images to find for each")
    features: str = flag("", "key of the vectors (default: the only one)", metavar="KEY")
    out: Path | None = flag(None, "contact sheet to draw (PNG)", metavar="FILE")
    backbone_weights: Path | None = flag(
        None, "the weights file that the features were extracted with by --weights"
    )

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"--count {self.count}: expected a whole number, 1 or above")


def is_model_folder(text: str) -> bool:
    """Say whether MODEL is a folder that `onepass predict export` wrote."""
    return on_disk(text) and (Path(text) / MODEL_FILE).is_file()


def on_disk(text: str) -> bool:
    """Say whether a word names a file or folder; an address, or a name that none can have, does not."""
    try:
        return "://" not in text and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, no such user
        return False


def check_models(models: tuple[str, ...]) -> None:
    """Refuse models that cannot be put together, by their names alone.

    Raises:
        UsageError: There is none, one comes twice, or they are of several data sets.
    """
    if not models:
        raise UsageError(f"expected at least one MODEL, {MODEL_HELP}; received none")
    if len(set(models)) < len(models):
        raise UsageError(f"{' '.join(models)}: expected each model once")
    named = [model for model in models if not is_model_folder(model)]
    if len({split_model(model)[0] for model in named}) > 1:
        raise UsageError(f"{' '.join(models)}: expected models of one data set")


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
