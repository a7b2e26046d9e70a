"""onepass data relabel and export: the labels of a data set as a table that a person can edit.

Only the manifest is written: no image is decoded, no vector computed. A later `prepare` keeps what is
corrected here as long as the source says what it says now.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from onepass.cache.content import find
from onepass.cache.csv_text import FORMULA, csv_text
from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.files import write_atomic
from onepass.cache.locks import exclusive
from onepass.cache.made_by import MadeBy
from onepass.data.config import ExportConfig, RelabelConfig
from onepass.data.dataset import manifest_of
from onepass.data.history import changes_between
from onepass.data.layout import one_form
from onepass.data.manifest import (
    EXCLUDED,
    HELD_LABELS,
    SOURCE_LABELS,
    SOURCE_SPLIT,
    Change,
    Manifest,
    manifest_path,
    true_labels,
)
from onepass.data.splits import SPLITS, TEST, TRAIN, UNDRAWN, check_classes
from onepass.data.tables import read_table, texts

EXCLUDE = "excluded"  # instead of a class: the image is taken out
SHOWN = 5  # errors that are named


@dataclass(frozen=True, slots=True)
class Relabelled:
    """What `relabel` did.

    Attributes:
        name: Of the data set.
        rows: How many rows of the table were read.
        changed: What is different, one line for each kind of change; nothing where the table says what is so.
        digest: Of the data set now (hex).
        said: What else may surprise.
    """

    name: str
    rows: int
    changed: list[str]
    digest: str
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export` wrote.

    Attributes:
        name: Of the data set.
        path: The table.
        rows: How many rows it has.
    """

    name: str
    path: Path
    rows: int


def relabel(config: RelabelConfig) -> Relabelled:
    """Change the labels that a table says otherwise, all of them or none.

    Raises:
        InvalidInputError: A row of the table names no image, no class, or is at odds with another; or a class
            would have no training image.
        MissingFileError: There is no such table, or no such data set.
        OnepassError: The data set is damaged, or another process writes it.
    """
    manifest_of(config.store, config.name)  # before a lock is made where no data set is
    path = manifest_path(config.store, config.name)
    with exclusive(path):
        before = manifest_of(config.store, config.name)
        wanted = _read_table(config.labels)
        labels, split = _apply(config.labels, wanted, before)
        after = _changed(before, labels, split)
        trained = true_labels(after)[after.split == TRAIN].tolist()
        check_classes(str(config.labels), after.class_ids, trained)
        what = changes_between(before, after, np.arange(len(after.names)))
        if what:
            by = MadeBy.now()
            change = Change(by.created, by.command, what, after.digest)
            after = replace(after, path=path, history=[*before.history, change])
            after.write()
    return Relabelled(config.name, len(wanted), what, after.digest, _copies(before, after))


def export_labels(config: ExportConfig) -> Exported:
    """Write file, label and split of every image as a table that `relabel` takes.

    Raises:
        UsageError: It is not said what to export.
        OnepassError: The data set is not there or damaged, or the table cannot be written.
    """
    if not config.labels:
        raise UsageError("expected --labels: the labels are what can be exported")
    manifest = manifest_of(config.store, config.name)
    path = config.out or Path(f"{config.name}-labels.csv")
    shown = [*shown_classes(manifest.class_ids, manifest.class_names), ""]
    splits = [*SPLITS, EXCLUDE]
    rows = (
        (name, EXCLUDE if split == EXCLUDED else shown[label], splits[split])
        for name, label, split in zip(
            manifest.names, true_labels(manifest), manifest.split, strict=True
        )
    )
    write_table(path, ("file", "label", "split"), rows)
    return Exported(config.name, path, len(manifest.names))


def shown_classes(class_ids: list[str], class_names: list[str]) -> list[str]:
    """Return what a table calls each class: its name where no other has the same, else its id."""
    unique = len(set(class_names)) == len(class_names) and not set(class_names) & set(class_ids)
    return class_names if unique else class_ids


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table as comma-separated values, atomically; with a byte order mark, which spreadsheets ask for.

    `relabel` takes away again the ' that stands before what looks like a formula.
    """
    write_atomic(path, csv_text(header, list(rows)).encode("utf-8-sig"))


def relabelled_text(result: Relabelled) -> str:
    """Return what a person reads after `relabel`."""
    from onepass.cache.commandline.advice import command_of
    from onepass.cache.commandline.terminal import one_line

    if not result.changed:
        return f"{result.name}: the table ({result.rows:,} rows) says what is so already; nothing to do"
    lines = [f"{result.name}: no image decoded, no vector computed"]
    lines += [f"  changed   {one_line(line)}" for line in result.changed]
    lines += [f"  note      {one_line(line)}" for line in result.said]
    return "\n".join([*lines, f"Next: {command_of('classify', result.name)}"])


def exported_text(result: Exported) -> str:
    """Return what a person reads after `export`."""
    from onepass.cache.commandline.advice import onepass_command

    command = onepass_command("data", "relabel", result.name, "--labels", str(result.path))
    return (
        f"{result.name}: file, label and split of {result.rows:,} images in {result.path}\n"
        f"Next: edit the labels (a class, or {EXCLUDE}), then {command}"
    )


def _read_table(path: Path) -> list[tuple[str, str, str]]:
    """Return (place, file, label) of each row of a table with columns of these names.

    Raises:
        InvalidInputError: It is no such table.
        MissingFileError: There is none.
        UnreadableFileError: The system refuses to read it.
    """
    table = read_table(path)
    named = {name.casefold(): name for name in table.names}
    if not {"file", "label"} <= named.keys():
        found = ", ".join(table.names)[:80]
        raise InvalidInputError(
            f"{path}: expected a table whose first line names the columns file and label, found {found!r}"
        )
    files, labels = (texts(table.cells(named[name])) for name in ("file", "label"))
    return [
        (table.place(row), one_form(file), _plain(label))
        for row, (file, label) in enumerate(zip(files, labels, strict=True))
    ]


def _plain(cell: str) -> str:
    """Return a cell without the ' before what looks like a formula; see `csv_text`."""
    cell = cell.strip()
    return cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULA else cell


