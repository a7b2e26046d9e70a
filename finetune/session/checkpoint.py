"""Everything a run needs to go on, in one file that is whole or is not there."""

import json
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from onepass.cache.errors import CorruptFileError
from onepass.cache.files import write_atomic
from onepass.classify.heads.storage import pack_arrays, unpack_arrays

STATE = "state"


def save_arrays(path: Path, variables: dict[str, list], state: dict[str, Any]) -> None:
    """Write variables and JSON state to one `.npz`, atomically.

    Args:
        path: The file.
        variables: Lists of Keras variables by group, such as {"model": model.variables}.
        state: What else is to be known, as JSON.
    """
    arrays = {
        f"{group}/{i:04d}": np.asarray(v)
        for group, vs in variables.items()
        for i, v in enumerate(vs)
    }
    text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    write_atomic(path, pack_arrays({**arrays, STATE: text}))


def load_arrays(path: Path, variables: dict[str, list]) -> dict[str, Any]:
    """Read such a file into variables of the same shapes; return its state.

    Nothing is assigned unless everything fits.

    Raises:
        CorruptFileError: It is cut short, changed, or of another model.
    """
    try:
        arrays = unpack_arrays(path.read_bytes())
        state = json.loads(arrays.pop(STATE).tobytes())
    except (OSError, ValueError, KeyError, zlib.error) as error:
        raise CorruptFileError(
            f"{path}: expected a checkpoint, but it cannot be read ({error}); delete it to start anew"
        ) from error
    wanted = {f"{group}/{i:04d}": v for group, vs in variables.items() for i, v in enumerate(vs)}
    for name in sorted(wanted.keys() | arrays.keys()):
        ours = tuple(wanted[name].shape) if name in wanted else "nothing"
        theirs = arrays[name].shape if name in arrays else "nothing"
        if ours != theirs:
            raise CorruptFileError(
                f"{path}: made for another model: {name}: expected {ours}, found {theirs}"
            )
    for name, variable in wanted.items():
        variable.assign(arrays[name])
    return state


def model_variables(model: keras.Model) -> list:
    """Return all variables of a model, random states included, in an order that does not depend on what is trained."""
    return list(model.variables)


def finite(variables: list) -> bool:
    """Say whether no number in these variables is NaN or infinite."""
    arrays = (np.asarray(v) for v in variables)
    return all(bool(np.isfinite(a).all()) for a in arrays if a.dtype.kind == "f")
