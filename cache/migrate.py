"""onepass cache migrate: a store of format 1 becomes one of format 2; no image is decoded, no vector computed.

In format 1 labels, splits and names lay in the pixel file and in every feature file, and a vector was known
by its data set. Now an image is known by its content; see `onepass.cache.content`. Each file is read once,
written anew beside itself and renamed into its place: a kill leaves it as it was or as it will be, and the
same command goes on.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onepass.cache import format1
from onepass.cache.commandline.advice import command_of
from onepass.cache.commandline.flags import StoreConfig, flag
from onepass.cache.content import CONTENT_BYTES, content_of
from onepass.cache.errors import (
    CorruptFileError,
    EarlierFormatError,
    LockedError,
    MissingFileError,
    OnepassError,
    UnreadableFileError,
    raise_together,
)
from onepass.cache.features import key_of_format_1, list_features
from onepass.cache.files import fsync, leftovers
from onepass.cache.locks import exclusive
from onepass.cache.made_by import MadeBy
from onepass.cache.names import MANIFEST, NEXT_PIXELS, PIXELS, check_name
from onepass.cache.progress import Progress, counted
from onepass.cache.provenance import digest_bytes
from onepass.cache.rowfile import RowFile, write_rows
from onepass.cache.rows import (
    Column,
    RowFilePlan,
    ShardKind,
    inputs_of,
    parts_folder,
)
from onepass.cache.shards import write_shard

log = logging.getLogger(__name__)

State = Literal["migrated", "left", "dropped"]
CLASSES = ("class_ids", "class_names")
CONTENT = Column((CONTENT_BYTES,), "uint8")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateConfig(StoreConfig):
    """Flags of `onepass cache migrate`."""

    dataset: str = flag("", "only this data set; all where none is given", positional=True)


@dataclass(frozen=True, slots=True)
class Migration:
    """What became of one file of format 1.

    Attributes:
        key: `dataset/pixels` or `dataset/backbone@size…`.
        state: "migrated"; "left" as it was; or "dropped".
        rows: Rows that it holds.
        why: Why it was not migrated; "" where it was.
    """

    key: str
    state: State
    rows: int
    why: str = ""


def migrate_store(config: MigrateConfig) -> list[Migration]:
    """Bring every file of format 1 up to date; those of format 2 are left alone.

    A file that is damaged, unreadable or being written is named, and the others go on.

    Raises:
        UsageError: That cannot be the name of a data set.
        MissingFileError: There is no such store or data set.
        CorruptFileError: Files are damaged: each is named. The others are up to date.
        UnreadableFileError: The same, where the first of them cannot be read.
        LockedError: The same, where the first of them is being written.
        OutOfSpaceError: The disk is full; the file at hand is as it was.
    """
    store = config.store.path
    if config.dataset:
        check_name("data set", config.dataset)
    folders = [store / config.dataset] if config.dataset else sorted(store.glob("*"))
    if not any(folder.is_dir() for folder in folders):
        raise MissingFileError(f"{folders[0] if config.dataset else store}: nothing is stored")
    done: list[Migration] = []
    errors: list[OnepassError] = []
    for folder in filter(Path.is_dir, folders):
        for step in _steps(folder):
            try:
                found = step()
            except (CorruptFileError, UnreadableFileError, LockedError) as error:
                log.info(f"{error}")
                errors.append(error)
                continue
            if found:
                log.info(f"{found.key}: {found.state}{f' ({found.why})' if found.why else ''}")
                done.append(found)
    raise_together(errors)
    return done


def migrations_text(done: list[Migration]) -> str:
    """Return what became of each file as lines for people."""
    if not done:
        return "Every file of the store is of today's format"
    lines = []
    for m in done:
        line = f"{m.key}: {m.state}, {m.rows:,} rows" + (f"; {m.why}" if m.why else "")
        advice = f"; delete it with: {command_of('delete', m.key)}" if m.state == "left" else ""
        lines.append(line + advice)
    count = sum(m.state == "migrated" for m in done)
    return "\n".join([*lines, f"{counted(count, 'file')} migrated"])


def _steps(folder: Path) -> Iterator[Callable[[], Migration | None]]:
    """Return what is to be done in the folder of a data set, in order; pixels first, the vectors need their contents."""
    yield partial(_migrate_pixels, folder)
    yield partial(_drop_unfinished_pixels, folder)
    for path in list_features(folder.parent, folder.name):
        yield partial(_migrate_features, folder, path)
    for parts in sorted(folder.glob("features/*.h5.parts")):
        yield partial(_migrate_shards, folder, parts.with_name(parts.name.removesuffix(".parts")))


def _is_earlier(path: Path) -> bool:
    """Tell whether a finished file is of format 1; none is not."""
    try:
        RowFile.open(path)
    except EarlierFormatError:
        return True
    except MissingFileError:
        pass
    return False


def _migrate_pixels(folder: Path) -> Migration | None:
    """Divide a pixel file into pixels and manifest, which is the commit, and put the pixels into their place."""
    path, following, manifest = (folder / name for name in (PIXELS, NEXT_PIXELS, MANIFEST))
    if not _is_earlier(path):
        return None
    with exclusive(manifest):
        for target in (path, following, manifest):
            for leftover in leftovers(target):
                leftover.unlink()
        old = format1.read_rows(path)
        side = {"labels", "split", "names"}
        old.check("pixels", {"geometry", "rules"}, {"record", *CLASSES, "digest"}, side)
        if old.dataset_digest != old.attributes["digest"]:
            raise CorruptFileError(
                f"{path}: its classes differ from what was prepared; delete it and prepare {folder.name} again"
            )
        known = RowFile.open(manifest) if manifest.exists() else None
        if not known or not _holds(following, known.inputs["contents"]):
            _write_pixels(old, following, known)
        if not known:
            _write_manifest(old, RowFile.open(following), manifest)
        following.replace(path)
        fsync(folder)
    return Migration(f"{folder.name}/pixels", "migrated", old.layout.rows)


def _holds(pixels: Path, contents: str) -> bool:
    """Tell whether a pixel file is whole and of these images."""
    try:
        rows = RowFile.open(pixels)
        rows.verify()
    except (MissingFileError, CorruptFileError):
        return False
    return rows.inputs.get("contents") == contents


def _write_pixels(old: format1.EarlierRows, following: Path, known: RowFile | None) -> None:
    """Write the pixels, their contents, and sources that are not known.

    Args:
        old: Pixels of format 1.
        following: The file to be.
        known: The manifest, where an earlier run was killed after it wrote it.
    """
    parts: list[np.ndarray] = []
    with Progress(old.layout.rows, "images", f"{following.parent.name}/pixels") as progress:

        def add(rows: dict[str, np.ndarray]) -> None:
            parts.append(content_of(rows["pixels"]))
            progress.advance(len(parts[-1]))

        columns = old.checked_columns(add)
    content = np.concatenate(parts)
    recipe = {"kind": "pixels", **{name: old.inputs[name] for name in ("geometry", "rules")}}
    inputs = inputs_of(recipe, content)
    if known and known.inputs["contents"] != inputs["contents"]:
        raise CorruptFileError(
            f"{old.path}: is of other images than {known.path.name} beside it; delete it and prepare "
            f"{old.path.parent.name} again"
        )
    arrays = {"pixels": columns["pixels"], "content": content, "source": np.zeros_like(content)}
    write_rows(
        following,
        arrays,
        inputs=inputs,
        block_rows=old.layout.shard_rows,
        made_by=_migrated(old.made_by),
    )


def _write_manifest(old: format1.EarlierRows, pixels: RowFile, manifest: Path) -> None:
    """Write labels, splits, names and classes; the data set keeps its digest, so that results stay fresh."""
    kept = {name: old.attributes[name] for name in (*CLASSES, "record", "digest")}
    source = old.inputs.get("source", {})
    origin = {"place": kept["record"].get("source", ""), "digest": source.get("digest", "")}
    if source.get("kind") in ("folder", "zip"):  # by which prepare knows that no file changed
        kept["record"] = {**kept["record"], "origins": [origin]}
    write_rows(
        manifest,
        {"content": np.asarray(pixels.columns["content"])},
        old.side,
        inputs={"kind": "manifest", "contents": pixels.inputs["contents"]},
        attributes={**kept, "pixels": old.digest, "history": []},
        made_by=_migrated(old.made_by),
    )


def _drop_unfinished_pixels(folder: Path) -> Migration | None:
    """Delete shards of pixels: from which encoded file each row came is not written in them."""
    path = folder / PIXELS
    if not parts_folder(path).exists():
        return None
    with exclusive(path):
        shutil.rmtree(parts_folder(path))
    why = "unfinished, and of which files its rows are is not known; prepare decodes them again"
    return Migration(f"{folder.name}/pixels", "dropped", 0, why)


def _migrate_features(folder: Path, path: Path) -> Migration | None:
    """Write the contents beside the vectors, in place of labels, splits, names and the data set's digest."""
    if not _is_earlier(path):
        return None
    key = f"{folder.name}/{path.stem}"
    with exclusive(path):
        for leftover in leftovers(path):
            leftover.unlink()
        old = format1.read_rows(path)
        old.check("features", {"dataset_digest"}, set(), set())
        content = _contents_of(folder, old.inputs, old.layout.rows)
        if content is None:
            return Migration(key, "left", old.layout.rows, _WHY_LEFT)
        digest = digest_bytes(old.digest.encode(), old.side_digest.encode())
        kept = {name: old.attributes[name] for name in ("extraction",) if name in old.attributes}
        write_rows(
            path,
            {"features": old.checked_columns()["features"], "content": content},
            inputs=inputs_of(key_of_format_1(old.inputs), content),
            attributes={**kept, "digest": digest},
            block_rows=old.layout.shard_rows,
            made_by=_migrated(old.made_by),
        )
    return Migration(key, "migrated", old.layout.rows)


