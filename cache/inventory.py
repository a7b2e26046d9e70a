"""What lies in the store: finished files, unfinished ones, their size and age."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepass.cache.commandline.advice import command_of
from onepass.cache.commandline.flags import StoreConfig, flag
from onepass.cache.commandline.table import table
from onepass.cache.errors import (
    CorruptFileError,
    EarlierFormatError,
    InvalidInputError,
    MissingFileError,
    OnepassError,
    Remedy,
    UnreadableFileError,
    raise_together,
    unknown_name,
)
from onepass.cache.features import WHOLE_MAP, ExtractionRecord, list_features
from onepass.cache.files import TEMPORARY, leftovers
from onepass.cache.locks import exclusive
from onepass.cache.names import HELD_OUT, MANIFEST, NEXT_PIXELS, PIXELS
from onepass.cache.progress import human_bytes, human_seconds
from onepass.cache.rows import RowFile, parts_folder, read_plan
from onepass.cache.shards import shard_keys
from onepass.cache.stores import AnyStore, roots

DIGESTS = ("content", "source")  # columns that a person does not look for


@dataclass(frozen=True, slots=True, kw_only=True)
class ListConfig(StoreConfig):
    """Flags of `onepass cache list`."""

    dataset: str | None = flag(None, "only this data set")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyConfig(StoreConfig):
    """Flags of the commands on one file."""

    key: str = flag(
        help="DATASET/pixels, DATASET/manifest or DATASET/BACKBONE@SIZE, as `list` prints it",
        positional=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig(StoreConfig):
    """Flags of `onepass cache verify`."""

    key: str = flag("", "one file, as `list` prints it; all where none is given", positional=True)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the store.

    Attributes:
        key: `dataset/pixels`, `dataset/manifest` or `dataset/backbone@size…`; `dataset/pixels.next`
            where new pixels are on their way beside those that count.
        path: Where it lies.
        state: "finished", "unfinished", "partial" where only the rows that are needed are ever stored, "damaged", "earlier format", or "unreadable" where the system
            refuses to read it.
        rows: Rows that are stored.
        shape: Shape of one row by column.
        bytes: Size on disk.
        age: Seconds since it was written.
        made: The command that made it, or what is wrong with it.
        carried: Rows of a feature file that were copied from others.
    """

    key: str
    path: Path
    state: str
    rows: int
    shape: dict[str, list[int]]
    bytes: int
    age: float
    made: str
    carried: int = 0


def list_entries(config: ListConfig) -> list[Entry]:
    """Return every file of the store, pixels first, then features by name; after them those of stores that are only read."""
    entries = []
    for key, path in _all_paths(config.store).items():
        if config.dataset in (None, key.split("/")[0]):
            entries += [_finished(key, path)] if path.exists() else []
            entries += [_unfinished(key, path)] if parts_folder(path).exists() else []
    return entries


def show_entry(config: KeyConfig) -> dict[str, Any]:
    """Return all that a finished file says of itself."""
    rows = RowFile.open(_find_finished(config.store, config.key))
    columns = {
        name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in rows.columns.items()
    }
    attributes = {
        k: v if len(str(v)) < 400 else f"({len(v)} entries)" for k, v in rows.attributes.items()
    }
    return {
        "path": rows.path,
        "columns": columns,
        "side": {name: len(value) for name, value in rows.side.items()},
        "inputs": rows.inputs,
        "attributes": attributes,
        "made_by": rows.made_by,
        "shards": len(rows.shard_digests),
        "digest": rows.digest,
    }


