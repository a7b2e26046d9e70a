"""onepass data prepare: sources become a data set in the store; what is known already is not done again."""

import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onepass.cache.content import CONTENT_BYTES, contents_digest, find, first_of_each
from onepass.cache.errors import (
    CorruptFileError,
    EarlierFormatError,
    InvalidInputError,
    MissingFileError,
    Remedy,
    UnreadableFileError,
    UsageError,
)
from onepass.cache.features import list_features
from onepass.cache.files import fsync
from onepass.cache.locks import exclusive
from onepass.cache.made_by import How, MadeBy
from onepass.cache.memory import within_memory
from onepass.cache.names import DATASET, HELD_OUT, NEXT_PIXELS, PIXELS
from onepass.cache.progress import Progress, counted
from onepass.cache.rowfile import RowFile, write_rows
from onepass.cache.rows import RowWriter, parts_folder
from onepass.cache.stopping import StoppedError, StopRequest
from onepass.cache.stores import AnyStore, root, roots
from onepass.data.arrange import Choices, Rows, arrange
from onepass.data.config import PrepareConfig
from onepass.data.dataset import (
    ImageDataset,
    dataset_path,
    home_of,
    open_dataset,
    open_pixels,
)
from onepass.data.history import changes_between
from onepass.data.layout import one_form
from onepass.data.manifest import (
    GREY,
    GROUP,
    IMAGE_SIZE,
    OF_FILES,
    SOURCE,
    STAMP,
    Change,
    Manifest,
    manifest_path,
)
from onepass.data.record import SYMMETRIES, HeldOutImage, SkippedImage
from onepass.data.sources import SOURCES, TABULAR, kind_of, open_source
from onepass.data.sources.base import Item, Request, Source
from onepass.data.summary import SHOWN_CLASSES, Prepared, left_out_by_kind, summarise

if TYPE_CHECKING:
    from onepass.data.cluster.decoders import Decoders

log = logging.getLogger(__name__)

PATH_MARKS = set("/\\.*?{")  # one of them makes a word a path, also where nothing is there
MANY_GONE = 50  # images; fewer are not worth the question

DAMAGED = ".damaged"  # after the name of a manifest that could not be read, and was made again


@within_memory
def prepare_dataset(config: PrepareConfig, stop: StopRequest | None = None) -> Prepared:
    """Store every image of one or several sources as a row of pixels, and what is known of it as a manifest.

    An image whose file is known, in this data set or in another of the store, is copied, not decoded. Rows keep
    their order, their split and corrections of their labels; the geometry is kept unless a flag changes
    it. One made from elsewhere is never replaced.

    Args:
        config: Sources, name, geometry, splits, what to do with bad images.
        stop: Asked before each shard; a reason to stop ends the packing there.

    Raises:
        InvalidInputError: Images cannot be used (with `on_bad="refuse"`), a source is not laid out
            as it should be, or the name belongs to a data set made from elsewhere.
        EarlierFormatError: The data set is of an earlier Onepass.
        UnreadableFileError: The system refuses to read an image, or the data set as it is.
        OnepassError: See the source; or the disk is full, or another process prepares the same.
    """
    from onepass.data.cluster.decoders import open_decoders

    start, stop = time.monotonic(), stop or StopRequest()
    with ExitStack() as stack:
        kind, requests = _what(config)
        source = stack.enter_context(open_source(kind, requests))
        name = config.name or _default_name(source)
        if not config.dry_run:
            stack.enter_context(exclusive(manifest_path(config.store, name)))
        cluster = (config.executor, config.address, kind, requests, source, stop)
        decoders = stack.enter_context(open_decoders(*cluster))
        try:
            work = _Preparation(config, source, name, decoders)
        except StoppedError:
            return Prepared("stopped", name, seconds=time.monotonic() - start)
        if config.dry_run:
            return replace(work.plan(), seconds=time.monotonic() - start)
        done = work.run(stop)
    if done.stopped:
        return replace(done, seconds=time.monotonic() - start)
    dataset = open_dataset(config.store, name)
    return replace(
        done,
        summary=summarise(dataset),
        skipped=dataset.record.skipped,
        left_out=dataset.record.left_out,
        to_extract=_to_extract(config.store, dataset),
        seconds=time.monotonic() - start,
    )


