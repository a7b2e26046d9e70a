"""onepass finetune [find-lr | ablate | errors | tables]: train only the winner, end to end."""

import sys
from typing import Any

from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.progress import human_seconds
from onepass.cache.stderr import suppress_stderr
from onepass.cache.stopping import StopRequest
from onepass.classify.text import p_value
from onepass.finetune.config import (
    AblateConfig,
    ErrorsConfig,
    FinetuneConfig,
    TablesConfig,
)
from onepass.finetune.text import errors_text, rate_text, tables_text


def _train(config: FinetuneConfig, stop: StopRequest) -> Any:
    with suppress_stderr():
        from onepass.finetune.pipeline import run_finetune
    return run_finetune(config, stop)


def _errors(config: ErrorsConfig) -> Any:
    from onepass.finetune.errors import analyse_errors

    return analyse_errors(config)


def _tables(config: TablesConfig) -> Any:
    from onepass.finetune.tables import make_tables

    return make_tables(config)


def _find_rate(config: FinetuneConfig) -> Any:
    with suppress_stderr():
        from onepass.finetune.finder import find_learning_rate
    return find_learning_rate(config)


def _ablate(config: AblateConfig, stop: StopRequest) -> Any:
    with suppress_stderr():
        from onepass.finetune.ablate import ablate
    return ablate(config, stop)


def _ablation_text(result: Any) -> str:
    from onepass.finetune.ablation import ablation_text

    return ablation_text(result)


def _train_text(result: Any) -> str:
    from onepass.classify.metrics import verdict

    apart = result.warm_start_difference
    equal = "" if apart is None else f" (logits equal within {apart:.1g})"
    rows = f"{result.trained_rows:,} images"
    if result.selection_rows:
        rows += f"; epochs judged on {result.selection_rows:,} others of the training rows"
    lines = [f"{result.run}: started from {result.start}{equal}", f"Trained on {rows}"]
    lines += [f"  {row}, {human_seconds(row.seconds)}" for row in result.history]
    if result.stopped:
        lines.append(
            f"Stopped with a checkpoint ({result.stopped}). The same command goes on from here."
        )
        return "\n".join([*lines, f"Files: {result.folder}"])
    lines.append(f"Ended: {result.ended}; kept: {result.kept}")
    low, high = result.val_interval
    gain = result.val_top1 - result.probe_top1
    said = verdict(gain, result.p_value)
    lines.append(
        f"Validation top-1: {100 * result.val_top1:.1f} % (95 % interval {100 * low:.1f} % to {100 * high:.1f} %); the frozen probe had "
        f"{100 * result.probe_top1:.1f} %: {100 * gain:+.1f} points, {said} by McNemar's test ({p_value(result.p_value)})"
    )
    lines += [
        f"Files: {result.folder} (mistakes: errors.json, mistakes.png)",
        f"Next: onepass predict {result.run}, or onepass report --dataset {result.run.split('/')[0]}",
    ]
    return "\n".join(lines)


COMMANDS = [
    Command(
        "",
        "Train the winning backbone end to end, from its probe.",
        FinetuneConfig,
        _train,
        _train_text,
        OnSignal.STOP,
    ),
    Command(
        "find-lr",
        "Look for a learning rate: raise it step by step and watch the loss.",
        FinetuneConfig,
        _find_rate,
        rate_text,
    ),
    Command(
        "ablate",
        "Train short runs with each part of the augmentation left out, and compare them.",
        AblateConfig,
        _ablate,
        _ablation_text,
        OnSignal.STOP,
    ),
    Command(
        "errors",
        "Show what a finished run gets wrong.",
        ErrorsConfig,
        _errors,
        errors_text,
    ),
    Command(
        "tables",
        "Put the results of all stages into the report's three tables.",
        TablesConfig,
        _tables,
        tables_text,
    ),
]

MOVED = {
    "predict": "onepass predict DATASET/RUN …",
    "export": "onepass predict export DATASET/RUN",
}

if __name__ == "__main__":
    sys.exit(main("finetune", COMMANDS, moved=MOVED))
