"""The flags of `onepass finetune` and its further commands."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from onepass.cache.commandline.flags import RunsConfig, flag, parse_duration
from onepass.cache.errors import UsageError
from onepass.cache.names import check_name, check_run
from onepass.cache.tracking import LOG_HELP, LogName
from onepass.classify.config import MetricName
from onepass.finetune.recipes import RECIPES, Augmentation, Recipe, recipe_for

AUTO = "auto"
# What `ablate` takes apart; None: the recipe's own augmentation.
STUDIES = {
    "de2020": RECIPES["de2020"].augmentation,
    "all": Augmentation(
        flip=True, rotation=10, shear=5, crop=0.4, brightness=0.2, contrast=0.2, erase=0.25,
        mixup=0.2, cutmix=1.0,
    ),
    "recipe": None,
}  # fmt: skip


def parse_rate(text: str) -> float | str:
    """Return a learning rate, or `AUTO`.

    Raises:
        ValueError: It is neither.
    """
    try:
        rate = text if text == AUTO else float(text)
    except ValueError:
        rate = math.nan
    if isinstance(rate, float) and not 0 < rate < math.inf:
        raise ValueError(f"expected a number above 0 or {AUTO}, received {text!r}")
    return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig(RunsConfig):
    """What to train, from where, and how; each field is the flag of the same name."""

    dataset: str = flag(help="name of a prepared data set")
    from_: str = flag(
        "auto",
        "the leaderboard's winner, the best probe of BACKBONE@SIZE, or the network of a finished run, DATASET/RUN",
        metavar="KEY",
    )
    recipe: str = flag("default", "how to train", choices=tuple(RECIPES))
    epochs: int | None = flag(
        None,
        "passes over the training rows; 0: train nothing, so that the probe becomes a network, to be "
        "exported (default: the recipe's)",
    )
    batch: int = flag(0, "images per step (default: the recipe's)")
    learning_rate: float | str = flag(
        0.0, "the highest; auto: look for it first, as find-lr does (default: the recipe's)",
        metavar="RATE", parse=parse_rate,
    )  # fmt: skip
    set: tuple[str, ...] = flag(
        (), "other numbers of the recipe, such as weight_decay=0.05 ema=0 rotation=10", metavar="NAME=VALUE"
    )  # fmt: skip
    unfreeze: str = flag("all", "layers to train: all, last:N or from:LAYER", metavar="WHICH")
    cache_frozen: bool = flag(
        True,
        "compute the outputs of layers that are not trained once an image and keep them in the store, where the "
        "augmentation only mirrors or makes quarter turns, or there is none",
    )
    batchnorm: str = flag("", "its statistics (default: the recipe's)", choices=("frozen", "train"))
    select: bool = flag(
        True,
        "hold the selection split out and keep the weights that do best there; where heads were chosen by folds too",
    )
    metric: MetricName | None = flag(
        None, "what epochs are chosen by, on the selection split (default: what the probe was)"
    )
    class_weight: Literal["none", "balanced"] = flag(
        "none",
        "balanced: the images of each class count the same in the loss; probabilities remain those of the training mix",
    )
    rows: int = flag(0, "train on this many rows only, drawn with the seed (default: all)")
    weights: str = flag(
        "imagenet",
        "the backbone's weights, where they are in a local file; none: start from random ones",
        metavar="FILE",
    )
    seed: int = flag(0, "order of the images and augmentation")
    run: str | None = flag(None, "name of the run (default: BACKBONE@SIZE-RECIPE)")
    checkpoint_every: float = flag(
        120.0, "time between checkpoints, such as 10m", metavar="T", parse=parse_duration
    )
    time_limit: float | None = flag(
        None,
        "stop with a checkpoint after this long, such as 8h45m",
        metavar="T",
        parse=parse_duration,
    )
    log: tuple[LogName, ...] = flag((), LOG_HELP)
    coordinator: str = flag(
        "",
        "train on several hosts together, with the same command on each: where process 0 waits for the others, or auto: "
        "where Slurm or Open MPI started them",
        metavar="HOST:PORT",
    )
    processes: int | None = flag(None, "how many there are in all, with --coordinator HOST:PORT")
    process: int | None = flag(None, "which of them this one is, from 0", metavar="I")

    def __post_init__(self) -> None:
        if self.run is not None:
            check_name("--run", self.run)
        _check_hosts(self.coordinator, self.processes, self.process)
        if min(self.epochs or 0, self.batch, self.rows) < 0:
            raise UsageError("--epochs, --batch and --rows: expected no number below 0")
        if self.learning_rate != 0:
            try:
                parse_rate(str(self.learning_rate))
            except ValueError as error:
                raise UsageError(f"--learning-rate: {error}") from error

    def recipe_for(self, symmetries: Collection[str] | None, images: int | None = None) -> Recipe:
        """Return the recipe for so many images of these symmetries, with what the flags change of it.

        A rate that is still to be found is the recipe's.
        """
        given = {
            name: getattr(self, name) or AUTO for name in ("batch", "learning_rate", "batchnorm")
        }
        given["epochs"] = AUTO if self.epochs is None else self.epochs
        changes = [f"{name}={value}" for name, value in given.items() if value != AUTO]
        return recipe_for(self.recipe, symmetries, images).changed((*changes, *self.set))


@dataclass(frozen=True, slots=True, kw_only=True)
class AblateConfig(FinetuneConfig):
    """Which augmentation is taken apart, in runs of which kind; the other flags are those of training."""

    augmentation: str = flag("de2020", "what is taken apart", choices=tuple(STUDIES))
    rows: int = flag(2000, "train on this many rows only, drawn with the seed (0: all)")
    epochs: int | None = flag(2, "passes over the training rows")
    seeds: int = flag(1, "runs per line, with the seeds from --seed on")

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        if self.seeds < 1 or self.run or not self.select:
            raise UsageError(
                "ablate: expected --seeds of at least 1, no --run and no --no-select: its runs "
                "have names of their own and are compared on the selection split"
            )
        if self.learning_rate == AUTO:
            raise UsageError("ablate: --learning-rate auto: expected a number; look with find-lr")
        if self.coordinator or self.log:
            raise UsageError(
                "ablate: expected no --coordinator and no --log: its short runs train on one host and are compared "
                "in its own table"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorsConfig(RunsConfig):
    """Which run's mistakes are looked at."""

    run: str = flag(help="DATASET/RUN, as finetune prints it")
    pictures: int = flag(24, "mistakes on the contact sheet")
    seed: int = flag(0, "of the random sample of 1,000 images")

    def __post_init__(self) -> None:
        check_runs((self.run,))
        if self.pictures < 1 or self.seed < 0:
            raise UsageError("--pictures, --seed: expected at least 1 picture, and a seed from 0")


def _check_hosts(coordinator: str, processes: int | None, process: int | None) -> None:
    given = (processes, process) != (None, None)
    if not coordinator or coordinator == AUTO:
        if given:
            raise UsageError(
                "--processes and --process: expected --coordinator HOST:PORT with them"
            )
    elif (
        not (re.fullmatch(r"\S+:\d+", coordinator) and 0 <= (process or 0) < (processes or 0))
        or process is None
    ):
        raise UsageError(
            f"--coordinator {coordinator}: expected HOST:PORT with --processes N and --process from 0 to N - 1"
        )


def check_runs(runs: tuple[str, ...]) -> None:
    """Refuse names that are not DATASET/RUN, or are of several data sets."""
    if len({check_run("--run", run)[0] for run in runs}) != 1:
        raise UsageError(f"--run {' '.join(runs)}: expected runs of one data set")
