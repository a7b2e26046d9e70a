"""New pictures sorted into a folder for each class: copied or linked, never moved or overwritten."""

import os
import re
from pathlib import Path

from onepass.cache.errors import UsageError
from onepass.cache.files import make_folder
from onepass.predict.pictures.answers import Answer
from onepass.predict.pictures.sources import Picture

OPEN = "_open"  # folder of the pictures whose answer was left open
UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
LONGEST = 120  # characters of a name


class Sorter:
    """Puts pictures into FOLDER/<class>; names come from strangers, and none leads out of FOLDER.

    Args:
        folder: Where the class folders lie.
        link: Whether a file of this machine is linked to instead of copied.
    """

    def __init__(self, folder: Path, link: bool) -> None:
        self.folder, self.link = folder, link

    def put(self, picture: Picture, answer: Answer) -> None:
        """Put a picture where its answer says; one that could not be read stays where it is.

        Raises:
            UsageError: The folder of the class is a link that leads out of FOLDER.
            OnepassError: The picture cannot be read any more.
        """
        if answer.unread:
            return
        decided = answer.decided
        place = self.folder / (safe_name(decided.class_name) if decided else OPEN)
        make_folder(place)
        if self.folder.resolve() not in place.resolve().parents:
            raise UsageError(
                f"{place}: expected a folder inside {self.folder}, found a link that leads out of it"
            )
        name = safe_name(re.split(r"[/\\]", picture.name.split("?")[0])[-1])
        if self.link and picture.path and not picture.member:
            _link(place, name, picture.path.resolve())
        else:
            _copy(place, name, picture.read())


def write_new(folder: Path, name: str, content: bytes) -> None:
    """Write a file under a name that a stranger may have given; a free one is taken where it is not new."""
    make_folder(folder)
    _copy(folder, safe_name(name), content)


def safe_name(text: str) -> str:
    """Return a text as a name inside a folder: no separators, no leading dot, not too long."""
    text = UNSAFE.sub("_", text)
    text = ("_" + text[1:]) if text.startswith(".") else text
    _, dot, suffix = text.rpartition(".")
    if len(text.encode("utf-8", "surrogateescape")) > LONGEST:
        keep = f"{dot}{suffix}"[:12] if dot else ""
        text = os.fsencode(text)[: LONGEST - len(keep)].decode(errors="ignore") + keep
    return text or "_"


def _free_names(name: str) -> list[str]:
    stem, dot, suffix = name.rpartition(".")
    base, end = (stem, dot + suffix) if stem else (name, "")
    return [name, *(f"{base}-{number}{end}" for number in range(2, 10_000))]


def _link(place: Path, name: str, target: Path) -> None:
    for free in _free_names(name):
        path = place / free
        if path.is_symlink() and path.readlink() == target:
            return
        try:
            path.symlink_to(target)
        except FileExistsError:
            continue
        return


def _copy(place: Path, name: str, content: bytes) -> None:
    for free in _free_names(name):
        path = place / free
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return
        try:  # O_EXCL: what is there already, a link among it, is never written through
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return
