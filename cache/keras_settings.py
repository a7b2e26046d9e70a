"""What Keras is set to, looked at before it is imported: it raises whatever it likes while it loads."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from onepass.cache.errors import InvalidInputError
from onepass.cache.stderr import suppress_stderr

BACKENDS = ("tensorflow", "jax")
# What all numbers here were made with. Keras lets a file in the home folder change it.
EXPECTED = {"floatx": "float32", "image_data_format": "channels_last"}


def load_keras() -> None:
    """Import Keras, which talks while it loads; what other threads say later is not held back.

    Raises:
        InvalidInputError: See `check_keras`.
    """
    check_keras()
    if "keras" not in sys.modules:
        with suppress_stderr():
            import keras  # noqa: F401


def check_keras() -> None:
    """Refuse settings with which Keras cannot be imported, or computes something else.

    Raises:
        InvalidInputError: Names the variable or the file, and what is expected there.
    """
    path = _home() / "keras.json"
    settings = _in_use() if "keras" in sys.modules else _settings(path)
    where = "Keras is set to" if "keras" in sys.modules else f"{path}:"
    for name, expected in EXPECTED.items():
        if settings.get(name, expected) != expected:
            raise InvalidInputError(
                f"{where} {name} {settings[name]!r}: expected {expected!r}; change it, or set KERAS_HOME to "
                "another folder"
            )
    backend = os.environ.get("KERAS_BACKEND") or settings.get("backend", BACKENDS[0])
    named = "KERAS_BACKEND" if os.environ.get("KERAS_BACKEND") else f"{path}: backend"
    if backend not in BACKENDS:
        raise InvalidInputError(f"{named}={backend}: expected {' or '.join(BACKENDS)}")
    if importlib.util.find_spec(backend) is None:
        raise InvalidInputError(
            f"{named}={backend}: its package is not installed; run: pip install {backend}"
        )


def _home() -> Path:
    """Return the folder of Keras's settings, as Keras finds it."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"])
    home = Path("~").expanduser()
    return (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"  # noqa: S108


def _in_use() -> dict[str, Any]:
    config = sys.modules["keras"].config
    return {
        "floatx": config.floatx(),
        "image_data_format": config.image_data_format(),
        "backend": config.backend(),
    }


def _settings(path: Path) -> dict[str, Any]:
    """Return what the file says; Keras leaves out what is no JSON, and fails where it is no object."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    except RecursionError:
        settings = None
    if not isinstance(settings, dict) or not isinstance(settings.get("epsilon", 1e-7), float):
        raise InvalidInputError(
            f"{path}: expected the settings of Keras, a JSON object whose epsilon is a number such as 1e-07; "
            "delete the file, and Keras writes it anew"
        )
    return settings
