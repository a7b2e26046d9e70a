"""What killed runs left in the store and among the results: named, and removed where that is asked for."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onepass.cache.commandline.advice import onepass_command
from onepass.cache.commandline.flags import RunsConfig, flag
from onepass.cache.content import find
from onepass.cache.errors import OnepassError
from onepass.cache.flock import is_held
from onepass.cache.locks import exclusive, leftovers_below
from onepass.cache.progress import human_bytes
from onepass.cache.rowfile import RowFile
from onepass.cache.rows import read_plan
from onepass.cache.shards import shard_keys

SETTLED = 60.0  # seconds; a younger temporary file may belong to a write that takes no lock
PARTS = ".parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorConfig(RunsConfig):
    """Flags of `onepass cache doctor`."""

    clean: bool = flag(False, "remove what is named")


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that a killed run left and no run needs.

    Attributes:
        path: File or folder.
        what: What it is, in words.
        bytes: Its size on disk.
        removed: Whether it was removed.
    """

    path: Path
    what: str
    bytes: int
    removed: bool = False


def examine(config: DoctorConfig) -> list[Leftover]:
    """Return what killed runs left; what a process holds the lock of is left alone.

    Shards beside a finished file are left alone where they hold a row that the file has not: they are those of
    a run that is to replace it, and the command that began it resumes.
    """
    found = [
        leftover for root in (config.store.path, config.runs) for leftover in sorted_leftovers(root)
    ]
    if not config.clean:
        return found
    for leftover in found:
        if leftover.path.is_dir():
            with exclusive(leftover.path.with_name(leftover.path.name.removesuffix(PARTS))):
                shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink(missing_ok=True)
    return [replace(leftover, removed=True) for leftover in found]


def sorted_leftovers(root: Path) -> list[Leftover]:
    """Return what killed runs left below a folder, by path."""
    return sorted(_leftovers(root), key=lambda leftover: leftover.path)


def _leftovers(root: Path) -> Iterator[Leftover]:
    for path in root.rglob("*" + PARTS):
        file = path.with_name(path.name.removesuffix(PARTS))
        held = is_held(file.with_name(file.name + ".lock"))
        if path.is_dir() and file.exists() and not held and _superseded(path, file):
            size = sum(part.stat().st_size for part in path.iterdir())
            yield Leftover(path, "shards whose rows the finished file has", size)
    for path in leftovers_below(root):
        age = time.time() - path.stat().st_mtime
        if age > SETTLED and not path.parent.name.endswith(PARTS):  # these go with their folder
            yield Leftover(path, "temporary file", path.stat().st_size)
    for path in root.rglob("*.lock"):
        if path.is_file() and not is_held(path):
            yield Leftover(path, "lock that nobody holds", path.stat().st_size)


def _superseded(folder: Path, path: Path) -> bool:
    """Tell whether a finished file has every row of the shards beside it."""
    shards = list(folder.glob("shard-*.h5"))
    try:
        plan, rows = read_plan(path), RowFile.open(path)
    except OnepassError:
        return False
    if plan is None or plan.kind.key not in rows.columns:
        return not shards
    keys = [shard_keys(shard, plan.kind.key) for shard in shards]
    return all(len(some) and np.all(find(rows.columns[plan.kind.key], some) >= 0) for some in keys)


def leftovers_text(found: list[Leftover]) -> str:
    """Return what was found as lines for people, and how it is removed."""
    if not found:
        return "Nothing is left of killed runs."
    lines = [f"{one.path}: {one.what}, {human_bytes(one.bytes)}" for one in found]
    total = human_bytes(sum(one.bytes for one in found))
    done = (
        f"Removed: {len(found)}, {total}" if found[0].removed else f"Found: {len(found)}, {total}"
    )
    advice = [] if found[0].removed else [f"Remove them with: {onepass_command('cache', 'doctor', '--clean')}"]  # fmt: skip
    return "\n".join([*lines, done, *advice])
