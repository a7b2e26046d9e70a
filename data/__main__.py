"""onepass data prepare | relabel | export | list | show | verify."""

import sys

from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.later import later
from onepass.data.config import (
    EmbeddingsConfig,
    ExportConfig,
    ListConfig,
    PrepareConfig,
    RelabelConfig,
    ShowConfig,
    VerifyConfig,
)

COMMANDS = [
    Command(
        "prepare",
        "Decode the images of a source once and store them as rows.",
        PrepareConfig,
        later("onepass.data.prepare:prepare_dataset"),
        later("onepass.data.summary:prepared_text"),
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
        later("onepass.data.relabel:relabel"),
        later("onepass.data.relabel:relabelled_text"),
        examples=(
            "onepass data relabel digits --labels digits-labels.csv",
            "onepass data relabel my-images --labels corrected.csv",
        ),
    ),
    Command(
        "export",
        "Write the labels as a table, to be edited and given to relabel.",
        ExportConfig,
        later("onepass.data.relabel:export_labels"),
        later("onepass.data.relabel:exported_text"),
        examples=(
            "onepass data export digits --labels",
            "onepass data export my-images --labels --out corrected.csv",
        ),
    ),
    Command(
        "list",
        "The data sets that are prepared, and those that can be.",
        ListConfig,
        later("onepass.data.listing:list_datasets"),
        later("onepass.data.listing:list_text"),
        examples=(
            "onepass data list",
            "onepass data list --json",
        ),
    ),
    Command(
        "show",
        "All that is known of one: classes, source, licence, published results.",
        ShowConfig,
        later("onepass.data.listing:show_dataset"),
        later("onepass.data.listing:show_text"),
        examples=(
            "onepass data show digits",
            "onepass data show my-images --history",
        ),
    ),
    Command(
        "verify",
        "Read every byte and compare it with the digests.",
        VerifyConfig,
        later("onepass.data.listing:verify_datasets"),
        later("onepass.data.listing:verified_text"),
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
        later("onepass.data.embeddings:export_embeddings"),
        later("onepass.data.embeddings:exported_text"),
        made=lambda result: result.paths[0],
        examples=(
            "onepass cache export digits/efficientnet_lite0@224 --out digits.parquet",
            "onepass cache export digits/efficientnet_lite0@224 --format projector --out projector",
        ),
    )
]

if __name__ == "__main__":
    sys.exit(main("data", COMMANDS))
