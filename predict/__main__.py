"""onepass predict [export]: use what won."""

import sys
from typing import Any

from onepass.cache.commandline.command import Command, main
from onepass.cache.keras_settings import load_keras
from onepass.cache.later import imported, later
from onepass.predict.config import ExportConfig, PredictConfig, SimilarConfig
from onepass.predict.text import export_text, pictures_text, predict_text


def _predict(config: PredictConfig) -> Any:
    config = config.parted()
    if config.images:
        load_keras()
    return imported("onepass.predict.pipeline:write_predictions")(config)


def _text(result: Any) -> str:
    return predict_text(result) if hasattr(result, "record") else pictures_text(result)


COMMANDS = [
    Command(
        "",
        "Say which classes a model, or an average of several, gives to new pictures, or to the test or "
        "validation images of its data set. The exit code is 3 where some of the pictures could not be read.",
        PredictConfig,
        _predict,
        _text,
        made=lambda result: result.path,
        examples=(
            "onepass predict digits new-images --out answers.csv",
            "onepass predict digits/short --split val",
        ),
    ),
    Command(
        "export",
        "Write a model as a folder for another machine, or as one network for other programs.",
        ExportConfig,
        later("onepass.predict.export:export_model", keras=True),
        export_text,
        made=lambda result: result.labels.parent,
        examples=(
            "onepass predict export digits",
            "onepass predict export digits/short --format keras --out network",
        ),
    ),
]

# of `onepass data`, which knows no backbone: `onepass/__main__.py` puts them together
DATA_COMMANDS = [
    Command(
        "similar",
        "Find the stored images that are most like others, stored or new, by their vectors.",
        SimilarConfig,
        later("onepass.predict.similar:find_similar", keras=True),
        later("onepass.predict.similar:similar_text"),
        made=lambda result: result.sheet,
        examples=(
            "onepass data similar digits new-images --count 3",
            "onepass data similar digits new-images --out similar.png",
        ),
    )
]

if __name__ == "__main__":
    sys.exit(main("predict", COMMANDS))
