"""Variables and what else a run needs to resume, in one file that is whole or is not there.

Each variable is stored under its name in the model, so that it is never mistaken for another one of
the same shape. Files of earlier versions hold the variables by position; they are still read.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.errors import CorruptFileError
from onepass.cache.files import parse_json, read_bytes, write_atomic
from onepass.finetune.training import hosts

STATE = "state"
Variables = Mapping[str, Any]  # Keras variables by their names


def save_variables(path: Path, groups: Mapping[str, Variables], state: dict[str, Any]) -> None:
    """Write variables and JSON state to one `.npz`, atomically; where several processes train, the first does.

    Args:
        path: The file.
        groups: Variables, or arrays, by name, such as {"model": named_variables(model)}.
        state: What else is to be known, as JSON.
    """
    if hosts.first():
        write_atomic(path, packed_variables(groups, state))
    hosts.wait()  # the others may read it


def packed_variables(groups: Mapping[str, Variables], state: dict[str, Any]) -> bytes:
    """Return the bytes of such a file."""
    arrays = {name: np.asarray(variable) for name, variable in _flat(groups).items()}
    text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    return pack_arrays({**arrays, STATE: text})


def load_variables(
    path: Path, groups: Mapping[str, Variables], mend: str = "delete it to start over"
) -> dict[str, Any]:
    """Read such a file into variables of the same names, shapes and kinds of number; return its state.

    Nothing is assigned unless everything fits.

    Args:
        path: The file.
        groups: Variables by name.
        mend: What the user is to do about a file that cannot be read.

    Raises:
        CorruptFileError: It is cut short, changed, or of another model; then the variable is named.
    """
    try:
        arrays = unpack_arrays(read_bytes(path))
        state: dict[str, Any] = parse_json(arrays.pop(STATE).tobytes())
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"{path}: expected a checkpoint, but it cannot be read ({error}); {mend}"
        ) from error
    names = _names_by_position(groups)
    if arrays and arrays.keys() <= names.keys():
        arrays = {names[position]: array for position, array in arrays.items()}
    wanted = _flat(groups)
    for name in sorted(wanted.keys() | arrays.keys()):
        ours, theirs = (
            f"{tuple(held[name].shape)} {_kind(held[name])}" if name in held else "nothing"
            for held in (wanted, arrays)
        )
        if ours != theirs:
            raise CorruptFileError(
                f"{path}: made for another model: {name}: expected {ours}, found {theirs}"
            )
    for name, variable in wanted.items():
        variable.assign(arrays[name])
    return state


def named_variables(model: keras.Model) -> dict[str, Any]:
    """Return all variables of a model, random states included, by their paths.

    Where Keras made up a name, such as "conv2d_7" or "seed_generator_3", its number depends on what the
    process has built before. Such numbers are counted anew within the model.
    """
    made_up = {_snake_case(type(layer).__name__) for layer in model._flatten_layers()}
    made_up.add("seed_generator")
    split = [[_numbered(part, made_up) for part in v.path.split("/")] for v in model.variables]
    numbers: dict[str, set[int]] = {}  # that Keras gave, by name
    for name, number in (part for path in split for part in path):
        if number is not None:
            numbers.setdefault(name, set()).add(number)
    ranks: dict[tuple[str, int | None], str] = {
        (name, n): f"_{i}" if i else ""
        for name, found in numbers.items()
        for i, n in enumerate(sorted(found))
    }
    paths = ["/".join(name + ranks.get((name, n), "") for name, n in path) for path in split]
    return dict(zip(_distinct(paths), model.variables, strict=True))


def named_slots(optimizer: keras.optimizers.Optimizer, model: Variables) -> dict[str, Any]:
    """Return all variables of an optimiser by the variable of the model that they belong to.

    Args:
        optimizer: Built.
        model: From `named_variables`.
    """
    owners = {variable.path.replace("/", "_"): name for name, variable in model.items()}
    names = []
    for variable in optimizer.variables:
        owner, _, slot = variable.name.rpartition("_")
        names.append(f"{owners[owner]}/{slot}" if owner in owners else variable.name)
    return dict(zip(_distinct(names), optimizer.variables, strict=True))


def all_finite(variables: Variables) -> bool:
    """Say whether no number in these variables is NaN or infinite."""
    arrays = (np.asarray(v) for v in variables.values())
    return all(bool(np.isfinite(a).all()) for a in arrays if a.dtype.kind == "f")


def _kind(variable: Any) -> str:
    """Return "float32" and so on without its width: which an optimiser's counters may have in another."""
    return str(variable.dtype).rstrip("0123456789")


def _flat(groups: Mapping[str, Variables]) -> dict[str, Any]:
    return {f"{group}/{name}": v for group, named in groups.items() for name, v in named.items()}


def _names_by_position(groups: Mapping[str, Variables]) -> dict[str, str]:
    """Return the name of each variable by what an earlier version called it: group and position."""
    return {
        f"{group}/{i:04d}": f"{group}/{name}"
        for group, named in groups.items()
        for i, name in enumerate(named)
    }


def _numbered(part: str, made_up: set[str]) -> tuple[str, int | None]:
    """Split a part of a path into a name and Keras' own number, None where the name is not Keras' own."""
    match = re.fullmatch(r"(.+?)(?:_(\d+))?", part)
    if match and match[1] in made_up:
        return match[1], int(match[2] or 0)
    return part, None


def _snake_case(name: str) -> str:
    """Return the name that Keras makes of a class's name."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _distinct(names: Iterable[str]) -> list[str]:
    """Number names that occur more than once."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return distinct
