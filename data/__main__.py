"""onepass data prepare | list | show | verify."""

import sys
from typing import Any

from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.stopping import StopRequest
from onepass.data.config import ListConfig, PrepareConfig, ShowConfig, VerifyConfig


def _prepare(config: PrepareConfig, stop: StopRequest) -> Any:
    from onepass.data.prepare import prepare_dataset

    return prepare_dataset(config, stop)


def _prepared_text(result: Any) -> str:
    from onepass.data.summary import prepared_text

    return prepared_text(result)


def _listing(name: str) -> Any:
    """Return a function of `onepass.data.listing` that is imported when it is called."""

    def call(argument: Any) -> Any:
        from onepass.data import listing

        return getattr(listing, name)(argument)

    return call


COMMANDS = [
    Command(
        "prepare",
        "Decode the images of a source once and store them as rows.",
        PrepareConfig,
        _prepare,
        _prepared_text,
        OnSignal.STOP,
    ),
    Command(
        "list",
        "The data sets that are prepared, and those that can be.",
        ListConfig,
        _listing("list_datasets"),
        _listing("list_text"),
    ),
    Command(
        "show",
        "All that is known of one: classes, source, licence, published results.",
        ShowConfig,
        _listing("show_dataset"),
        _listing("show_text"),
    ),
    Command(
        "verify",
        "Read every byte and compare it with the digests.",
        VerifyConfig,
        _listing("verify_datasets"),
        _listing("verified_text"),
    ),
]

if __name__ == "__main__":
    sys.exit(main("data", COMMANDS))