def verify_entries(config: VerifyConfig) -> list[str]:
    """Read every byte of one file, or of all, and compare it with the digests; return the keys.

    Raises:
        CorruptFileError: Names every file that is not what was written, or cannot be read.
        EarlierFormatError: The same, where the first of them is of an earlier format.
        UnreadableFileError: The same, where the first of them cannot be read.
    """
    paths = {k: p for k, p in _all_paths(config.store).items() if p.exists()}
    if config.key:
        paths = {config.key: _find_finished(config.store, config.key)}
    errors: list[OnepassError] = []
    for path in paths.values():
        try:
            RowFile.open(path).verify()
        except (CorruptFileError, EarlierFormatError, UnreadableFileError) as error:
            errors.append(error)
    raise_together(errors)
    return list(paths)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted.

    Attributes:
        path: Where it was.
        dataset: Name of the data set, where all of one was deleted: pixels, labels, splits and history.
        features: Keys of the feature files that still carry its vectors.
    """

    path: Path
    dataset: str
    features: list[str]


def delete_entry(config: KeyConfig) -> Deleted:
    """Delete one file and what is unfinished of it; with its pixels or its manifest, a data set.

    Raises:
        InvalidInputError: These are the pixels of a data set, under the name of those to come.
        LockedError: A process is writing it.
    """
    path = _find(_paths(config.store.path), config.store, config.key)
    dataset, _, name = config.key.partition("/")
    folder, is_dataset = path.parent, name in ("pixels", "manifest")
    with exclusive(folder / MANIFEST if path.name == NEXT_PIXELS or is_dataset else path):
        if path.name == NEXT_PIXELS and not is_dataset:
            _check_not_current(path, dataset)
        # the manifest first: without it the pixels are no data set
        names = (MANIFEST, NEXT_PIXELS, PIXELS) if is_dataset else (path.name,)
        for file in (folder / name for name in names):
            for found in (file, *leftovers(file)):
                found.unlink(missing_ok=True)
            shutil.rmtree(parts_folder(file), ignore_errors=True)
        if is_dataset:
            shutil.rmtree(folder / HELD_OUT, ignore_errors=True)
    features = list_features(config.store.path, dataset) if is_dataset else []
    keys = [f"{dataset}/{file.stem}" for file in features]
    return Deleted(path, dataset if is_dataset else "", keys)


def _check_not_current(path: Path, dataset: str) -> None:
    """Refuse to delete new pixels that the manifest counts on already."""
    try:
        manifest, pixels = RowFile.open(path.with_name(MANIFEST)), RowFile.open(path)
    except OnepassError:
        return
    if manifest.inputs.get("contents") == pixels.inputs.get("contents"):
        raise InvalidInputError(
            f"{path}: these are the pixels of {dataset} now; delete {dataset}/pixels to delete the data set"
        )


def deleted_text(deleted: Deleted) -> str:
    """Return what was deleted, and what still carries its vectors."""
    lines = [f"{deleted.path}: deleted"]
    if deleted.dataset:
        lines[0] += f", and with it all of {deleted.dataset}: pixels, labels, splits and history"
    if deleted.features:
        lines.append(
            f"Its vectors are still in {', '.join(deleted.features)}; delete one with: "
            + command_of("delete", deleted.features[0])
        )
    return "\n".join(lines)


def entries_table(entries: list[Entry]) -> str:
    """Return the entries as a table for people."""
    if not entries:
        return f"The store is empty. Next: {command_of('prepare', 'solar-cells')}"
    lines = [("key", "rows", "each row", "size", "age", "made by")]
    for e in entries:
        data = (shape for name, shape in e.shape.items() if name not in DIGESTS)
        shape = " + ".join("×".join(map(str, s)) for s in data) or "-"
        state = "" if e.state == "finished" else f"{e.state}: "
        age = human_seconds(e.age) if e.age < 86400 else f"{e.age / 86400:.0f} days"
        carried = f" ({e.carried:,} rows carried over)" if e.carried else ""
        made = state + e.made + carried
        lines.append((e.key, f"{e.rows:,}", shape, human_bytes(e.bytes), age, made))
    return "\n".join(table(lines))


def _paths(store: Path) -> dict[str, Path]:
    """Return every finished or unfinished file by its key: pixels, manifests, then features."""
    names = (PIXELS, NEXT_PIXELS, MANIFEST, "features/*.h5")
    paths: dict[str, Path] = {}
    for path in (path for name in names for path in sorted(store.glob(f"*/{name}*"))):
        if path.name.endswith((".h5", ".h5.parts")) and not path.name.startswith(TEMPORARY):
            file = path.with_name(path.name.removesuffix(".parts"))
            dataset = file.relative_to(store).parts[0]
            first = file.name == NEXT_PIXELS and f"{dataset}/pixels" not in paths
            paths[f"{dataset}/{'pixels' if first else file.stem}"] = file
    return paths


def _all_paths(store: AnyStore) -> dict[str, Path]:
    """Return the files of every store by key; of equal keys that of the first store."""
    paths: dict[str, Path] = {}
    for top in roots(store):
        paths |= {key: path for key, path in _paths(top).items() if key not in paths}
    return paths


def _find(paths: dict[str, Path], store: AnyStore, key: str) -> Path:
    if not paths:
        raise MissingFileError(
            f"{store}: the store is empty", remedy=Remedy("prepare", "solar-cells")
        )
    if key not in paths:
        raise unknown_name("key", key, paths)
    return paths[key]


def _find_finished(store: AnyStore, key: str) -> Path:
    path = _find(_all_paths(store), store, key)
    if not path.exists():
        raise MissingFileError(
            f"{key}: not finished yet; the command that began it resumes it",
            remedy=Remedy("list the store"),
        )
    return path


def _finished(key: str, path: Path) -> Entry:
    stat = path.stat()
    age = max(0.0, time.time() - stat.st_mtime)
    try:
        rows = RowFile.open(path)
    except OnepassError as error:
        states = {UnreadableFileError: "unreadable", EarlierFormatError: "earlier format"}
        state = states.get(type(error), "damaged")
        return Entry(key, path, state, 0, {}, stat.st_size, age, str(error).split(": ", 1)[-1])
    shape = {name: list(column.shape[1:]) for name, column in rows.columns.items()}
    return Entry(
        key,
        path,
        "finished",
        rows.layout.rows,
        shape,
        stat.st_size,
        age,
        rows.made_by.command,
        _carried(rows),
    )


def _carried(rows: RowFile) -> int:
    try:
        extraction = ExtractionRecord.of(rows)
    except CorruptFileError:
        return 0
    return extraction.carried_rows if extraction else 0


def _unfinished(key: str, path: Path) -> Entry:
    shards = list(parts_folder(path).glob("shard-*.h5"))
    size = sum(shard.stat().st_size for shard in shards)
    age = max(0.0, time.time() - parts_folder(path).stat().st_mtime)
    try:
        plan = read_plan(path)
    except UnreadableFileError as error:
        return Entry(key, path, "unreadable", 0, {}, size, age, str(error).split(": ", 1)[-1])
    if plan is None:
        return Entry(
            key, path, "unfinished", 0, {}, size, age, "no plan; the next run takes what fits"
        )
    shape = {name: list(column.shape) for name, column in plan.kind.columns.items()}
    if plan.kind.recipe.get("pooling") == WHOLE_MAP:
        rows = sum(len(shard_keys(shard, plan.kind.key)) for shard in shards)
        said = "what frozen layers give, as far as finetune needed it"
        return Entry(key, path, "partial", rows, shape, size, age, said)
    rows = min(len(shards) * plan.shard_rows, plan.rows)
    said = f"{len(shards)} shards of new rows; the same command resumes"
    return Entry(key, path, "unfinished", rows, shape, size, age, said)