_WHY_LEFT = "made from another state of the data set, so that the image of a row is not known"


def _contents_of(folder: Path, inputs: dict[str, Any], rows: int) -> np.ndarray | None:
    """Return the content of each row of vectors, (rows, 16) uint8; None where the data set is not theirs any more."""
    try:
        manifest = RowFile.open(folder / MANIFEST)
    except MissingFileError:
        return None
    if (
        inputs.get("dataset_digest") != manifest.attributes["digest"]
        or manifest.layout.rows != rows
    ):
        return None
    blocks = [manifest.check_block(i)["content"] for i in range(manifest.layout.shards)]
    return np.concatenate(blocks)


def _migrate_shards(folder: Path, path: Path) -> Migration | None:
    """Write the shards of an unfinished extraction anew, each with its contents; the extraction resumes from them."""
    parts = parts_folder(path)
    key = f"{folder.name}/{path.stem}"
    plan = _earlier_plan(parts / "plan.json")
    if plan is None:
        return None
    with exclusive(path):
        content = _contents_of(folder, plan.inputs, plan.layout.rows)
        shards = {
            int(p.stem[6:]): p for p in parts.glob("shard-??????.h5") if p.stem[6:].isdecimal()
        }
        if content is None:
            return Migration(key, "left", 0, "unfinished, and " + _WHY_LEFT)
        if str(plan.inputs.get("view")).startswith("random"):  # the rest would be drawn otherwise
            shutil.rmtree(parts)
            return Migration(
                key, "dropped", 0, "unfinished; what a random view sees is drawn by content now"
            )
        columns = {**plan.layout.columns, "content": CONTENT}
        kind = ShardKind(columns, "content", key_of_format_1(plan.inputs))
        kept = 0
        for index in sorted(shards.keys() & set(range(plan.layout.shards))):
            start, stop = plan.layout.shard_range(index)
            try:
                arrays = format1.read_shard(shards[index], plan, index)
            except CorruptFileError as error:
                log.info(f"{error}; its rows are computed again")
                continue
            write_shard(parts, kind, {**arrays, "content": content[start:stop]})
            kept += stop - start
        RowFilePlan(kind, plan.layout.rows, plan.layout.shard_rows, plan.how).write(
            parts / "plan.json"
        )
        for shard in shards.values():
            shard.unlink()
    return Migration(key, "migrated", kept, "unfinished; extract resumes it")


def _earlier_plan(path: Path) -> format1.EarlierPlan | None:
    """Return the plan of an unfinished file of format 1; None where there is none, or one of today."""
    try:
        return format1.EarlierPlan.read_optional(path)
    except CorruptFileError:
        return None


def _migrated(made_by: MadeBy) -> MadeBy:
    """Return what a file said of its making, and that it was migrated."""
    return replace(made_by, migrated=MadeBy.now())
