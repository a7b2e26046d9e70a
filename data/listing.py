"""What is prepared: a table, all that is known of one data set, and whether its bytes are right."""

from dataclasses import dataclass

import numpy as np

from onepass.cache.commandline.table import table
from onepass.cache.commandline.terminal import one_line
from onepass.cache.errors import (
    CorruptFileError,
    EarlierFormatError,
    MissingFileError,
    OnepassError,
    Remedy,
    UnreadableFileError,
    raise_together,
)
from onepass.cache.made_by import MadeBy
from onepass.cache.progress import counted
from onepass.cache.rowfile import RowFile
from onepass.data.config import ListConfig, ShowConfig, VerifyConfig
from onepass.data.dataset import (
    SPLITS,
    dataset_path,
    home_of,
    manifest_of,
    open_dataset,
    prepared_names,
)
from onepass.data.manifest import Change
from onepass.data.record import DatasetRecord
from onepass.data.sources import SOURCES
from onepass.data.summary import Summary, left_out_text, summarise, summary_lines

PROBLEMS: dict[type[OnepassError], str] = {
    UnreadableFileError: "unreadable",
    EarlierFormatError: "of an earlier Onepass",
    MissingFileError: "without its pixels",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is known of a data set.

    Attributes:
        summary: Its numbers.
        counts: Images of each split, in the order of `SPLITS`, by class id.
        class_names: Name for people by class id.
        names: The first image names of each split.
        record: Source, licence, citation, published results, what was skipped.
        made_by: Who prepared it, when and with what.
        history: What changed when, the oldest first, where that was asked for.
    """

    summary: Summary
    counts: dict[str, list[int]]
    class_names: dict[str, str]
    names: dict[str, list[str]]
    record: DatasetRecord
    made_by: MadeBy
    history: list[Change] | None = None


def list_datasets(config: ListConfig) -> list[Summary]:
    """Return every data set of the store, by name; damaged and unreadable ones say what is wrong."""
    found = []
    for name in prepared_names(config.store):
        path = dataset_path(home_of(config.store, name), name)
        try:
            found.append(summarise(open_dataset(config.store, name)))
        except OnepassError as error:
            state = PROBLEMS.get(type(error), "damaged")
            size = path.stat().st_size if path.exists() else 0
            problem = f"{state}: {error}"
            found.append(Summary(name, path, {}, 0, 0, 0, [], size, "", problem=problem))
    return found


def show_dataset(config: ShowConfig) -> Shown:
    """Return all that is known of one data set.

    Raises:
        OnepassError: It is not there, or damaged.
    """
    dataset = open_dataset(config.store, config.name)
    classes = len(dataset.class_ids)
    per_split = []
    names = {}
    for name in SPLITS:
        rows = dataset.rows(name)
        known = dataset.labels[rows][dataset.labels[rows] >= 0]
        per_split.append(np.bincount(known, minlength=classes))
        names[name] = [dataset.names[row] for row in rows[:3]]
    counts = np.stack(per_split, axis=1).tolist()
    return Shown(
        summary=summarise(dataset),
        counts=dict(zip(dataset.class_ids, counts, strict=True)),
        class_names=dict(zip(dataset.class_ids, dataset.class_names, strict=True)),
        names=names,
        record=dataset.record,
        made_by=RowFile.open(dataset.path).made_by,
        history=manifest_of(config.store, config.name).history if config.history else None,
    )


def verify_datasets(config: VerifyConfig) -> list[Summary]:
    """Read every byte of one data set, or of all, and of its held-out pictures; compare it with the digests.

    Raises:
        MissingFileError: There is none, or the first of them lacks its pixels.
        CorruptFileError: Names every data set, and its rows, that is not what was prepared or cannot be read.
        UnreadableFileError: The same, where the first of them cannot be read.
    """
    from onepass.data.held_out import check_held_out, held_out_folder  # brings Pillow

    names = [config.name] if config.name else prepared_names(config.store)
    if not names:
        raise MissingFileError(
            f"{config.store}: no data set is prepared yet", remedy=Remedy("prepare", "solar-cells")
        )
    verified: list[Summary] = []
    errors: list[OnepassError] = []
    for name in names:
        try:
            dataset = open_dataset(config.store, name)
            RowFile.open(dataset.path).verify()  # its manifest was, when it was opened
            check_held_out(held_out_folder(config.store, name), dataset.record.held_out)
            verified.append(summarise(dataset))
        except (CorruptFileError, MissingFileError, UnreadableFileError) as error:
            errors.append(error)
    raise_together(errors)
    return verified


def list_text(summaries: list[Summary]) -> str:
    """Return the data sets of the store, and those that can be prepared."""
    lines = []
    for s in summaries:
        if s.problem:
            lines.append(f"{s.name}: {s.problem}")
        else:
            lines += [s.name, *summary_lines(s)]
    lines += [
        "" if lines else "No data set is prepared yet.",
        "onepass data prepare PATH_OR_NAME takes a known data set, or what a path of your own is:",
    ]
    return "\n".join([*lines, *(f"  {line}" for line in table(list(SOURCES.items())))])


def show_text(shown: Shown) -> str:
    """Return all that is known of a data set, for a person."""
    if shown.history is not None:
        return _history_text(shown.summary.name, shown.history)
    record, made_by = shown.record, shown.made_by
    lines = [f"{shown.summary.name}: {one_line(record.title)}", *summary_lines(shown.summary)]
    lines += [
        f"  source    {one_line(record.source)}",
        f"  licence   {record.licence or 'not stated'}",
    ]
    lines += [f"  made by   {one_line(made_by.command)} ({made_by.created})"]
    lines += [f"  cite      {one_line(text)}" for text in record.citation]
    lines += [f"  published {p.accuracy} %  {p.method} ({p.source})" for p in record.published]
    lines += [f"  note      {one_line(note)}" for note in record.notes]
    if record.symmetries is not None:
        lines.append(f"  class     unchanged by {', '.join(record.symmetries) or 'no symmetry'}")
    lines += [f"  geometry  {record.geometry_note}"] if record.geometry_note else []
    if record.held_out:
        lines.append(f"  held out  {counted(len(record.held_out), 'image')}, which no model sees")
    lines += [f"  left out  {left_out_text(record.left_out)}"] if record.left_out else []
    lines += [f"  left out  {one_line(image.why)}" for image in record.skipped]
    for split, names in shown.names.items():
        if names:
            lines.append(f"  {split:<9} {', '.join(map(one_line, names))}, …")
    lines.append(f"  classes   {' / '.join(SPLITS)} images, id, name")
    for class_id, counts in shown.counts.items():
        name = shown.class_names[class_id]
        words = class_id if name == class_id else f"{class_id}  {name}"
        lines.append(f"    {' / '.join(map(str, counts)):<16} {one_line(words)}")
    return "\n".join(lines)


def _history_text(name: str, history: list[Change]) -> str:
    lines = [f"{name}: {counted(len(history), 'state')}"]
    for change in history:
        lines.append(f"  {change.when}  {change.digest[:8]}  {one_line(change.command)}".rstrip())
        lines += [f"      {one_line(line)}" for line in change.what]
    return "\n".join(lines)


def verified_text(summaries: list[Summary]) -> str:
    """Return which data sets are as they were prepared."""
    return "\n".join(
        f"{s.name}: {sum(s.splits.values()):,} rows are as they were prepared" for s in summaries
    )