def _what(config: PrepareConfig) -> tuple[str, list[Request]]:
    """Return the kind of source, and where to look: in each place that is named, or where it itself knows."""
    kind, places = config.kind, config.source
    if kind not in SOURCES and (Path(kind).expanduser().exists() or PATH_MARKS & set(kind)):
        kind, places = kind_of(kind), (kind, *places)
    if len(places) > 1 and config.digest:
        raise UsageError("--digest: expected one --source, received several")
    if config.images and kind != "table":
        raise UsageError(f"--images: expected a table that names files, received {kind}")
    if config.columns and kind not in TABULAR:
        raise UsageError(f"--columns: expected one of {', '.join(TABULAR)}, received {kind}")
    return kind, [
        Request(
            place,
            config.digest,
            config.raw,
            config.layout,
            further=number > 0,
            images=config.images,
            columns=config.column_of,
            scratch=root(config.store),
        )
        for number, place in enumerate(places or (None,))
    ]


def _default_name(source: Source) -> str:
    """Return the source's own name, or its kind."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name or source.kind).strip("-._")
    if not DATASET.fullmatch(name):
        raise UsageError(
            f"{source.where}: expected --name, for its own name cannot be one in the store"
        )
    return name


class _Preparation:
    """One call of prepare: what is there, what is wanted, and the way from the one to the other.

    Args:
        config: The flags.
        source: The images.
        name: Of the data set.
        decoders: The workers that read and decode; None: this process does.

    Attributes:
        before: The data set as it was.
        held_out: The images that are held out of it.
        own: The pixels that belong to it.
        look: What is known of each image of the source.
        geometry: What the rows are to look like.
    """

    def __init__(
        self, config: PrepareConfig, source: Source, name: str, decoders: "Decoders | None"
    ) -> None:
        from onepass.data.look import look_at
        from onepass.data.pack import Geometry, geometry_note

        self.config, self.source, self.name, self.decoders = config, source, name, decoders
        self.folder = root(config.store) / name
        self.before = _existing(config.store, source, name)
        self.held_out = self.before.record.held_out if self.before else []
        self.own = self._own_pixels()
        self.look = look_at(
            source.items, self.before, rehash=config.rehash, alike=source.survey, decoders=decoders
        )
        survey = source.survey or self.look.survey(source.where)
        kept = self.before.record.geometry if self.before else {}
        before = Geometry(**kept) if kept else None  # type: ignore[arg-type]
        self.geometry = Geometry.choose(survey, config, before)
        self.geometry_note = geometry_note(self.geometry, survey, Geometry.choose(survey, config))
        self.bad = dict(self.look.bad)

    def plan(self) -> Prepared:
        """Return what `run` would do, without decoding an image or writing a file."""
        positions = self._usable()
        keys = self.look.source[positions]
        carried = self._carried(self._donors(keys, positions), keys)
        carried |= self._known_content(positions) is not None
        return Prepared(
            "dry-run",
            self.name,
            new=int(np.sum(~carried)),
            carried=int(carried.sum()),
            equal=_count_equal(keys),
            said=self.source.said,
            left_out=left_out_by_kind(self.source.left_out, _skipped(self.bad)),
            geometry=self.geometry_note,
        )

    def run(self, stop: StopRequest) -> Prepared:
        """Bring the data set up to date."""
        positions = self._usable()
        self._refuse_a_rest(len(positions))
        content = self._known_content(positions)
        if content is not None and not (self.bad and self.config.on_bad != "skip"):
            rows = self._arrange(positions, content)
            contents = content[find_positions(positions, rows.order)]
            if self.own and self.own.inputs["contents"] == contents_digest(contents):
                if not self._same_pixels(rows, contents):
                    self._fill_in_sources(self.own, rows)
                return self._finish(rows, contents, new=0, carried=len(contents))
        return self._pack(positions, self._donors(self.look.source[positions], positions), stop)

    def _refuse_a_rest(self, found: int) -> None:
        """Refuse a source that lacks most of what it had: it may be another, or not mounted as a whole."""
        before = len(self.before.names) if self.before else 0
        gone = before - found
        if gone >= MANY_GONE and 2 * gone > before and not self.config.allow_fewer:
            raise InvalidInputError(
                f"{self.source.where}: expected about the {before:,} images of {self.name}, found {found:,}; the others, with "
                "their pixels, splits and corrected labels, would go. See whether it is there as a whole, or say "
                "--allow-fewer"
            )

    def _pack(
        self, positions: np.ndarray, donors: Sequence[RowFile], stop: StopRequest
    ) -> Prepared:
        """Decode what no file has, and write pixels and manifest."""
        from onepass.data.images import DECODER
        from onepass.data.pack import pixel_kind, refused, shard_rows

        keys = self.look.source[positions]
        kind, each = pixel_kind(self.geometry), shard_rows(self.geometry)
        with RowWriter(
            self.folder / NEXT_PIXELS,
            kind,
            keys,
            shard_rows=each,
            how=How(decoder=DECODER),
            donors=donors,
        ) as writer:
            items = [self.source.items[position] for position in positions]
            fresh = keys[writer.pool.unknown()]
            self.bad |= _with_equals(self._decode(items, positions, writer, stop), items, keys)
            if stop.reason and len(writer.pool.unknown()) > 0:
                return Prepared("stopped", self.name)
            if self.bad and self.config.on_bad != "skip":
                raise refused(self.source.where, len(self.source.items), self.bad)
            if self.bad:
                log.info(
                    f"{self.name}: {counted(len(self.bad), 'image')} cannot be used; packing the others"
                )
            good = np.array([item.name not in self.bad for item in items])
            usable = np.flatnonzero(good)
            content = (
                writer.column("content", usable) if len(usable) else np.zeros((0, 16), np.uint8)
            )
            rows = self._arrange(positions[usable], content)
            order = find_positions(positions, rows.order)
            contents = writer.column("content", order)
            new = int(np.sum(find(fresh, keys[order]) >= 0)) + writer.stored
            if not self._same_pixels(rows, contents):
                writer.finish(order=order)
        return self._finish(rows, contents, new=new, carried=len(order) - new)

    def _decode(
        self, items: Sequence[Item], positions: np.ndarray, writer: RowWriter, stop: StopRequest
    ) -> dict[str, str]:
        """Decode what is missing, here or by the workers; return what is wrong with which."""
        from onepass.data.pack import decode_missing, threads

        missing = sum(map(len, writer.missing))
        if not missing:
            return {}
        if not (self.decoders and self.decoders.pay(missing)):
            usual = int(np.median(self.look.size[positions].max(axis=1)))
            return decode_missing(items, self.geometry, writer, stop, threads(usual))
        with Progress(missing, "images", "packing") as progress:
            return self.decoders.decode(positions, self.geometry, writer, progress)

    def _usable(self) -> np.ndarray:
        """Return the images without those that are known to be bad, or are held out and stay so, (n,) int64."""
        usable = np.array([item.name not in self.bad for item in self.source.items], bool)
        if self.config.hold_back is None and self.held_out:
            held = np.frombuffer(bytes.fromhex("".join(i.source for i in self.held_out)), np.uint8)
            usable &= find(held.reshape(-1, CONTENT_BYTES), self.look.source) < 0
        return np.flatnonzero(usable)

    def _own_pixels(self) -> RowFile | None:
        if self.before is None:
            return None
        try:
            pixels = open_pixels(self.config.store, self.name, self.before.contents)
            if pixels and self.config.rehash:
                pixels.verify()
            return pixels
        except CorruptFileError as error:
            log.info(f"{error}; its rows are made again")
            return None

    def _known_content(self, positions: np.ndarray) -> np.ndarray | None:
        """Return the content of each image, (n, 16) uint8, where the data set as it was knows all of them."""
        from onepass.data.pack import may_give

        keys, square = self.look.source[positions], self.look.square[positions]
        if not (self.before and self.own and may_give(self.own, self.geometry, keys, square)):
            return None
        row = (
            self._by_name(positions)
            if self._untouched()
            else find(self.own.columns["source"], keys)
        )
        return self.before.content[row] if np.all(row >= 0) else None

    def _untouched(self) -> bool:
        """Tell whether an early version, which knew no files, would have made the same rows from these very files."""
        if self.before is None or self.own is None or SOURCE in self.before.columns:
            return False
        if self.own.inputs["geometry"]["fit"] != self.geometry.fit:
            return False
        digests = [origin.digest for origin in self.source.origins]
        return all(digests) and digests == [o.digest for o in self.before.record.origins]

    def _by_name(self, positions: np.ndarray) -> np.ndarray:
        """Return which row of the data set before has the name of each image, (n,) int64, -1 for none."""
        names = self.before.names if self.before else []
        rows = {one_form(name): row for row, name in enumerate(names)}
        found = (rows.get(self.source.items[position].name, -1) for position in positions)
        return np.fromiter(found, np.int64, len(positions))

    def _fill_in_sources(self, own: RowFile, rows: Rows) -> None:
        """Copy the pixel file with the digests of the files that its rows come from."""
        arrays = {**own.columns, "source": self.look.source[rows.order]}
        write_rows(
            self.folder / NEXT_PIXELS, arrays, inputs=own.inputs, block_rows=own.layout.shard_rows
        )

    def _same_pixels(self, rows: Rows, contents: np.ndarray) -> bool:
        """Tell whether the pixel file is what it would become."""
        if self.own is None or self.own.inputs["contents"] != contents_digest(contents):
            return False
        return np.array_equal(self.own.columns["source"], self.look.source[rows.order])

    def _as_before(self, rows: Rows, contents: np.ndarray) -> bool:
        """Tell whether nothing that anyone could want to know is another than before."""
        return self.before is not None and _equal(
            self.before, self._manifest(rows, contents), OF_FILES
        )

    def _donors(self, keys: np.ndarray, positions: np.ndarray) -> list[RowFile]:
        """Return the pixel files of the store that may have rows of these images, this data set's first."""
        from onepass.data.pack import may_give

        found = [self.own] if self.own else []
        tops = roots(self.config.store)
        paths = [
            self.folder / NEXT_PIXELS,
            *(p for top in tops for p in sorted(top.glob(f"*/{PIXELS}"))),
        ]
        known = {rows.path for rows in found}
        for path in (path for path in paths if path.exists() and path not in known):
            try:
                found.append(RowFile.open(path))
            except (
                CorruptFileError,
                EarlierFormatError,
                UnreadableFileError,
                MissingFileError,
            ) as e:
                log.info(f"{e}; no row is copied from it")
        square = self.look.square[positions]
        return [rows for rows in found if may_give(rows, self.geometry, keys, square)]

    @staticmethod
    def _carried(donors: Sequence[RowFile], keys: np.ndarray) -> np.ndarray:
        """Return which images have a row in a donor, (n,) bool."""
        found = np.zeros(len(keys), bool)
        for donor in donors:
            found |= find(donor.columns["source"], keys) >= 0
        return found

    def _arrange(self, positions: np.ndarray, content: np.ndarray) -> Rows:
        config = self.config
        wished = Choices(
            config.seed,
            config.resplit,
            config.drop_leaks or "",
            config.group,
            config.group_by,
            config.hold_back,
        )
        files = self.look.source[positions]
        return arrange(self.source, positions, content, files, self.before, wished)

    def _finish(self, rows: Rows, contents: np.ndarray, *, new: int, carried: int) -> Prepared:
        """Write the manifest, which makes the new pixels count, and give them their name."""
        if self.config.hold_back is not None:
            self.held_out = self._hold_out(rows)
        manifest = self._manifest(rows, contents)
        what = changes_between(self.before, manifest, rows.before)
        if what or self.before is None:
            by = MadeBy.now()
            change = Change(by.created, by.command, what, manifest.digest)
            manifest = replace(manifest, history=[*manifest.history, change])
        elsewhere = self.before is not None and self.before.path != manifest.path
        if elsewhere and self._as_before(rows, contents):
            return Prepared(
                "cached",
                self.name,
                carried=carried,
                equal=_count_equal(contents),
                said=self.source.said,
            )
        if self.before is None or elsewhere or not _equal(self.before, manifest):
            if self.before is None and manifest.path.exists():  # damaged, see `_existing`
                manifest.path.replace(f"{manifest.path}{DAMAGED}")
            manifest.write()
        settle(self.folder, manifest.contents)
        (self.folder / NEXT_PIXELS).unlink(
            missing_ok=True
        )  # of a run that ended before its manifest
        shutil.rmtree(parts_folder(self.folder / NEXT_PIXELS), ignore_errors=True)
        cached = self.before is not None and not what and not new
        return Prepared(
            "cached" if cached else "prepared",
            self.name,
            new=new,
            carried=carried,
            equal=_count_equal(contents),
            changed=what if self.before else [],
            said=[*self.source.said, *rows.said],
            geometry="" if cached else self.geometry_note,
        )

    def _manifest(self, rows: Rows, contents: np.ndarray) -> Manifest:
        source, look, before = self.source, self.look, self.before
        skipped = _skipped(self.bad)
        record = replace(
            source.record,
            notes=[*source.record.notes, *rows.notes],
            kind=source.kind,
            source=", ".join(origin.place for origin in source.origins),
            origins=source.origins,
            seed=rows.seed,
            group_column=rows.choices.group_column or "",
            group_pattern=rows.choices.group_pattern or "",
            shared=rows.shared,
            geometry=asdict(self.geometry),
            geometry_note=self.geometry_note,
            skipped=skipped,
            left_out=left_out_by_kind(source.left_out, skipped),
            symmetries=self._symmetries(),
            held_out=self.held_out,
        )
        columns: dict[str, Any] = {
            SOURCE: look.source[rows.order],
            STAMP: look.stamp[rows.order],
            IMAGE_SIZE: look.size[rows.order],
            GREY: look.grey[rows.order].astype(np.uint8),
            **rows.columns,
        }
        if rows.groups is not None:
            columns[GROUP] = rows.groups
        for name, values in source.side.items():
            if name == GROUP:  # written above where it says what belongs together
                continue
            is_list = isinstance(values, list)
            columns[name] = [values[p] for p in rows.order] if is_list else values[rows.order]
        same = before is not None and before.contents == contents_digest(contents)
        return Manifest(
            path=manifest_path(self.config.store, self.name),
            content=np.asarray(contents),
            labels=rows.labels,
            split=rows.split,
            names=[source.items[position].name for position in rows.order],
            class_ids=source.class_ids,
            class_names=source.class_names,
            record=record,
            columns=columns,
            history=before.history if before else [],
            pixels=before.pixels if before and same else "",
        )

    def _hold_out(self, rows: Rows) -> list[HeldOutImage]:
        """Write the files of the images that are held out, and return what is noted of them."""
        from onepass.data.held_out import write_held_out

        items = [self.source.items[position] for position in rows.held_out]
        digests, ids = self.look.source[rows.held_out], self.source.class_ids
        folder = self.folder / HELD_OUT
        held = write_held_out(folder, items, digests, ids, self.held_out)
        if held:
            counts = Counter(image.class_id for image in held)
            each = ", ".join(f"{counts[class_id]:,} {class_id}" for class_id in ids[:SHOWN_CLASSES])
            rows.said.append(
                f"held out: {counted(len(held), 'image')} ({each}), which no model sees, in {folder}"
            )
        return held

    def _symmetries(self) -> list[str] | None:
        """Return what the flags say, else what was said before, else what the source says."""
        if self.config.symmetries:
            return [name for name in SYMMETRIES if name in self.config.symmetries]
        before = self.before.record.symmetries if self.before else None
        return self.source.record.symmetries if before is None else before


