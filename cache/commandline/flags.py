"""A configuration dataclass is a command's flags: its fields, their types and their defaults."""

import argparse
import dataclasses
import math
import os
import re
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar

from onepass.cache.errors import UsageError
from onepass.cache.stores import Store

EXECUTORS = ("local", "dask", "ray")
NUMBER = r"[0-9]+(?:\.[0-9]+)?"
SIZE = re.compile(rf"(?P<number>{NUMBER})\s*(?P<unit>b|kb|mb|gb)?")
DURATION = re.compile(
    rf"((?P<hours>{NUMBER})h)?((?P<minutes>{NUMBER})m)?((?P<seconds>{NUMBER})s)?|(?P<bare>{NUMBER})"
)


def flag(
    default: Any = MISSING,
    help: str = "",
    *,
    choices: Sequence[str] | None = None,
    positional: bool = False,
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """Return a dataclass field that is also a command-line flag of the same name.

    Args:
        default: The default, the only place where it stands; a field without one is required.
        help: One line for `--help`.
        choices: The only values allowed; those of a `Literal` need not be repeated.
        positional: Given by position instead of by `--name`.
        metavar: What `--help` shows for the value.
        parse: Turns the text into the value; raises ValueError with what was expected.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "positional": positional,
        "metavar": metavar,
        "parse": parse,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where the rows are kept; every command has it."""

    cache_dir: Path | None = flag(
        None, "folder of the stored rows (default: $ONEPASS_CACHE, else cache/store)"
    )

    read_from: tuple[Path, ...] = flag(
        (),
        "other stores that are only read: what they have is used, and copied, but never written "
        "(default: $ONEPASS_READ_FROM)",
        metavar="STORE",
    )

    @property
    def store(self) -> Store:
        """Where rows are kept; by default below the working directory.

        Raises:
            UsageError: A store to read from is no folder.
        """
        default = os.environ.get("ONEPASS_CACHE") or "cache/store"
        named = os.environ.get("ONEPASS_READ_FROM", "").split(os.pathsep)
        others = self.read_from or tuple(Path(name) for name in named if name)
        for other in others:
            if not other.expanduser().is_dir():
                raise UsageError(f"--read-from {other}: expected the folder of a store, found none")
        return Store(
            (self.cache_dir or Path(default)).expanduser(),
            tuple(other.expanduser() for other in others),
        )


@dataclass(frozen=True, kw_only=True)  # without slots: it can stand beside another
class ClusterConfig(StoreConfig):
    """Whose work the workers of a cluster may do."""

    executor: str = flag(
        "local",
        "where the work is done: by this process, or by the workers of a running Dask or Ray cluster that sees the store "
        "(and what is read) at the same path",
        choices=EXECUTORS,
    )
    address: str = flag("", "of that cluster", metavar="HOST:PORT")

    def check_cluster(self) -> None:
        """Refuse a cluster without its address, and an address without a cluster.

        Raises:
            UsageError: One of them is missing.
        """
        if (self.executor != "local") != bool(self.address):
            raise UsageError(
                f"--executor {self.executor} --address {self.address!r}: a cluster needs its address, and only a "
                "cluster has one"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsConfig(StoreConfig):
    """Where results are kept, for the commands that leave some."""

    runs_dir: Path | None = flag(None, "folder of the results (default: $ONEPASS_RUNS, else runs)")

    @property
    def runs(self) -> Path:
        """Root folder of the results; by default that of the working directory."""
        default = os.environ.get("ONEPASS_RUNS") or "runs"
        return (self.runs_dir or Path(default)).expanduser()


C = TypeVar("C", bound=StoreConfig)


def sent(config: C) -> C:
    """Return a configuration as a worker is given it: it means the same in every working directory, and is done there."""
    store = config.store
    changes: dict[str, Any] = {
        "cache_dir": store.path.resolve(),
        "read_from": tuple(path.resolve() for path in store.read_from),
    }
    if isinstance(config, RunsConfig):
        changes["runs_dir"] = config.runs.resolve()
    if isinstance(config, ClusterConfig):
        changes |= {"executor": "local", "address": ""}
    return dataclasses.replace(config, **changes)


def parse_duration(text: str) -> float:
    """Return the seconds of `8h45m`, `90s`, `2h` or a bare number of seconds.

    Raises:
        ValueError: It is written in another way, such as `8h45` (minutes or seconds?), or is 0.
    """
    match = DURATION.fullmatch(text.strip().lower())
    parts = match.groupdict() if match else {}
    units = {"hours": 3600, "minutes": 60, "seconds": 1, "bare": 1}
    seconds = sum(float(parts[name]) * units[name] for name in parts if parts[name])
    if not 0 < seconds < math.inf:
        raise ValueError(f"expected a duration such as 8h45m, received {text!r}")
    return seconds


def parse_bytes(text: str) -> float:
    """Return the bytes of `2GB`, `500 MB`, `12kB` (powers of 1000) or a bare number of bytes.

    Raises:
        ValueError: It is written in another way.
    """
    match = SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"expected a size such as 2GB or 500MB, received {text!r}")
    return float(match["number"]) * 1000 ** "bkmg".index((match["unit"] or "b")[0])


def make_parser(program: str, summary: str, config: type, end: str = "") -> argparse.ArgumentParser:
    """Return the parser of one command.

    Args:
        program: The words that call it.
        summary: One line that says what it does.
        config: A dataclass whose fields are the flags.
        end: What `--help` ends with.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=summary,
        epilog=end or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(config)
    for field in sorted(
        dataclasses.fields(config),
        key=lambda f: f.name in ("memory", "cache_dir", "read_from", "runs_dir"),
    ):
        _add_flag(parser, field, hints[field.name])
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file with flags; those given here win"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    said = parser.add_mutually_exclusive_group()
    said.add_argument("--quiet", action="store_true", help="say nothing but the result and errors")
    said.add_argument("--verbose", action="store_true", help="say more, with times")
    return parser


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    """Turn one dataclass field into one flag: the type gives the form, the default stays in the dataclass."""
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kind = (
        next(part for part in typing.get_args(hint) if part is not types.NoneType)
        if optional
        else hint
    )
    several = typing.get_origin(kind) is tuple
    if several:
        kind = typing.get_args(kind)[0]
    meta, required = field.metadata, field.default is MISSING
    choices = meta["choices"]
    if typing.get_origin(kind) is typing.Literal:
        kind, choices = str, typing.get_args(kind)
    text = meta["help"]
    if not required and field.default not in (None, (), ("",), "", False, True):
        shown = " ".join(map(str, field.default)) if several else field.default  # type: ignore[arg-type]
        text += f" (default: {shown})"
    options: dict[str, Any] = {"help": text.replace("%", "%%")}
    if not required:
        options["default"] = field.default
    if kind is bool:
        options["action"] = (
            argparse.BooleanOptionalAction if field.default is True else "store_true"
        )
    else:
        options["type"] = _checked(meta["parse"]) if meta["parse"] else kind
        options["choices"], options["metavar"] = choices, meta["metavar"]
        if several:
            options["nargs"] = "+" if required or not meta["positional"] else "*"
    if meta["positional"]:
        if not several and not required:
            options["nargs"] = "?"
        parser.add_argument(field.name, **options)
    else:
        parser.add_argument(
            "--" + flag_name(field.name),
            dest=field.name,
            required=required,
            **options,
        )


def flag_name(field: str) -> str:
    """Return the name of a field's flag: `from_` is `--from`, `time_limit` is `--time-limit`."""
    return field.rstrip("_").replace("_", "-")


def _checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let argparse show the message of a parser's ValueError."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert
