"""What each part of the augmentation is worth: short runs with all of it, and with each part left out.

`runs/<dataset>/finetune/ablation.json` holds {"dataset", "start", "recipe", "augmentation", "seeds",
"epochs", "rows", "lines"}; a line is {"left_out": "" for none of it, a part, or "everything";
"selection_accuracy" 0 … 1, mean of the seeds; "interval": 95 % bootstrap over the selection images;
"difference": accuracy minus that with all parts; "difference_interval"; "p_value": sign test over the
images that the two get right unequally often (McNemar's with one seed); "epochs"; "rows": trained
on; "seconds"}. The line with all parts has None for the last three comparisons.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from onepass.cache.errors import UsageError
from onepass.cache.files import read_json, write_json
from onepass.cache.provenance import digest_json
from onepass.cache.stopping import StopRequest
from onepass.classify.scores import DRAWS, LEVEL, mcnemar
from onepass.classify.text import p_value
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.finetune.augmentation.draws import Augmentation
from onepass.finetune.config import STUDIES, AblateConfig, FinetuneConfig
from onepass.finetune.session.run_identity import identity
from onepass.finetune.session.runs import load_logits
from onepass.finetune.session.start import Start, build_from, choose_rows, choose_start, warm
from onepass.finetune.training.inference import predict_logits, save_logits
from onepass.finetune.training.loop import Training

log = logging.getLogger(__name__)

EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table; the fields are those of `ablation.json`, see above."""

    left_out: str
    selection_accuracy: float
    interval: tuple[float, float]
    difference: float | None
    difference_interval: tuple[float, float] | None
    p_value: float | None
    epochs: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ablation:
    """The table.

    Attributes:
        path: Of `ablation.json`.
        start: Features and head that every run started from.
        lines: All parts first, then each left out, then everything left out.
        stopped: Why it is not complete; "" if it is.
    """

    path: Path
    start: str
    lines: list[Line]
    stopped: str


@dataclass(frozen=True, slots=True)
class _Run:
    """One finished short run: whether each selection image was right, bool (n,), and what it took."""

    correct: np.ndarray
    rows: int
    seconds: float


def ablate(config: AblateConfig, stop: StopRequest | None = None) -> Ablation:
    """Train the short runs and compare them on the selection split; the reported split is not looked at.

    All runs see the same rows in the same order, and what the parts that are left draw is the same.
    The same command goes on where it was interrupted; runs that are done are not run again.

    Raises:
        UsageError: The augmentation has no part to leave out.
        MissingFileError: There is no data set, leaderboard or probe to start from.
    """
    dataset = open_dataset(config.store, config.dataset)
    start = choose_start(config, dataset)
    full = study(config)
    parts = full.chosen_recipe.augmentation.parts
    if not parts:
        raise UsageError(
            "--augmentation recipe: the recipe has none; name another, or --set flip=true"
        )
    left_out = ["", *parts, *([EVERYTHING] if len(parts) > 1 else [])]
    place = config.runs / config.dataset / "finetune"
    stopped, lines, reference = "", [], np.empty(0)
    request = (stop or StopRequest()).limit(config.time_limit)
    for part in left_out:
        without = parts if part == EVERYTHING else (part,) if part else ()
        runs: list[_Run] = []
        for seed in range(config.seed, config.seed + config.seeds):
            line = replace(full, seed=seed, set=(*full.set, *(f"{name}=0" for name in without)))
            log.info(f"{_title(part)}, seed {seed}")
            run = _short_run(line, dataset, start, place / "ablation", lambda: request.reason)
            if isinstance(run, str):
                stopped = run
                break
            runs.append(run)
        if stopped:
            break
        values = np.mean([run.correct for run in runs], axis=0)
        reference = reference if part else values
        lines.append(_line(part, values, reference, full.chosen_recipe.epochs, runs))
    result = Ablation(place / "ablation.json", start.text, lines, stopped)
    _write(result, full)
    return result


