"""Names that become paths: what a data set, a run, a probe or a feature file may be called."""

import re

from onepass.cache.errors import OnepassError, UsageError

# Files of a data set's folder in the store.
PIXELS, MANIFEST = "pixels.h5", "manifest.h5"
HELD_OUT = "held-out"  # folder of the images that are no rows
NEXT_PIXELS = "pixels.next.h5"  # new pixel rows, until the manifest that belongs to them is written

DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a new one
LONGEST = 240  # bytes; a file system allows 255, and endings come behind
ENDINGS = (".lock", ".parts", ".tmp")  # of what lies beside a file or folder while it is written


def check_name(where: str, name: str, error: type[OnepassError] = UsageError) -> None:
    """Refuse a name that would be no name of one file or folder, or would lead to another place.

    Args:
        where: What has the name, such as "--run".
        name: What was received.
        error: What is raised.

    Raises:
        OnepassError: It is empty or too long, holds / or \\ or what cannot be printed, begins with
            anything but a letter, a digit or _, or ends with a space or like a temporary file.
    """
    begins = name[:1].isalnum() or name[:1] == "_"
    plain = (
        name.isprintable() and not set(name) & {"/", "\\"} and not name.endswith((" ", *ENDINGS))
    )
    if not (begins and plain and len(name.encode()) <= LONGEST):
        raise error(
            f"{where} {name!r}: expected a name of at most {LONGEST} bytes that begins with a letter, a "
            f"digit or _, holds no / or \\ and does not end with a space, {', '.join(ENDINGS)}"
        )


def check_new_dataset(where: str, name: str) -> None:
    """Refuse what is no good name for a new data set.

    Raises:
        UsageError: It holds more than letters, digits, . _ and -, or begins with one of these marks.
    """
    if not DATASET.fullmatch(name):
        raise UsageError(f"{where}: expected letters, digits, . _ or -, received {name!r}")
    check_name(where, name)


def check_run(where: str, text: str) -> tuple[str, str]:
    """Return the data set and the run of DATASET/RUN.

    Raises:
        UsageError: It is written in another way.
    """
    parts = text.split("/")
    if len(parts) != 2:
        raise UsageError(f"{where} {text}: expected DATASET/RUN, as onepass finetune prints it")
    for part in parts:
        check_name(where, part)
    return parts[0], parts[1]
