"""python -m classify [ensemble | predict]: heads on vectors."""

import sys
from typing import Any

from cache.cli import Command, main
from classify.config import ClassifyConfig, EnsembleConfig, PredictConfig
from classify.text import classify_text, ensemble_text, predict_text


def _classify(config: ClassifyConfig) -> Any:
    from classify.pipeline import run_probes

    return run_probes(config)


def _ensemble(config: EnsembleConfig) -> Any:
    from classify.ensemble import run_ensemble

    return run_ensemble(config)


def _predict(config: PredictConfig) -> Any:
    from classify.predict import predict_split

    return predict_split(config)


COMMANDS = [
    Command(
        "",
        "Try heads on the stored features, rank them, and keep the best.",
        ClassifyConfig,
        _classify,
        classify_text,
    ),
    Command(
        "ensemble",
        "Put probes of the leaderboard together: average or stack their probabilities.",
        EnsembleConfig,
        _ensemble,
        ensemble_text,
    ),
    Command(
        "predict",
        "Write a probe's classes for the test or val images to a file.",
        PredictConfig,
        _predict,
        predict_text,
    ),
]

if __name__ == "__main__":
    sys.exit(main("classify", COMMANDS))