def find_positions(positions: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each wanted position stands among ascending positions, int64."""
    return np.searchsorted(positions, wanted)


def settle(folder: Path, contents: str) -> None:
    """Give the pixels that the manifest describes their name, where a run ended before it did."""
    try:
        waiting = RowFile.open(folder / NEXT_PIXELS)
    except (MissingFileError, CorruptFileError):
        return
    if waiting.inputs.get("contents") == contents:
        (folder / NEXT_PIXELS).replace(folder / PIXELS)
        fsync(folder)


def _existing(store: AnyStore, source: Source, name: str) -> Manifest | None:
    """Return the data set that has the name now, in the first store that has one, if it may be replaced.

    Raises:
        InvalidInputError: It was made from elsewhere.
        EarlierFormatError: It is of an earlier Onepass.
        UnreadableFileError: The system refuses to read it.
    """
    home = home_of(store, name)
    path, pixels = manifest_path(home, name), dataset_path(home, name)
    try:
        if not path.exists() and pixels.exists():
            RowFile.open(pixels)  # of an earlier format: the error says what to do
        before = Manifest.open(path)
    except MissingFileError:
        return None
    except CorruptFileError as error:
        log.info(
            f"{error}. It is prepared again, without the corrections, the split drawn before and the history "
            f"that it had; the damaged file is kept as {path.name}{DAMAGED}"
        )
        return None
    record = before.record
    elsewhere = "" if record.kind == source.kind else f"{record.kind} already"
    if not elsewhere and not _same_origin(before, source):
        now = ", ".join(origin.place for origin in source.origins)
        elsewhere = f"{record.source}, and would be replaced by {now}"
    if elsewhere:
        raise InvalidInputError(
            f"{path}: {name} is made from {elsewhere}; choose another --name",
            remedy=Remedy("delete", f"{name}/pixels"),
        )
    if home == root(store):
        settle(path.parent, before.contents)
    return before


def _same_origin(before: Manifest, source: Source) -> bool:
    """Tell whether a data set shares a source with these: the same place, or the same files moved."""
    packages = all(not origin.digest for origin in source.origins)
    places = {str(Path(origin.place)) for origin in before.record.origins}
    places.add(str(Path(before.record.source).expanduser().resolve()))
    digests = {origin.digest for origin in before.record.origins} - {""}
    return packages or any(o.place in places or o.digest in digests for o in source.origins)


def _with_equals(bad: dict[str, str], items: Sequence[Item], keys: np.ndarray) -> dict[str, str]:
    """Return the bad images with those of the same bytes, which were not decoded again."""
    if not bad:
        return {}
    at = [index for index, item in enumerate(items) if item.name in bad]
    equal = find(keys[at], keys)
    return {
        items[index].name: bad.get(items[index].name)
        or f"{items[index].name}: the same file as {items[at[first]].name}"
        for index, first in enumerate(equal.tolist())
        if first >= 0
    }


def _skipped(bad: Mapping[str, str]) -> list[SkippedImage]:
    return [SkippedImage(name, why) for name, why in sorted(bad.items())]


def _count_equal(digests: np.ndarray) -> int:
    """Return how many images are equal to an earlier one."""
    return len(digests) - len(np.unique(first_of_each(digests)))


def _equal(first: Manifest, second: Manifest, but: Collection[str] = ()) -> bool:
    """Tell whether two manifests say the same, but for some columns and for the history."""
    if first.digest != second.digest or first.record != second.record:
        return False
    one, other = (
        {name: column for name, column in manifest.columns.items() if name not in but}
        for manifest in (first, second)
    )
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


def _to_extract(store: AnyStore, dataset: ImageDataset) -> dict[str, int]:
    """Return how many images each feature file of other images than the data set's lacks, by key; 0 for none."""
    wanted = dataset.content[np.unique(first_of_each(dataset.content))]
    counts = {}
    for file in list_features(store, dataset.name):
        try:
            rows = RowFile.open(file)
            known = rows.columns["content"]
            if rows.inputs.get("contents") == dataset.contents:
                continue
        except UnreadableFileError as error:
            log.info(f"{error}; what it lacks is not known")
            continue
        except (CorruptFileError, EarlierFormatError, KeyError):
            known = np.zeros((0, wanted.shape[1]), np.uint8)
        counts[file.stem] = int(np.sum(find(known, wanted) < 0))
    return counts
