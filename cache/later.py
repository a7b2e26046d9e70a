"""What is imported when it is asked for: `--help`, and whoever needs none of it, does not wait."""

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from onepass.cache.keras_settings import loading_keras


def imported(place: str) -> Any:
    """Return what MODULE:NAME names, such as "onepass.data.relabel:relabel"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def later(place: str, *, keras: bool = False) -> Callable[..., Any]:
    """Return a function whose module is imported when it is called.

    Args:
        place: As for `imported`.
        keras: Whether the module imports Keras, which talks while it loads.
    """

    def call(*arguments: Any) -> Any:
        with loading_keras() if keras else nullcontext():
            function = imported(place)
        return function(*arguments)

    return call
