"""Errors of the whole project: each says where, what was expected, what was received and how to mend it."""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NO_MEMORY = re.compile(
    r"unable to allocate|cannot allocate|memory allocation failed|out of memory", re.IGNORECASE
)

Step = Literal[
    "prepare",
    "prepare a folder",
    "list data sets",
    "list the store",
    "extract",
    "delete",
    "migrate",
    "classify",
    "classify anew",
    "score anew",
    "finetune",
    "report",
]


@dataclass(frozen=True, slots=True)
class Remedy:
    """The step that mends an error, without a command: whoever shows the error knows how to take it.

    Attributes:
        step: What is to be done.
        subject: The data set, or the key of the stored file, that it is done to.
        flags: How, as words of a command line; the step's usual way where none are given.
    """

    step: Step
    subject: str = ""
    flags: tuple[str, ...] = ()


class OnepassError(Exception):
    """Base of every error that is the input's or the machine's fault, not a bug of Onepass.

    Attributes:
        exit_code: Of a command that ends with it.
        remedy: The step of Onepass that mends it; None where the message says all.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: Remedy | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class UsageError(OnepassError, ValueError):
    """The command line itself is wrong."""

    exit_code = 2


class InvalidInputError(OnepassError, ValueError):
    """A value, an image or an array is not what the work needs."""


class MissingFileError(OnepassError, FileNotFoundError):
    """Something that should be on disk is not there."""


class UnknownNameError(OnepassError, LookupError):
    """A name that no table holds."""


class CorruptFileError(OnepassError, OSError):
    """A file's bytes are not those that were written."""


class UnreadableFileError(OnepassError, OSError):
    """The system refuses to read a file (permission, no locks, a failing disk); it may well be whole."""


class StaleError(OnepassError, ValueError):
    """A file was made from other inputs than those of today."""


class EarlierFormatError(OnepassError, ValueError):
    """A file is of a format before this version's; it is whole, and can be brought up to date."""


class OutOfSpaceError(OnepassError, OSError):
    """The disk has, or will have, no room."""


class DeviceError(OnepassError, RuntimeError):
    """The accelerator itself failed, or its driver; what was finished is kept."""


class LockedError(OnepassError, BlockingIOError):
    """Another process is writing the same file."""


class ClusterError(OnepassError, ConnectionError):
    """A cluster cannot be reached, or its workers cannot do their part."""


def refused_by_system(error: BaseException) -> bool:
    """Tell whether the system refused to read, or has no memory left to; an error of wrong bytes has no number of
    the system's."""
    numbered = isinstance(error, OSError) and bool(error.errno)
    return lacks_memory(error) or (numbered and not isinstance(error, OnepassError))


def lacks_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: HDF5 says so in words only."""
    if isinstance(error, OnepassError):
        return False
    in_words = isinstance(error, OSError | RuntimeError) and NO_MEMORY.search(str(error))
    return (
        isinstance(error, MemoryError)
        or getattr(error, "errno", 0) == errno.ENOMEM
        or bool(in_words)
    )


def unreadable(path: Path | str, error: BaseException) -> UnreadableFileError:
    """Return the error for a file that the system refuses to read; `error` is `refused_by_system`."""
    number, advice = getattr(error, "errno", 0) or 0, "see to its permissions, disk or mount"
    if lacks_memory(error):
        number, advice = errno.ENOMEM, "close other programs or raise the limit of memory"
    return UnreadableFileError(
        f"{path}: cannot be read now ({os.strerror(number)}), which says nothing of its content; "
        f"{advice}, and run the same command again"
    )


def raise_together(errors: Sequence[OnepassError]) -> None:
    """Raise one error that says all of several, of the class and with the remedy of the first, if there is any."""
    if errors:
        raise type(errors[0])("; ".join(map(str, errors)), remedy=errors[0].remedy)


def unknown_name(
    kind: str, name: str, known: Iterable[str], remedy: Remedy | None = None
) -> UnknownNameError:
    """Return the error for a name that is in no table, with the nearest valid ones.

    Args:
        kind: What the name should have been, such as "backbone".
        name: What was received.
        known: Every valid name.
        remedy: What makes the name a valid one.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(near) + "?"
    elif len(names) <= 12:
        hint = "known: " + (", ".join(names) or "none yet")
    else:
        hint = f"there are {len(names)}, such as " + ", ".join(names[:5])
    return UnknownNameError(f"{kind} {name!r} is unknown; {hint}", remedy=remedy)
