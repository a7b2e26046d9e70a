"""onepass classify [curve | ensemble | inspect | next | sweep | transfer]: heads on vectors."""

import sys
from typing import Any

from onepass.cache.commandline.command import Command, OnSignal, main
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
    if config.folds:
        from onepass.classify.resampling.folds import run_folds

        return run_folds(config)
    from onepass.classify.pipeline import run_probes

    return run_probes(config)


def _classify_text(result: Any) -> str:
    from onepass.classify.resampling.folds import FoldsResult

    return folds_text(result) if isinstance(result, FoldsResult) else classify_text(result)


def _ensemble(config: EnsembleConfig) -> Any:
    from onepass.classify.ensemble import run_ensemble

    return run_ensemble(config)


def _sweep(config: SweepConfig) -> Any:
    from onepass.classify.search.sweep import run_sweeps

    return run_sweeps(config)


def _curve(config: CurveConfig) -> Any:
    from onepass.classify.resampling.curve import run_curve

    return run_curve(config)


def _transfer(config: TransferConfig) -> Any:
    from onepass.classify.analysis.transferability import score_features

    return score_features(config)


def _inspect(config: InspectConfig) -> Any:
    from onepass.classify.analysis.inspection import inspect_dataset

    return inspect_dataset(config)


def _next(config: NextConfig) -> Any:
    from onepass.classify.analysis.labelling import choose_next

    return choose_next(config)


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
        _ensemble,
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
        _sweep,
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
        _curve,
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
        _transfer,
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
        _inspect,
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
        _next,
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
