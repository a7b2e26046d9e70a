"""onepass predict [export]: use what won."""

import sys
from typing import Any

from onepass.cache.commandline.command import Command, main
from onepass.cache.stderr import suppress_stderr
from onepass.predict.config import ExportConfig, PredictConfig
from onepass.predict.text import export_text, predict_text


def _predict(config: PredictConfig) -> Any:
    from onepass.predict.models import is_run
    from onepass.predict.split import predict_split

    if any(is_run(config.runs, model) for model in config.models):
        with suppress_stderr():
            import onepass.predict.runs  # noqa: F401  (TensorFlow talks while it loads)
    return predict_split(config)


def _export(config: ExportConfig) -> Any:
    with suppress_stderr():
        from onepass.predict.export import export_run
    return export_run(config)


COMMANDS = [
    Command(
        "",
        "Write the classes that a model, or an average of several, gives to the test or validation images.",
        PredictConfig,
        _predict,
        predict_text,
    ),
    Command(
        "export",
        "Write a fine-tuned run as a model file for other programs.",
        ExportConfig,
        _export,
        export_text,
    ),
]

if __name__ == "__main__":
    sys.exit(main("predict", COMMANDS))
