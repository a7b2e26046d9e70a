"""onepass classify [curve | ensemble | inspect | next | sweep | transfer]: heads on vectors."""

import sys
from typing import Any

from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.later import imported, later
from onepass.classify.analysis.text import inspect_text, next_text, transfer_text
from onepass.classify.config import (
    ClassifyConfig,
    CurveConfig,
    EnsembleConfig,
    InspectConfig,
    NextConfig,
    SweepConfig,
    TransferConfig,
)
from onepass.classify.resampling.text import curve_text, folds_text
from onepass.classify.text import classify_text, ensemble_text, sweep_text


def _classify(config: ClassifyConfig) -> Any:
    work = "resampling.folds:run_folds" if config.folds else "pipeline:run_probes"
    return imported(f"onepass.classify.{work}")(config)


def _classify_text(result: Any) -> str:
    is_folds = isinstance(result, imported("onepass.classify.resampling.folds:FoldsResult"))
    return folds_text(result) if is_folds else classify_text(result)


COMMANDS = [
    Command(
        "",
        "Try heads on the stored features, rank them, and keep the best.",
        ClassifyConfig,
        _classify,
        _classify_text,
        OnSignal.RESUME,
        made=lambda result: getattr(result, "path", None) or result.leaderboard,
        examples=(
            "onepass classify --dataset digits",
            "onepass classify --dataset digits --head ridge logistic --select split",
        ),
    ),
    Command(
        "ensemble",
        "Put probes of the leaderboard together: average or stack their probabilities.",
        EnsembleConfig,
        later("onepass.classify.ensemble:run_ensemble"),
        ensemble_text,
        OnSignal.RESUME,
        made=lambda result: result.leaderboard.parent / "heads" / result.ensembles[0].id,
        examples=(
            "onepass classify ensemble --dataset digits",
            "onepass classify ensemble --dataset digits --method average",
        ),
    ),
    Command(
        "sweep",
        "Train many heads together, drop the worse ones early, keep the best.",
        SweepConfig,
        later("onepass.classify.search.sweep:run_sweeps"),
        sweep_text,
        OnSignal.RESUME,
        made=lambda result: result.paths[0],
        examples=(
            "onepass classify sweep --dataset digits --epochs 4",
            "onepass classify sweep --dataset digits --dropout 0.4 0.65 --seeds 0 --epochs 4",
        ),
    ),
    Command(
        "curve",
        "Measure the learning curve: what twice as many labelled images would be worth.",
        CurveConfig,
        later("onepass.classify.resampling.curve:run_curve"),
        curve_text,
        OnSignal.RESUME,
        made=lambda result: result.path,
        examples=(
            "onepass classify curve --dataset digits --head ridge",
            "onepass classify curve --dataset digits --head ridge --seeds 1",
        ),
    ),
    Command(
        "transfer",
        "Rank features by LogME, H-score, NCE and LEEP, before anything is trained.",
        TransferConfig,
        later("onepass.classify.analysis.transferability:score_features"),
        transfer_text,
        OnSignal.RESUME,
        made=lambda result: result.path,
        examples=(
            "onepass classify transfer --dataset digits",
            "onepass classify transfer --dataset digits --fresh",
        ),
    ),
    Command(
        "inspect",
        "Say what the features say about the data: label errors, duplicates, outliers, hard classes.",
        InspectConfig,
        later("onepass.classify.analysis.inspection:inspect_dataset"),
        inspect_text,
        OnSignal.RESUME,
        made=lambda result: result.path,
        examples=(
            "onepass classify inspect --dataset digits",
            "onepass classify inspect --dataset digits --top 20",
        ),
    ),
    Command(
        "next",
        "Say which unlabelled images to label next: those that teach the probe most.",
        NextConfig,
        later("onepass.classify.analysis.labelling:choose_next"),
        next_text,
        made=lambda result: result.table,
        examples=(
            "onepass classify next --dataset digits --from unlabelled",
            "onepass classify next --dataset digits --from unlabelled --by k-center --count 5",
        ),
    ),
]

MOVED = {"predict": "onepass predict DATASET, or DATASET/PROBE"}

if __name__ == "__main__":
    sys.exit(main("classify", COMMANDS, moved=MOVED))
