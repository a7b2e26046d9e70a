"""onepass finetune [find-lr | ablate | errors]: train only the winner, end to end."""

import sys
from typing import Any

from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.keras_settings import loading_keras
from onepass.cache.stopping import StopRequest
from onepass.finetune.config import (
    AblateConfig,
    ErrorsConfig,
    FinetuneConfig,
)
from onepass.finetune.text import ablation_text, errors_text, rate_text, train_text
from onepass.finetune.training.hosts import first, together


def _train(config: FinetuneConfig, stop: StopRequest) -> Any:
    with together(config.coordinator, config.processes, config.process):
        with loading_keras():
            from onepass.finetune.pipeline import run_finetune
        return run_finetune(config, stop)


def _errors(config: ErrorsConfig) -> Any:
    from onepass.finetune.errors import analyse_errors

    return analyse_errors(config)


def _find_rate(config: FinetuneConfig) -> Any:
    with together(config.coordinator, config.processes, config.process):
        with loading_keras():
            from onepass.finetune.finder import find_learning_rate
        return find_learning_rate(config)


def _ablate(config: AblateConfig, stop: StopRequest) -> Any:
    with loading_keras():
        from onepass.finetune.ablate import ablate
    return ablate(config, stop)


COMMANDS = [
    Command(
        "",
        "Train the winning backbone end to end, from its probe.",
        FinetuneConfig,
        _train,
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
        _find_rate,
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
        _ablate,
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
        _errors,
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
