"""What the command line adds to the library's words: the command that mends an error or comes next."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from onepass.cache.errors import Remedy, Step

# What is said before the command, and the command; {} is the subject of the remedy.
COMMANDS: dict[Step, tuple[str, str]] = {
    "prepare": ("make it with", "data prepare {}"),
    "prepare a folder": ("images in folders of classes", "data prepare folder --source FOLDER"),
    "list data sets": ("see what there is with", "data list"),
    "list the store": ("see how far it is with", "cache list"),
    "extract": ("make it with", "extract --dataset {}"),
    "migrate": ("bring the store up to date with", "cache migrate"),
    "delete": ("or delete it with", "cache delete {}"),
    "classify": ("make it with", "classify --dataset {}"),
    "classify anew": ("start a new one with", "classify --dataset {} --fresh"),
    "score anew": ("score everything again with", "classify transfer --dataset {} --fresh"),
    "finetune": ("make it with", "finetune --dataset {}"),
    "report": ("make it with", "report --dataset {}"),
}
USUAL_FLAGS: dict[Step, tuple[str, ...]] = {"extract": ("--backbone", "efficientnet_lite0")}
LONGEST = 2000  # characters of an error, without its advice
WITHOUT_RUNS = ("data", "extract", "cache")  # these leave nothing under the folder of the results
DOCTOR = ("cache", "doctor")  # but this one looks there, too
_places: ContextVar[Mapping[str, Any]] = ContextVar("onepass_places", default=MappingProxyType({}))


@contextmanager
def places_of(flags: Mapping[str, Any]) -> Iterator[None]:
    """Let the commands named in the block carry the --cache-dir and --runs-dir of these flags."""
    token = _places.set(flags)
    try:
        yield
    finally:
        _places.reset(token)


def onepass_command(*words: str) -> str:
    """Return a command to be copied, with the folders that the user gave for store and results.

    Args:
        *words: What follows `onepass`, such as "extract", "--dataset", "digits".
    """
    alone = words[0] in WITHOUT_RUNS and words[:2] != DOCTOR
    names = ["cache_dir", "read_from", *([] if alone else ["runs_dir"])]
    places = {name: _places.get().get(name) or () for name in names}
    flags = []
    for name, place in places.items():
        values = place if isinstance(place, (list, tuple)) else (place,)
        flags += [f"--{name.replace('_', '-')}", *map(str, values)] if values else []
    return shlex.join(["onepass", *words, *flags])


def command_of(step: Step, subject: str = "", flags: tuple[str, ...] = ()) -> str:
    """Return the command that takes a step, to be copied; see `Remedy`."""
    words = [word.format(subject) for word in COMMANDS[step][1].split()]
    return onepass_command(*words, *(flags or USUAL_FLAGS.get(step, ())))


def with_advice(message: str, remedy: Remedy | None) -> str:
    """Return an error's message in one line, ending with the command that mends it."""
    line = " ".join(message.split())
    if len(line) > LONGEST:  # a name or a value without end
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"
    if remedy is None:
        return line
    joint = " Or " if line.endswith("?") else "; "
    return f"{line}{joint}{COMMANDS[remedy.step][0]}: {command_of(remedy.step, remedy.subject, remedy.flags)}"
