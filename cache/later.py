"""What is imported when it is asked for: `--help`, and whoever needs none of it, does not wait."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from onepass.cache.keras_settings import load_keras


def imported(place: str) -> Any:
    """Return what MODULE:NAME names, such as "onepass.data.relabel:relabel"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def later(place: str, *, keras: bool = False) -> Callable[..., Any]:
    """Return a function whose module is imported when it is called.

    Args:
        place: As for `imported`.
        keras: Whether it needs Keras, which is loaded before.
    """

    def call(*arguments: Any) -> Any:
        if keras:
            load_keras()
        return imported(place)(*arguments)

    return call
