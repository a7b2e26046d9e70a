"""The flags of a command in a TOML file: read by `--config`, written beside what the command makes."""

import argparse
import dataclasses
import json
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onepass.cache.commandline.flags import flag_name
from onepass.cache.errors import UsageError, unknown_name
from onepass.cache.files import write_atomic

NAME = "command.toml"
COMMAND = "command"  # the key that says which command the flags are of


def take_flags(parser: argparse.ArgumentParser, path: Path, words: str) -> None:
    """Make what a file says of its flags the defaults of a parser, so that the command line wins.

    Args:
        parser: Of the command.
        path: A TOML file: a key for each flag, named and written as on the command line; several values are
            an array. `command`, where it is there, names the command.
        words: That name the command, such as "classify sweep".

    Raises:
        UsageError: It cannot be read, is no TOML, or is of another command; or a key or its value does not fit.
    """
    flags = {
        flag_name(action.dest): action
        for action in parser._actions
        if action.dest not in ("help", "config")
    }
    for key, value in _read(path).items():
        where = f"{path}: {key}"
        if key == COMMAND:
            if value != words:
                raise UsageError(f"{where}: expected {words!r}, received {value!r}")
        elif key in flags:
            action = flags[key]
            action.default, action.required = _value(action, value, where), False
            if not action.option_strings:
                action.nargs = "*" if action.nargs in ("+", "*") else "?"
        else:
            raise UsageError(f"{path}: {unknown_name('key', key, flags)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: expected a TOML file with flags; it cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:  # no UTF-8, no TOML
        raise UsageError(f"{path}: expected a TOML file with flags, found none: {error}") from error


def _value(action: argparse.Action, value: Any, where: str) -> Any:
    """Return what the command line would make of a value that a file gives."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where}: expected true or false, received {value!r}")
        return value
    several = action.nargs in ("+", "*")
    values = value if several and isinstance(value, list) else [value]
    converted = []
    for one in values:
        if isinstance(one, bool | dict | list):
            raise UsageError(
                f"{where}: expected {'values' if several else 'one value'}, received {one!r}"
            )
        kind: Any = action.type or str
        try:
            made = kind(str(one))
        except (ValueError, argparse.ArgumentTypeError) as error:
            expected = f"; expected {kind.__name__}" if isinstance(kind, type) else f": {error}"
            raise UsageError(f"{where}: {one!r} does not fit{expected}") from error
        if action.choices is not None and made not in action.choices:
            choices = ", ".join(map(str, action.choices))
            raise UsageError(f"{where}: expected one of {choices}; received {one!r}")
        converted.append(made)
    return converted if several else converted[0]


def write_flags(made: Path, words: str, config: Any) -> None:
    """Write a command beside what it made, so that `--config` gives it again.

    Args:
        made: In a folder, `command.toml`; beside a file `a.csv`, `a.command.toml`.
        words: That name the command.
        config: Its flags; those that are as by default are left out.
    """
    path = made / NAME if made.is_dir() else made.with_name(f"{made.stem}.{NAME}")
    lines = [f"# Gives the same command again: onepass {words} --config {shlex.quote(str(path))}"]
    given = {COMMAND: words, **_given(config)}
    lines += [f"{key} = {_toml(value)}" for key, value in given.items()]
    write_atomic(path, "\n".join([*lines, ""]).encode())


def _given(config: Any) -> Mapping[str, Any]:
    """Return the flags that are not as by default, by their names on the command line."""
    values = {field: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {flag_name(f.name): value for f, value in values.items() if value != f.default}


def _toml(value: Any) -> str:
    """Return a flag's value as TOML; a JSON string is one of TOML but for the character DEL."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