def study(config: AblateConfig) -> AblateConfig:
    """Return the configuration of the run with all parts: `--augmentation`, then `--set`."""
    named = STUDIES[config.augmentation]
    if named is None:
        return config
    settings = (f"{f.name}={getattr(named, f.name)}" for f in fields(Augmentation))
    return replace(config, set=(*settings, *config.set))


def _short_run(
    config: FinetuneConfig,
    dataset: ImageDataset,
    start: Start,
    place: Path,
    stop: Callable[[], str],
) -> _Run | str:
    """Train one run, or read what it did; return why it stopped, where it did."""
    which = identity(config, dataset, start)
    folder = place / digest_json(which)[:12]
    done = folder / "done.json"
    rows = choose_rows(config, dataset, start)
    assert rows.selection is not None
    if not done.exists():
        begin = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        classifier = build_from(config, dataset, start)
        warm(config, dataset, start, rows, place / f"start-{start.probe.id}", classifier)
        training = Training(
            classifier, dataset.pixels, dataset.labels, rows.fit, config.chosen_recipe, config.seed,
            folder / "checkpoint.npz", selection=rows.selection, every=config.checkpoint_every,
        )  # fmt: skip
        stopped = training.run(stop)
        if stopped:
            return stopped
        training.conclude()
        logits = predict_logits(classifier, dataset.pixels, rows.selection, "selection")
        save_logits(folder / "selection_logits.npz", logits, rows.selection)
        seconds = sum(row.seconds for row in training.history) or time.monotonic() - begin
        write_json(done, {"identity": which, "seconds": seconds})
        (folder / "checkpoint.npz").unlink()
        rmtree(folder / "epochs")
    logits, judged = load_logits(folder / "selection_logits.npz", len(dataset.class_ids))
    correct = logits.argmax(axis=1) == dataset.labels[judged]
    return _Run(correct, len(rows.fit), read_json(done)["seconds"])


def _line(
    part: str, values: np.ndarray, reference: np.ndarray, epochs: int, runs: list[_Run]
) -> Line:
    apart = values - reference
    chance = mcnemar(int(np.sum(apart > 0)), int(np.sum(apart < 0)))
    return Line(
        left_out=part, selection_accuracy=float(values.mean()), interval=mean_interval(values),
        difference=float(apart.mean()) if part else None,
        difference_interval=mean_interval(apart) if part else None,
        p_value=chance if part else None,
        epochs=epochs, rows=runs[0].rows, seconds=sum(run.seconds for run in runs),
    )  # fmt: skip


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean of few different values.

    Drawing n rows with replacement gives multinomial counts of the values: no loop over rows.

    Args:
        values: (n,).
        seed: Of the draws.
    """
    kinds, counts = np.unique(values, return_counts=True)
    n = len(values)
    means = np.random.default_rng(seed).multinomial(n, counts / n, DRAWS) @ kinds / n
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _write(result: Ablation, full: AblateConfig) -> None:
    recipe = full.chosen_recipe
    record: dict[str, Any] = {
        "dataset": full.dataset, "start": result.start, "recipe": full.recipe,
        "augmentation": asdict(recipe.augmentation), "seeds": full.seeds, "epochs": recipe.epochs,
        "rows": full.rows, "lines": [asdict(line) for line in result.lines],
    }  # fmt: skip
    write_json(result.path, record)


def _title(part: str) -> str:
    return f"without {part}" if part else "with all parts"


def ablation_text(result: Ablation) -> str:
    """Return the table as a person reads it."""
    lines = [f"From {result.start}; top-1 on the selection split"]
    for line in result.lines:
        low, high = (100 * edge for edge in line.interval)
        text = f"  {_title(line.left_out):<24} {100 * line.selection_accuracy:5.1f} % ({low:.1f} … {high:.1f})"
        if line.difference is not None and line.difference_interval and line.p_value is not None:
            low, high = (100 * edge for edge in line.difference_interval)
            text += f"  {100 * line.difference:+5.1f} points ({low:+.1f} … {high:+.1f}), {p_value(line.p_value)}"
        lines.append(text)
    if result.stopped:
        lines.append(f"Stopped ({result.stopped}). The same command goes on from here.")
    return "\n".join([*lines, f"File: {result.path}"])
