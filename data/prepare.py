"""onepass data prepare: a source becomes a data set in the store, once."""

import logging
import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onepass.cache.errors import CorruptFileError, InvalidInputError, Remedy, UsageError
from onepass.cache.features import list_features
from onepass.cache.provenance import differences, digest_bytes
from onepass.cache.rowfile import RowFile
from onepass.cache.rows import RowWriter
from onepass.cache.stopping import StopRequest
from onepass.data.config import NAME, PrepareConfig
from onepass.data.dataset import ImageDataset, dataset_digest, dataset_path, open_dataset
from onepass.data.record import DatasetRecord, SkippedImage
from onepass.data.sources import open_source
from onepass.data.sources.base import Request, Source, Survey, check_classes
from onepass.data.summary import Prepared, PreparedState, summarise

log = logging.getLogger(__name__)

if TYPE_CHECKING:  # Pillow is imported only when images are packed
    from onepass.data.pack import Geometry


def prepare_dataset(config: PrepareConfig, stop: StopRequest | None = None) -> Prepared:
    """Decode every image of a source once and store it as a row of pixels.

    A data set that is up to date is left alone. One made from other images or with
    other flags is replaced, once the new one is complete.

    Args:
        config: Source, name, geometry, what to do with bad images.
        stop: Asked before each shard; a reason to stop ends the packing there.

    Raises:
        InvalidInputError: Images cannot be used (with `on_bad="refuse"`), or the source is not
            laid out as it should be.
        OnepassError: See the source; or the disk is full, or another process prepares the same.
    """
    start = time.monotonic()
    request = Request(config.source, config.digest, config.raw, config.seed)
    with open_source(config.kind, request) as source:
        name = config.name or _default_name(config.kind, source)
        path = dataset_path(config.store, name)
        old = _existing(path, source, name)
        state: PreparedState = "cached"
        if not old or not _is_current(old, source, config):
            complete = _pack(source, path, config, stop or StopRequest())
            state = "prepared" if complete else "stopped"
    if state == "stopped":
        return Prepared(state, name, seconds=time.monotonic() - start)
    dataset = open_dataset(config.store, name)
    return Prepared(
        state=state,
        name=name,
        summary=summarise(dataset),
        skipped=dataset.record.skipped,
        stale=_stale_features(config.store, dataset),
        seconds=time.monotonic() - start,
    )


def _default_name(kind: str, source: Source) -> str:
    """Return the kind; for a folder or zip of images, its own name."""
    name = Path(source.where).resolve().stem if kind == "folder" else kind
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{source.where}: expected --name, for its own name cannot be one in the store"
        )
    return name


def _existing(path: Path, source: Source, name: str) -> RowFile | None:
    """Return the data set that has the name now, if it may be replaced."""
    if not path.exists():
        return None
    try:
        old = RowFile.open(path)
        kind = old.attributes["record"]["kind"]
        _flat(old.inputs), old.inputs["skipped"], Survey(**old.attributes["survey"])
    except (CorruptFileError, KeyError, TypeError) as error:
        log.info(f"{path}: is damaged ({error}); it is prepared again")
        return None
    if kind != source.kind:
        raise InvalidInputError(
            f"{path}: {name} is made from {kind} already; choose another --name",
            remedy=Remedy("delete", f"{name}/pixels"),
        )
    return old


def _is_current(old: RowFile, source: Source, config: PrepareConfig) -> bool:
    """Tell whether packing now would give the stored file again; log what differs."""
    from onepass.data.pack import Geometry, pixel_inputs

    skipped = old.inputs["skipped"]
    geometry = Geometry.of(Survey(**old.attributes["survey"]), config.max_side, config.fit)
    wanted = pixel_inputs(source.identity, geometry, skipped)
    if old.inputs == wanted:
        # Without --on-bad skip the bad images of the earlier run are an error again.
        return not skipped or config.on_bad == "skip"
    changed = differences(_flat(old.inputs), _flat(wanted))
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


def _pack(source: Source, path: Path, config: PrepareConfig, stop: StopRequest) -> bool:
    """Pack the images into `path`, leaving the bad ones out where that is asked for.

    Returns:
        Whether it is finished; otherwise it was asked to stop.
    """
    from onepass.data.pack import (
        Geometry,
        drop_parts,
        pack_rows,
        pixel_inputs,
        refused,
        row_layout,
        survey_images,
    )

    survey, bad = (
        (source.survey, {}) if source.survey else survey_images(source.where, source.items)
    )
    geometry = Geometry.of(survey, config.max_side, config.fit)
    skip = config.on_bad == "skip"
    while True:
        rows = [row for row, item in enumerate(source.items) if item.name not in bad]
        items = [source.items[row] for row in rows]
        if skip:
            check_classes(source.where, source.class_ids, items)
        inputs = pixel_inputs(source.identity, geometry, bad if skip else ())
        with RowWriter(path, row_layout(len(items), geometry), inputs) as writer:
            found = pack_rows(items, geometry, writer, stop, check_only=bool(bad) and not skip)
            if not found and not writer.missing:
                _finish(writer, source, rows, _record(source, geometry, bad), survey)
                return True
            if not found and stop.reason:
                return False
            drop_parts(writer)
        bad |= found
        if not skip:
            raise refused(source.where, len(source.items), bad)
        log.info(f"{path.parent.name}: {len(bad)} images cannot be used; packing the others")


def _record(source: Source, geometry: "Geometry", bad: dict[str, str]) -> DatasetRecord:
    """Return what is to be known of a data set besides its rows."""
    return replace(
        source.record,
        kind=source.kind,
        source=source.where,
        seed=source.identity.get("seed"),
        geometry=asdict(geometry),
        skipped=[SkippedImage(name, why) for name, why in bad.items()],
    )


def _finish(
    writer: RowWriter, source: Source, rows: list[int], record: DatasetRecord, survey: Survey
) -> None:
    """Join the shards, with labels, splits, names and classes beside them."""
    items = [source.items[row] for row in rows]
    side: dict[str, Any] = {
        "labels": np.array([item.label for item in items], dtype=np.int32),
        "split": np.array([item.split for item in items], dtype=np.int8),
        "names": [item.name for item in items],
    }
    for name, values in source.side.items():
        side[name] = [values[row] for row in rows] if isinstance(values, list) else values[rows]
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
        except CorruptFileError:
            current = False
        if not current:
            stale.append(file.stem)
    return stale
