"""onepass run: all stages, one command. It decides which commands are worth giving, shows each, and gives it."""

import logging
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from onepass.cache.artifacts import Artifact, record
from onepass.cache.commandline.command import DONE, INCOMPLETE, STOPPED, Command, OnSignal, give
from onepass.cache.commandline.flags import RunsConfig, flag, parse_duration
from onepass.cache.commandline.table import table
from onepass.cache.progress import human_seconds
from onepass.cache.provenance import digest_json
from onepass.cache.tracking import LOG_HELP, LogName, check_installed

log = logging.getLogger(__name__)

DECISION = "run.json"  # in the folder of the data set's results
SUMMARY = "Do all stages, from images to a page of results; again after a change, only what is new."
# Backbones whose weights come with the installation, and the multiplications of one image at their native sizes,
# of the first one's (407 million; table of github.com/tensorflow/tpu, efficientnet/lite)
BACKBONES = {"efficientnet_lite0": 1.0, "efficientnet_lite1": 1.6, "efficientnet_lite2": 2.2}
PATIENCE = 600.0  # seconds that extraction may take where no budget is given, before it does with one backbone
SHARE = 0.5  # of a budget for extraction, where a network is fine-tuned as well
CLASSIFYING, REPORTING = 60.0, 20.0  # seconds; small beside the others
STARTING = 45.0  # seconds of a fine-tuning besides its epochs: networks are built, compiled, and evaluated at both ends
# Forward passes in float32 that a training step costs, and how much faster OpenVINO passes in bfloat16
# (benchmarks/RESULTS.md: 45.6 images/s against 161 and 324 at 224 px)
STEP, BFLOAT16 = 3.5, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AllStagesConfig(RunsConfig):
    """What is to be done, and how long it may take."""

    kind: str = flag(
        help="a folder, zip, table or other source of labelled images, or the name of a known data set, as "
        "`onepass data prepare` takes it",
        positional=True,
        metavar="PATH_OR_NAME",
    )
    name: str | None = flag(None, "name in the store (default: as `onepass data prepare` chooses)")
    goal: Literal["frozen", "finetuned"] = flag(
        "finetuned", "frozen: the best head on frozen features; finetuned: then the network as well"
    )
    backbone: tuple[str, ...] = flag(
        (),
        "one or more backbones (default: the EfficientNet-Lite ones, as many as there is time for)",
        metavar="NAME",
    )
    budget: float | None = flag(
        None, "choose what fits into this long, such as 30m", metavar="T", parse=parse_duration
    )
    time_limit: float | None = flag(
        None,
        "stop cleanly after this long, such as 8h45m; the same command resumes",
        metavar="T",
        parse=parse_duration,
    )
    log: tuple[LogName, ...] = flag((), LOG_HELP)


@record
class Costs:
    """What the stages take on this machine, by the backbone that was measured; all 0 where none was.

    Attributes:
        images: Of the data set.
        train: Of its training split.
        rate: Images per second that the first backbone of the table extracts.
        trained: Images per second that it would be trained on, about.
    """

    images: int
    train: int
    rate: float
    trained: float

    def extracting(self, backbones: Sequence[str]) -> float:
        """Return the seconds for all images."""
        return self.images * sum(map(_passes, backbones)) / self.rate if self.rate else 0.0

    def epoch(self, backbones: Sequence[str]) -> float:
        """Return the seconds of an epoch at most: the largest backbone may win."""
        return self.train * max(map(_passes, backbones)) / self.trained if self.trained else 0.0


