"""onepass data prepare: a source becomes a data set in the store, once."""

import logging
import re
import time
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    Remedy,
    UnreadableFileError,
    UsageError,
)
from onepass.cache.features import list_features
from onepass.cache.names import DATASET
from onepass.cache.provenance import differences, digest_array, digest_bytes, digest_json
from onepass.cache.rowfile import RowFile
from onepass.cache.rows import RowWriter
from onepass.cache.stopping import StopRequest
from onepass.data.config import PrepareConfig
from onepass.data.dataset import (
    HELD_LABELS,
    ImageDataset,
    dataset_digest,
    dataset_path,
    open_dataset,
)
from onepass.data.layout import one_form
from onepass.data.record import DatasetRecord, SkippedImage
from onepass.data.sources import open_source
from onepass.data.sources.base import Request, Source, Survey, check_classes, own_name
from onepass.data.summary import Prepared, PreparedState, left_out_by_kind, summarise

log = logging.getLogger(__name__)

if TYPE_CHECKING:  # Pillow is imported only when images are packed
    from onepass.data.pack import Geometry


def prepare_dataset(config: PrepareConfig, stop: StopRequest | None = None) -> Prepared:
    """Decode every image of a source once and store it as a row of pixels.

    A data set that is up to date is left alone. One whose images changed, or that was made with
    other flags, is replaced, once the new one is complete; it keeps its geometry unless a flag changes
    it. One made from elsewhere is never replaced.

    Args:
        config: Source, name, geometry, what to do with bad images.
        stop: Asked before each shard; a reason to stop ends the packing there.

    Raises:
        InvalidInputError: Images cannot be used (with `on_bad="refuse"`), the source is not laid out
            as it should be, or the name belongs to a data set made from elsewhere.
        UnreadableFileError: The system refuses to read an image, or the data set as it is.
        OnepassError: See the source; or the disk is full, or another process prepares the same.
    """
    start = time.monotonic()
    request = Request(config.source, config.digest, config.raw, config.seed, config.layout)
    with open_source(config.kind, request) as source:
        name = config.name or _default_name(config.kind, source)
        path = dataset_path(config.store, name)
        old = _existing(path, source, name)
        state: PreparedState = "cached"
        if not old or not _is_current(old, source, config):
            complete = _pack(source, path, config, old, stop or StopRequest())
            state = "prepared" if complete else "stopped"
        left_out = source.left_out
    if state == "stopped":
        return Prepared(state, name, seconds=time.monotonic() - start)
    dataset = open_dataset(config.store, name)
    return Prepared(
        state=state,
        name=name,
        summary=summarise(dataset),
        skipped=dataset.record.skipped,
        left_out=left_out_by_kind(left_out, dataset.record.skipped),
        geometry=dataset.record.geometry_note if state == "prepared" else "",
        stale=_stale_features(config.store, dataset),
        seconds=time.monotonic() - start,
    )


def _default_name(kind: str, source: Source) -> str:
    """Return the kind; for a folder or zip of one's own, its name."""
    name = own_name(Path(source.where)) if kind == "folder" else kind
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    if not DATASET.fullmatch(name):
        raise UsageError(
            f"{source.where}: expected --name, for its own name cannot be one in the store"
        )
    return name


def _existing(path: Path, source: Source, name: str) -> RowFile | None:
    """Return the data set that has the name now, if it may be replaced.

    Raises:
        InvalidInputError: It was made from elsewhere.
        UnreadableFileError: The system refuses to read it.
    """
    if not path.exists():
        return None
    try:
        old = RowFile.open(path)
        kind, origin = (old.attributes["record"][key] for key in ("kind", "source"))
        _flat(old.inputs), old.inputs["skipped"], Survey(**old.attributes["survey"])
    except (CorruptFileError, KeyError, TypeError) as error:
        log.info(f"{path}: is damaged ({error}); it is prepared again")
        return None
    elsewhere = "" if kind == source.kind else f"{kind} already"
    if not elsewhere and not _same_origin(old, source):
        elsewhere = f"{origin}, and would be replaced by {_origin(source)}"
    if elsewhere:
        raise InvalidInputError(
            f"{path}: {name} is made from {elsewhere}; choose another --name",
            remedy=Remedy("delete", f"{name}/pixels"),
        )
    return old


def _same_origin(old: RowFile, source: Source) -> bool:
    """Tell whether a data set came from this source: the same place, or the same files moved."""
    if "digest" not in source.identity or source.identity["kind"] == "package":
        return True
    recorded = old.inputs["source"]
    moved = all(recorded.get(key) == source.identity[key] for key in ("kind", "digest"))
    return moved or _place(old.attributes["record"]["source"]) == _place(source.where)


def _place(where: str) -> Path:
    return Path(where).expanduser().resolve()


def _origin(source: Source) -> str:
    """Return where a source lies, whatever the working directory of whoever reads it."""
    is_place = source.identity["kind"] in ("folder", "zip")
    return str(_place(source.where)) if is_place else source.where


def _is_current(old: RowFile, source: Source, config: PrepareConfig) -> bool:
    """Tell whether packing now would give the stored file again; log what differs."""
    from onepass.data.pack import Geometry, pixel_inputs

    skipped = old.inputs["skipped"]
    survey = Survey(**old.attributes["survey"])
    geometry = Geometry.choose(survey, config, Geometry(**old.inputs["geometry"]))
    wanted = pixel_inputs(source.identity, geometry, skipped)
    rows = _kept_rows(source, set(map(one_form, skipped)))
    now = _columns(old.side, old.attributes["class_ids"])
    new = _columns(_side(source, rows), source.class_ids)
    if old.inputs == wanted and now == new:
        # Without --on-bad skip the bad images of the earlier run are an error again.
        return not skipped or config.on_bad == "skip"
    changed = differences(_flat(old.inputs), _flat(wanted)) or differences(now, new)
    log.info(
        f"{old.path.parent.name}: prepared before, but differently ({changed}); it is prepared again"
    )
    return False


