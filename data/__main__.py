"""onepass data prepare | relabel | export | list | show | verify."""

import sys
from importlib import import_module
from typing import Any

from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.stopping import StopRequest
from onepass.data.config import (
    EmbeddingsConfig,
    ExportConfig,
    ListConfig,
    PrepareConfig,
    RelabelConfig,
    ShowConfig,
    VerifyConfig,
)


def _prepare(config: PrepareConfig, stop: StopRequest) -> Any:
    from onepass.data.prepare import prepare_dataset

    return prepare_dataset(config, stop)


def _prepared_text(result: Any) -> str:
    from onepass.data.summary import prepared_text

    return prepared_text(result)


def _later(module: str, name: str) -> Any:
    """Return a function of a module of this room that is imported when it is called."""

    def call(argument: Any) -> Any:
        return getattr(import_module(f"onepass.data.{module}"), name)(argument)

    return call


COMMANDS = [
    Command(
        "prepare",
        "Decode the images of a source once and store them as rows.",
        PrepareConfig,
        _prepare,
        _prepared_text,
        OnSignal.STOP,
        made=lambda result: result.summary and result.summary.path,
        examples=(
            "onepass data prepare digits",
            "onepass data prepare my-images --on-bad skip --hold-back 10",
        ),
    ),
    Command(
        "relabel",
        "Change labels by a table, and nothing else: no image is decoded, no vector computed.",
        RelabelConfig,
        _later("relabel", "relabel"),
        _later("relabel", "relabelled_text"),
        examples=(
            "onepass data relabel digits --labels digits-labels.csv",
            "onepass data relabel my-images --labels corrected.csv",
        ),
    ),
    Command(
        "export",
        "Write the labels as a table, to be edited and given to relabel.",
        ExportConfig,
        _later("relabel", "export_labels"),
        _later("relabel", "exported_text"),
        examples=(
            "onepass data export digits --labels",
            "onepass data export my-images --labels --out corrected.csv",
        ),
    ),
    Command(
        "list",
        "The data sets that are prepared, and those that can be.",
        ListConfig,
        _later("listing", "list_datasets"),
        _later("listing", "list_text"),
        examples=(
            "onepass data list",
            "onepass data list --json",
        ),
    ),
    Command(
        "show",
        "All that is known of one: classes, source, licence, published results.",
        ShowConfig,
        _later("listing", "show_dataset"),
        _later("listing", "show_text"),
        examples=(
            "onepass data show digits",
            "onepass data show my-images --history",
        ),
    ),
    Command(
        "verify",
        "Read every byte and compare it with the digests.",
        VerifyConfig,
        _later("listing", "verify_datasets"),
        _later("listing", "verified_text"),
        examples=(
            "onepass data verify",
            "onepass data verify digits",
        ),
    ),
]

# of `onepass cache`, which knows no names and labels: `onepass/__main__.py` puts them together
CACHE_COMMANDS = [
    Command(
        "export",
        "Write feature vectors with names, labels and splits as a file for other programs.",
        EmbeddingsConfig,
        _later("embeddings", "export_embeddings"),
        _later("embeddings", "exported_text"),
        made=lambda result: result.paths[0],
        examples=(
            "onepass cache export digits/efficientnet_lite0@224 --out digits.parquet",
            "onepass cache export digits/efficientnet_lite0@224 --format projector --out projector",
        ),
    )
]

if __name__ == "__main__":
    sys.exit(main("data", COMMANDS))