@record
class Decision(Artifact):
    """What `onepass run` chose for a data set; `run.json` in its folder, so that the same command goes on with it.

    Attributes:
        goal: As asked for.
        budget: Seconds, as asked for; None where there is none.
        asked: The backbones asked for.
        digest: Of the data set.
        backbones: Those chosen.
        costs: By which they were chosen.
        epochs: Of fine-tuning; 0 for none; None: as many as the recipe has.
        why: A sentence for each choice.
    """

    FORMAT: ClassVar[int] = 1

    goal: str
    budget: float | None
    asked: tuple[str, ...]
    digest: str
    backbones: tuple[str, ...]
    costs: Costs
    epochs: int | None
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AllStagesResult:
    """What `onepass run` did.

    Attributes:
        dataset: Name of the data set.
        model: The model to use, as `onepass predict` takes it.
        val_top1: Its accuracy on the validation split, 0 … 1.
        val_interval: Its 95 % interval.
        why: What was chosen and why, a sentence each.
        page: Path of the page.
        path: Of `run.json`.
        seconds: Wall time.
        incomplete: Whether some of the source could not be used; it was named.
    """

    dataset: str
    model: str
    val_top1: float
    val_interval: tuple[float, float]
    why: tuple[str, ...]
    page: str
    path: Path
    seconds: float
    incomplete: bool


def run_all(config: AllStagesConfig) -> AllStagesResult:
    """Give the commands of all stages, each as a person would: `prepare`, `extract`, `classify`, `finetune`, `report`.

    What they print goes to standard error: standard output is for the result.

    Raises:
        SystemExit: A command failed, or stopped with work left; the exit code is its own.
    """
    with redirect_stdout(sys.stderr):
        return _Stages(config).run()


