"""onepass finetune [find-lr | ablate | errors]: train only the winner, end to end."""

import sys
from collections.abc import Callable
from typing import Any

from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.later import later
from onepass.cache.stopping import StopRequest
from onepass.finetune.config import AblateConfig, ErrorsConfig, FinetuneConfig
from onepass.finetune.text import ablation_text, errors_text, rate_text, train_text
from onepass.finetune.training.hosts import first, together


def _with_others(place: str) -> Callable[..., Any]:
    """Return what `later` returns, done together with the other processes of a run, where there are any."""

    def work(config: FinetuneConfig, *stop: StopRequest) -> Any:
        with together(config.coordinator, config.processes, config.process):
            return later(place, keras=True)(config, *stop)

    return work


COMMANDS = [
    Command(
        "",
        "Train the winning backbone end to end, from its probe.",
        FinetuneConfig,
        _with_others("onepass.finetune.pipeline:run_finetune"),
        train_text,
        OnSignal.STOP,
        made=lambda result: result.folder if first() else None,
        examples=(
            "onepass finetune --dataset digits --epochs 1 --run short",
            "onepass finetune --dataset digits --rows 256 --epochs 1 --learning-rate 1e-5",
        ),
    ),
    Command(
        "find-lr",
        "Look for a learning rate: raise it step by step and watch the loss.",
        FinetuneConfig,
        _with_others("onepass.finetune.finder:find_learning_rate"),
        rate_text,
        examples=(
            "onepass finetune find-lr --dataset digits",
            "onepass finetune find-lr --dataset digits --batch 16",
        ),
    ),
    Command(
        "ablate",
        "Train short runs with each part of the augmentation left out, and compare them.",
        AblateConfig,
        later("onepass.finetune.ablate:ablate", keras=True),
        ablation_text,
        OnSignal.STOP,
        made=lambda result: result.path,
        examples=(
            "onepass finetune ablate --dataset digits --augmentation recipe --set flip=true --rows 64 --epochs 1",
            "onepass finetune ablate --dataset digits --augmentation recipe --set flip=true crop=0.4 --rows 64 --epochs 1",
        ),
    ),
    Command(
        "errors",
        "Show what a finished run gets wrong.",
        ErrorsConfig,
        later("onepass.finetune.errors:analyse_errors"),
        errors_text,
        made=lambda result: result.path,
        examples=(
            "onepass finetune errors --run digits/short",
            "onepass finetune errors --run digits/short --pictures 8",
        ),
    ),
]

MOVED = {
    "predict": "onepass predict DATASET/RUN …",
    "export": "onepass predict export DATASET/RUN",
    "tables": "python benchmarks/de2020.py --dataset DATASET, in a checkout",
}

if __name__ == "__main__":
    sys.exit(main("finetune", COMMANDS, moved=MOVED))