def _flat(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs with the names that people know: size, channels, fit, seed, images."""
    source, geometry = inputs["source"], inputs["geometry"]
    return {
        "images": source.get("digest", "")[:8] or source.get("release", ""),
        **{key: source[key] for key in ("kind", "seed") if key in source},
        **{key: value for key, value in geometry.items() if key != "native"},
        "rules": inputs["rules"],
    }


def _columns(side: dict[str, Any], class_ids: list[str]) -> dict[str, Any]:
    """Return what tells by name whether rows are of the same images, labels, splits and classes.

    The source's identity does not tell it where another version of Onepass reads more kinds of image, or
    understands folders otherwise.
    """
    labels = np.asarray(side["labels"])
    held = side.get(HELD_LABELS, np.full_like(labels, -1))
    return {
        "rows": len(side["names"]),
        "file names": digest_json(list(map(one_form, side["names"])))[:8],
        "labels": digest_array(labels)[:8],
        "splits": digest_array(np.asarray(side["split"]))[:8],
        "classes": digest_json(list(map(one_form, class_ids)))[:8],
        "labels of test images": digest_array(np.asarray(held))[:8],
    }


def _pack(
    source: Source, path: Path, config: PrepareConfig, old: RowFile | None, stop: StopRequest
) -> bool:
    """Pack the images into `path`, leaving the bad ones out where that is asked for.

    Args:
        source: Gives the images.
        path: The file to be.
        config: The flags.
        old: The data set as it was prepared before; it gives the geometry that no flag changes.
        stop: Asked before each shard.

    Returns:
        Whether it is finished; otherwise it was asked to stop.
    """
    from onepass.data.pack import (
        Geometry,
        drop_parts,
        geometry_note,
        pack_rows,
        pixel_inputs,
        refused,
        row_layout,
        survey_images,
    )

    survey, bad = (
        (source.survey, {}) if source.survey else survey_images(source.where, source.items)
    )
    before = Geometry(**old.inputs["geometry"]) if old else None
    geometry = Geometry.choose(survey, config, before)
    note = geometry_note(geometry, survey, Geometry.choose(survey, config))
    skip = config.on_bad == "skip"
    while True:
        rows = _kept_rows(source, bad)
        items = [source.items[row] for row in rows]
        if skip:
            check_classes(source.where, source.class_ids, items)
        inputs = pixel_inputs(source.identity, geometry, bad if skip else ())
        with RowWriter(path, row_layout(len(items), geometry), inputs) as writer:
            found = pack_rows(items, geometry, writer, stop, check_only=bool(bad) and not skip)
            if not found and not writer.missing:
                _finish(writer, source, rows, _record(source, geometry, note, bad), survey)
                return True
            if not found and stop.reason:
                return False
            drop_parts(writer)
        bad |= found
        if not skip:
            raise refused(source.where, len(source.items), bad)
        log.info(f"{path.parent.name}: {len(bad)} images cannot be used; packing the others")


def _record(source: Source, geometry: "Geometry", note: str, bad: dict[str, str]) -> DatasetRecord:
    """Return what is to be known of a data set besides its rows."""
    skipped = [SkippedImage(name, why) for name, why in bad.items()]
    return replace(
        source.record,
        kind=source.kind,
        source=_origin(source),
        seed=source.identity.get("seed"),
        geometry=asdict(geometry),
        geometry_note=note,
        skipped=skipped,
        left_out=left_out_by_kind(source.left_out, skipped),
    )


def _kept_rows(source: Source, bad: Collection[str]) -> list[int]:
    return [row for row, item in enumerate(source.items) if item.name not in bad]


def _side(source: Source, rows: list[int]) -> dict[str, Any]:
    """Return the arrays and lists with one entry a row that lie beside the pixels."""
    items = [source.items[row] for row in rows]
    side: dict[str, Any] = {
        "labels": np.array([item.label for item in items], dtype=np.int32),
        "split": np.array([item.split for item in items], dtype=np.int8),
        "names": [item.name for item in items],
    }
    held = np.array([item.held_label for item in items], dtype=np.int32)
    if np.any(held >= 0):
        side[HELD_LABELS] = held
    for name, values in source.side.items():
        side[name] = [values[row] for row in rows] if isinstance(values, list) else values[rows]
    return side


def _finish(
    writer: RowWriter, source: Source, rows: list[int], record: DatasetRecord, survey: Survey
) -> None:
    """Join the shards, with labels, splits, names and classes beside them."""
    side = _side(source, rows)
    pixels = digest_bytes(*(writer.digests[i].encode() for i in range(writer.layout.shards)))
    attributes = {
        "class_ids": source.class_ids,
        "class_names": source.class_names,
        "digest": dataset_digest(pixels, side, source.class_ids, source.class_names),
        "record": record,
        "survey": asdict(survey),
    }
    writer.finish(side, attributes)


def _stale_features(store: Path, dataset: ImageDataset) -> list[str]:
    """Return the keys of the feature files that were made from the data set as it was before."""
    stale = []
    for file in list_features(store, dataset.name):
        try:
            current = RowFile.open(file).inputs.get("dataset_digest") == dataset.digest
        except UnreadableFileError as error:
            log.info(f"{error}; whether it is stale is not known")
            continue
        except CorruptFileError:
            current = False
        if not current:
            stale.append(file.stem)
    return stale