@dataclass(slots=True)
class _Stages:
    """The commands that one `onepass run` stands for."""

    config: AllStagesConfig
    began: float = field(default_factory=time.monotonic)
    incomplete: bool = False

    def run(self) -> AllStagesResult:
        config = self.config
        check_installed(config.log)
        name = ["--name", config.name] if config.name else []
        own = [] if config.kind in _known_datasets() else ["--on-bad", "skip"]
        prepared = self.give("data", "prepare", config.kind, *name, *own).summary
        dataset = prepared.name
        decision = self._decision(prepared)
        epochs = () if decision.epochs is None else ("--epochs", str(decision.epochs))
        log_to = ("--log", *config.log) if config.log else ()
        steps = [
            ("extract", "--dataset", dataset, "--backbone", *decision.backbones),
            ("classify", "--dataset", dataset, *log_to),
            *(
                []
                if decision.epochs == 0
                else [("finetune", "--dataset", dataset, *epochs, *log_to)]
            ),
            ("report", "--dataset", dataset),
        ]
        log.info("\n" + "\n".join(_plan(steps, decision)))
        results: dict[str, Any] = {}
        for word, *words in steps:
            if word == "finetune":  # another winner or length is another run
                words += ["--run", _run_name(decision, results["classify"].winner)]
            results[word] = self.give(word, *words, *self._time_left(word))
        board, tuned, best = results["classify"], results.get("finetune"), self._best_run(dataset)
        winner = next(probe for probe in board.results if probe.id == board.winner)
        found = (f"{dataset}/{winner.id}", winner.val_top1, winner.val_interval)
        why = [
            *decision.why,
            f"of {len(board.results)} heads {winner.head} on {winner.features_text} did best",
        ]
        if best:
            found = (best.run, best.val_top1, best.val_interval)
            which = "" if tuned and tuned.run == best.run else f" by an earlier run, {best.run},"
            what = "it" if best.probe == winner.id else best.start
            gain = 100 * (best.val_top1 - winner.val_top1)
            why.append(
                f"fine-tuned{which} {what} does better on held-out training images ({gain:+.1f} points on the validation split)"
            )
        elif tuned:
            why.append(
                "the network that was fine-tuned does no better on held-out training images, so that the frozen probe stays "
                "the model to use"
            )
        page = str(results["report"].path)
        return AllStagesResult(
            dataset,
            *found,
            tuple(why),
            page,
            self._path(dataset),
            time.monotonic() - self.began,
            self.incomplete,
        )

    def _best_run(self, dataset: str) -> Any:
        """Return what the run found that the data set stands for; None where a probe is the model to use."""
        from onepass.classify.leaderboard.board import Leaderboard
        from onepass.data.dataset import open_dataset
        from onepass.finetune.session.best import run_to_use

        results, state = self.config.runs / dataset, open_dataset(self.config.store, dataset)
        board = Leaderboard.load(results, dataset, state.digest)
        best = run_to_use(results / "finetune", state, board)
        return best.result if best else None

    def give(self, word: str, *arguments: str) -> Any:
        """Show a command, give it, and return its result."""
        from onepass.__main__ import commands_of

        arguments = (*arguments, *self._places(word))
        log.info(f"\n$ {shlex.join(['onepass', word, *arguments])}")
        code, result = give(word, commands_of(word), arguments)
        if code not in (DONE, INCOMPLETE):
            raise SystemExit(code)
        self.incomplete |= code == INCOMPLETE or bool(getattr(result, "skipped", ()))
        return result

    def _places(self, word: str) -> Iterator[str]:
        config = self.config
        runs_dir = None if word in ("data", "extract") else config.runs_dir
        for name, value in (("--cache-dir", config.cache_dir), ("--runs-dir", runs_dir)):
            yield from (name, str(value)) if value else ()
        yield from ("--read-from", *map(str, config.read_from)) if config.read_from else ()

    def _time_left(self, word: str) -> tuple[str, ...]:
        """Return the flag that gives a command what is left of the time limit, where it takes one."""
        if self.config.time_limit is None:
            return ()
        left = self.config.time_limit - (time.monotonic() - self.began)
        if left <= 0:
            log.info("\nThe time limit has passed; the same command resumes.")
            raise SystemExit(STOPPED)
        return ("--time-limit", f"{max(left, 1):.0f}s") if word in ("extract", "finetune") else ()

    def _decision(self, prepared: Any) -> Decision:
        """Return what was decided before for the same question, else decide, and keep it."""
        config = self.config
        path = self._path(prepared.name)
        known = Decision.read_optional(path)
        question = (config.goal, config.budget, config.backbone)
        same = known is not None and (known.goal, known.budget, known.asked) == question
        if known and same and known.digest == prepared.digest:
            return known
        costs = self._costs(prepared, known)
        backbones = known.backbones if known and same else config.backbone or self._backbones(costs)
        epochs, reason = self._epochs(costs, backbones)
        why = (*self._why(costs, backbones), *reason)
        made = Decision(*question, prepared.digest, backbones, costs, epochs, why)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write(path)
        return made

    def _path(self, dataset: str) -> Path:
        return self.config.runs / dataset / DECISION

    def _costs(self, prepared: Any, known: Decision | None) -> Costs:
        """Return what the stages take, by a few batches of the first backbone where that is not known yet."""
        images, train = sum(prepared.splits.values()), prepared.splits.get("train", 0)
        first = (*self.config.backbone, *BACKBONES)[0]
        if known and known.costs.rate and known.backbones[0] == first:
            return replace(known.costs, images=images, train=train)
        words = ("--dataset", prepared.name, "--backbone", first, "--dry-run")
        plan = self.give("extract", *words).plan
        if not plan:  # everything is stored
            return Costs(images, train, 0.0, 0.0)
        rate = plan[0].rate * _passes(first)  # of the first of the table
        fast = BFLOAT16 if plan[0].engine == "OpenVINO in bfloat16" else 1.0
        return Costs(images, train, rate, rate / fast / STEP)

    def _backbones(self, costs: Costs) -> tuple[str, ...]:
        """Return as many as there is time for."""
        every, (first, *_) = tuple(BACKBONES), BACKBONES
        return every if costs.extracting(every) <= self._extraction_limit else (first,)

    @property
    def _extraction_limit(self) -> float:
        if self.config.budget is None:
            return PATIENCE
        return self.config.budget * (SHARE if self.config.goal == "finetuned" else 1.0)

    def _why(self, costs: Costs, backbones: Sequence[str]) -> list[str]:
        if self.config.backbone or not costs.rate:
            return []
        time_of_all = human_seconds(costs.extracting(tuple(BACKBONES)))
        if len(backbones) > 1:
            return [f"{len(backbones)} backbones, since all of them take {time_of_all}"]
        return [f"one backbone, since all {len(BACKBONES)} would take {time_of_all}"]

    def _epochs(self, costs: Costs, backbones: Sequence[str]) -> tuple[int | None, list[str]]:
        """Return how many epochs to train, None for the recipe's, and why."""
        budget, epoch = self.config.budget, costs.epoch(backbones)
        if self.config.goal == "frozen":
            return 0, []
        if budget is None or not epoch:
            return None, []
        besides = costs.extracting(backbones) + CLASSIFYING + STARTING + REPORTING
        fitting = int((budget - besides) // epoch)
        usual = _usual_epochs(costs.train)
        if fitting < 1:
            return 0, [f"no fine-tuning, since an epoch takes {human_seconds(epoch)}"]
        if fitting >= usual:
            return None, []
        return fitting, [
            f"{fitting} of the recipe's {usual} epochs, since an epoch takes {human_seconds(epoch)}"
        ]


def _known_datasets() -> Sequence[str]:
    from onepass.data.sources import SOURCES

    return tuple(SOURCES)


def _passes(backbone: str) -> float:
    """Return what an image costs in a backbone, in passes of the first; one that is not in the table counts as it."""
    return BACKBONES.get(backbone, 1.0)


def _usual_epochs(images: int) -> int:
    from onepass.finetune.recipes import recipe_for

    return recipe_for("default", None, images).epochs


def _run_name(decision: Decision, winner: str) -> str:
    """Return the name of the run that these choices make, from that probe: the same command resumes it."""
    return f"run-{digest_json([decision.digest, decision.epochs, winner])[:8]}"


def _plan(steps: Sequence[Sequence[str]], decision: Decision) -> list[str]:
    """Return the commands to come, each with about the time that it takes where nothing is stored yet."""
    costs, backbones = decision.costs, decision.backbones
    epochs = _usual_epochs(costs.train) if decision.epochs is None else decision.epochs
    seconds = {
        "extract": costs.extracting(backbones), "classify": CLASSIFYING,
        "finetune": STARTING + epochs * costs.epoch(backbones), "report": REPORTING,
    }  # fmt: skip
    rows = [(shlex.join(["onepass", *step]), _about(seconds[step[0]])) for step in steps]
    total = _about(sum(seconds[step[0]] for step in steps))
    return [
        "Plan, where nothing is stored yet:",
        *(f"  {line}" for line in table([*rows, ("all", total)])),
    ]


def _about(seconds: float) -> str:
    return f"about {human_seconds(seconds)}" if seconds else ""


def all_stages_text(result: AllStagesResult) -> str:
    """Return the end of the output: the model to use, how good it is, why it, and what comes next."""
    low, high = (f"{100 * bound:.1f}" for bound in result.val_interval)
    why = "; ".join(result.why)
    return "\n".join(
        [
            f"Model to use: {result.model}, right on {100 * result.val_top1:.1f} % of the validation images "
            f"(95 % interval {low} to {high} %).",
            f"Chosen: {why}." if why else "",
            f"Page: {result.page}; all in {human_seconds(result.seconds)}.",
            f"Next: {shlex.join(['onepass', 'predict', result.model, 'NEW_PICTURES'])}",
        ]
    )


COMMANDS = [
    Command(
        "",
        SUMMARY,
        AllStagesConfig,
        run_all,
        all_stages_text,
        OnSignal.RESUME,
        made=lambda result: result.path,
        examples=(
            "onepass run digits --goal frozen --backbone efficientnet_lite0",
            "onepass run my-images --goal frozen --budget 30m --backbone efficientnet_lite0",
        ),
    )
]