def _apply(
    path: Path, wanted: list[tuple[str, str, str]], before: Manifest
) -> tuple[np.ndarray, np.ndarray]:
    """Return the true labels (N,) and splits (N,) after the table."""
    edit = _Edit(before)
    wrong = [f"{place}: {why}" for place, *cells in wanted if (why := edit.apply(place, *cells))]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InvalidInputError(f"{path}: {'; '.join(wrong[:SHOWN])}{more}. Nothing was changed")
    return edit.labels, edit.split


class _Edit:
    """True labels and splits of a data set's rows, to be changed line by line."""

    def __init__(self, before: Manifest) -> None:
        self.labels, self.split = true_labels(before).copy(), before.split.copy()
        self.drawn = before.column(SOURCE_SPLIT, np.int8(UNDRAWN))
        self.row_of = {one_form(name): row for row, name in enumerate(before.names)}
        self.classes = _classes(before)
        self.known = ", ".join(list(dict.fromkeys(before.class_ids))[:SHOWN])
        self.said: dict[int, tuple[str, str]] = {}

    def apply(self, place: str, file: str, label: str) -> str:
        """Do what a row of the table asks; return what is wrong with it, "" for nothing."""
        names = (name for name in (file, file.strip(), _plain(file)) if name in self.row_of)
        row = self.row_of.get(next(names, ""))
        if row is None:
            return f"no image is called {file!r}"
        earlier, said = self.said.setdefault(row, (place, label))
        if said != label:
            return f"{file} is {label}, but {said} in {earlier}"
        target = self.classes.get(one_form(label))
        if label == EXCLUDE and EXCLUDE not in self.classes:
            self.split[row] = EXCLUDED
        elif target is not None:
            return self._take_in(row, target, file)
        elif label or self.labels[row] >= 0:
            received = repr(label) if label else "nothing"
            return f"{file}: expected a class ({self.known} …) or {EXCLUDE}, received {received}"
        return ""

    def _take_in(self, row: int, label: int, file: str) -> str:
        """Give a row its label, and its split back where it was excluded."""
        self.labels[row] = label
        if self.split[row] == EXCLUDED:
            if self.drawn[row] == UNDRAWN:
                return f"{file} is out because its equals are in train and in val"
            self.split[row] = self.drawn[row]
        return ""


def _classes(manifest: Manifest) -> dict[str, int]:
    """Return the label of each text that a table may call a class: its id, or a name that is its own."""
    names: dict[str, int] = {}
    for label, name in enumerate(manifest.class_names):
        if manifest.class_names.count(name) == 1:
            names[one_form(name.strip())] = label
    return names | {one_form(class_id): label for label, class_id in enumerate(manifest.class_ids)}


def _changed(before: Manifest, labels: np.ndarray, split: np.ndarray) -> Manifest:
    """Return the manifest with other true labels and splits, which remembers what the source says."""
    true = true_labels(before)
    columns = dict(before.columns)
    stated = columns.pop(SOURCE_LABELS, true)
    if not np.array_equal(stated, labels):
        columns[SOURCE_LABELS] = stated
    then = columns.pop(SOURCE_SPLIT, np.full(len(split), UNDRAWN, np.int8))
    newly = (split == EXCLUDED) & (before.split != EXCLUDED)
    if np.any(split == EXCLUDED):
        columns[SOURCE_SPLIT] = np.where(newly, before.split, then).astype(np.int8)
    held = before.column(HELD_LABELS, np.int32(-1))
    apart = (before.split == TEST) | (then == TEST) | (held >= 0)
    if np.any(apart & (labels >= 0)):
        columns[HELD_LABELS] = np.where(apart, labels, -1).astype(np.int32)
    visible = np.where(apart, -1, labels).astype(np.int32)
    return replace(before, labels=visible, split=split.astype(np.int8), columns=columns)


def _copies(before: Manifest, after: Manifest) -> list[str]:
    """Say how many images have an equal under another label, where one of the two was changed."""
    now = true_labels(after)
    changed = np.flatnonzero(true_labels(before) != now)
    first = find(after.content[changed], after.content)
    equal = np.flatnonzero(first >= 0)
    other = now[equal] != now[changed[first[equal]]]
    return [f"equal images that keep another label: {other.sum():,}"] if other.any() else []
