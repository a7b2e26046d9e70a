"""Rows of any table become images with labels, splits and groups: what each column means, what is wrong with which row."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onepass.cache.errors import InvalidInputError, UsageError, unknown_name
from onepass.cache.features import SPLITS
from onepass.cache.progress import counted
from onepass.data.layout import one_form, split_of
from onepass.data.manifest import FOLD, RESERVED
from onepass.data.record import DatasetRecord, Origin
from onepass.data.sources.base import Item, Read, Source
from onepass.data.splits import TEST, TRAIN, UNDRAWN, VAL
from onepass.data.tables import texts

# What a column is for, and what it is usually called, the most telling first.
ROLES = {
    "file": (
        "file_name", "filename", "file", "filepath", "file_path", "path", "image_path", "img_path", "image", "img",
    ),
    "label": ("label", "cls", "class", "target", "category", "class_name", "labels"),
    "split": ("split", "subset", "partition"),
    "group": ("group", "group_id"),
    "fold": (FOLD,),
}  # fmt: skip
EXCLUDED = "excluded"  # instead of a split or a label, as `data export` writes it
NO_SPLIT = -2  # of a word that is not the name of one
SHOWN = 3  # rows that an error names
MANY = 20  # rows from which on a class for each is taken for a mistake


@dataclass(frozen=True, slots=True)
class Rows:
    """Images in order, and the cells that belong to each.

    Attributes:
        where: What an error calls all of them, such as the file.
        names: N file names.
        read: Returns the encoded bytes, or the pixels, of row i.
        place: Returns what an error calls row i, such as "line 7".
        cells: Lists of N cells by role: "label", and "split", "group", "fold" where there are such.
        classes: Names of the classes, where labels are indices into them.
        kept: Further lists of N cells, by column.
        stamp: Returns what tells that row i is as it was, as `Item.stamp`.
        folder: What the names are relative to; a name that comes twice in one folder is one file.
        wrong: What is wrong with rows that cannot be read, whatever their labels.
    """

    where: str
    names: list[str]
    read: Callable[[int], bytes | np.ndarray]
    place: Callable[[int], str]
    cells: Mapping[str, Sequence[Any]]
    classes: list[str] = field(default_factory=list)
    kept: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    stamp: Callable[[int], bytes] = lambda row: b""
    folder: str = ""
    wrong: Mapping[int, str] = field(default_factory=dict)


def choose_columns(
    where: str, names: Sequence[str], wished: Mapping[str, str], needed: Sequence[str] = ("label",)
) -> dict[str, str]:
    """Return the column of each role: the one that is wished, else the one that is usually called so.

    Args:
        where: What an error calls the table.
        names: Its columns.
        wished: Columns by role, as `--columns` says; "" for none.
        needed: Roles that must have one.

    Raises:
        UsageError: There is no column for a role that needs one.
        UnknownNameError: A column that is wished is not there.
    """
    folded = {name.casefold(): name for name in reversed(names)}
    found = {}
    for role, habits in ROLES.items():
        column = wished.get(role)
        if column is None:
            column = next((folded[name] for name in habits if name in folded), "")
        elif column and column not in names:
            raise unknown_name(f"{where}: column", column, names)
        if column:
            found[role] = column
        elif role in needed:
            shown = ", ".join(map(repr, names[:8])) + ", …" * (len(names) > 8)
            raise UsageError(
                f"{where}: expected a column for the {role}, usually called {', '.join(ROLES[role][:4])}; found "
                f"{shown or 'none'}. Name it with --columns {role}=COLUMN"
            )
    return found


def columns_text(chosen: Mapping[str, str], kept: Sequence[str], otherwise: str = "") -> str:
    """Say which column was taken for what."""
    words = [f"{role} = {column}" for role, column in chosen.items()]
    words += [f"kept: {', '.join(kept)}"] if kept else []
    return (
        f"columns: {'; '.join([*words, otherwise] if otherwise else words)} (--columns changes it)"
    )


def kept_cells(
    chosen: Mapping[str, str], kept: Sequence[str], cells: Callable[[str], Sequence[Any]]
) -> dict[str, Sequence[Any]]:
    """Return the further columns by name; that of the folds is called so, and whole numbers are groups without .0."""
    further = {name: cells(name) for name in kept}
    for role in ("group", "fold"):
        if role in chosen:
            name = chosen[role]
            further.pop(name, None)
            plain = [number_text(text) for text in texts(cells(name))]
            further[FOLD if role == "fold" else name] = plain
    return further


def source_of(
    kind: str,
    parts: Sequence[Rows],
    *,
    name: str,
    origins: Sequence[Origin],
    said: Sequence[str] = (),
    record: DatasetRecord | None = None,
    group_column: str = "",
) -> Source:
    """Return the images of one or several tables as a source.

    Where no row is said to be in the validation split, those of the training split are yet to be drawn.
    Classes are sorted, numbers by their value; classes that are listed stay in their order.

    Raises:
        InvalidInputError: Rows have no label, two labels or no such split; each names its line.
    """
    where = origins[0].place if len(parts) == 1 else f"{origins[0].place} and {len(parts) - 1} more"
    labels = [texts(_named(part)) for part in parts]
    class_ids, as_class = _classes(where, parts, labels)
    number_of = {class_id: number for number, class_id in enumerate(class_ids)}
    label_of = {text: number_of[one] for text, one in as_class.items()}
    listing = _Listing(where, label_of, _split_words(parts))
    for part, part_labels in zip(parts, labels, strict=True):
        listing.add(part, part_labels)
    columns = [column for column in parts[0].kept if all(column in part.kept for part in parts)]
    return Source(
        kind=kind,
        where=where,
        class_ids=class_ids,
        class_names=class_ids,
        items=listing.finish(),
        origins=list(origins),
        record=record or DatasetRecord(title=name),
        side=listing.side(columns),
        left_out=listing.left_out(),
        name=name,
        said=[*said, *listing.said()],
        group_column=stored_as(group_column) if group_column else "",
    )


def stored_as(column: str) -> str:
    """Return what a column of a table is called in the manifest, which has some of its own."""
    name = column.replace("/", "_").strip() or "unnamed"
    return f"table_{name}" if name in RESERVED else name


def _named(part: Rows) -> Sequence[Any]:
    """Return the labels of a part, by name where they are indices."""
    cells = part.cells["label"]
    if not part.classes:
        return cells
    known = range(len(part.classes))
    for row, cell in enumerate(cells):
        if isinstance(cell, int) and cell not in known and cell != -1:
            raise InvalidInputError(
                f"{part.where}: {part.place(row)}: expected a class 0 to {len(part.classes) - 1}, or -1 for "
                f"none, found {cell}"
            )
    return [
        (part.classes[cell] if cell >= 0 else None) if isinstance(cell, int) else cell
        for cell in cells
    ]


def _classes(
    where: str, parts: Sequence[Rows], labels: Sequence[Sequence[str]]
) -> tuple[list[str], dict[str, str]]:
    """Return the classes in order, and the class of each text that stands for one."""
    found = {text for part in labels for text in part} - {"", EXCLUDED}
    listed = dict.fromkeys(name for part in parts for name in part.classes)
    if listed:
        ids = [name for name in listed if name in found] + sorted(found - listed.keys())
        return ids, {text: text for text in found}
    numbers = {text: value for text in found if (value := _number(text)) is not None}
    if len(numbers) < len(found):
        as_class = {text: one_form(text.strip()) for text in found}
        ids = sorted(set(as_class.values()))
    else:
        _refuse_fractions(parts, labels, numbers)
        as_class = {text: number_text(text) for text in found}
        ids = sorted(set(as_class.values()), key=lambda text: (float(text), text))
    if len(ids) >= MANY and len(ids) == sum(map(len, labels)):
        raise InvalidInputError(
            f"{where}: expected classes, but each of the {len(ids):,} rows has a label of its own, such as "
            f"{ids[0]!r}; name the column with --columns label=COLUMN"
        )
    return ids, as_class


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def number_text(text: str) -> str:
    """Return 3 for 3.0, as programs write whole numbers in a column with gaps; other text as it is."""
    value = _number(text) if "." in text or "e" in text.casefold() else None
    whole = value is not None and value.is_integer() and abs(value) < 1 << 53
    return str(int(value)) if value is not None and whole else text.strip()


def _refuse_fractions(
    parts: Sequence[Rows], labels: Sequence[Sequence[str]], numbers: Mapping[str, float]
) -> None:
    odd = {text for text, value in numbers.items() if not value.is_integer()}
    for part, part_labels in zip(parts, labels, strict=True):
        for row, text in enumerate(part_labels):
            if text in odd:
                raise InvalidInputError(
                    f"{part.where}: {part.place(row)}: expected a class, found the fraction {text}; classes are "
                    "names or whole numbers, so cut such values into classes first"
                )


def _split_words(parts: Sequence[Rows]) -> dict[str, int]:
    """Return the split of each word in the columns of splits; no word is for one that is yet to be drawn."""
    words = {word for part in parts for word in texts(part.cells.get("split", ()))}
    named = {word: split_of(word, ignored={"of"}) for word in words - {""}}
    found = {word: SPLITS.index(split) for word, split in named.items() if split}
    if VAL not in found.values():
        found = {word: UNDRAWN if split == TRAIN else split for word, split in found.items()}
    return {"": UNDRAWN, **found}


def _objection(name: str, label: int, split: int, word: str) -> str:
    """Return what is wrong with a row; "" for nothing."""
    if not name:
        return "expected a file, found nothing"
    if split == NO_SPLIT:
        return f"{name}: expected a split (train, val, test) or nothing, found {word!r}"
    if label < 0 and split != TEST:
        return f"{name} has no label; leave the row out, or put it into the split test"
    return ""


def _item(part: Rows, row: int, label: int, split: int) -> Item:
    """Return a row as an image; the label of a test image is kept apart."""
    shown, held = (-1, label) if split == TEST else (label, -1)
    read, stamp = Read(part.read, row), part.stamp(row)
    return Item(part.names[row], shown, split, read, held_label=held, stamp=stamp)


class _Listing:
    """Rows of tables, one after the other: those that become images, and what is wrong with others.

    Args:
        where: What an error calls the tables.
        label_of: The label of each text that stands for a class.
        split_of: The split of each word that stands for one.
    """

    def __init__(
        self, where: str, label_of: Mapping[str, int], split_of: Mapping[str, int]
    ) -> None:
        self.where, self.label_of, self.split_of = where, label_of, split_of
        self.shown = {label: repr(text) for text, label in label_of.items()}
        self.items: list[Item] = []
        self.rows: list[list[int]] = []  # of each part, that became items
        self.wrong: list[str] = []
        self.doubled: list[str] = []
        self.excluded = 0
        self.parts: list[Rows] = []
        self._first: dict[str, dict[str, int]] = {}  # item of each file, by folder

    def add(self, part: Rows, labels: Sequence[str]) -> None:
        splits = texts(part.cells.get("split", [""] * len(part.names)))
        seen = self._first.setdefault(part.folder, {}) if part.folder else {}
        rows: list[int] = []
        self.parts.append(part)
        self.rows.append(rows)
        for row, (name, text, word) in enumerate(zip(part.names, labels, splits, strict=True)):
            if EXCLUDED in (word, text) and EXCLUDED not in self.label_of:
                self.excluded += 1
                continue
            split = self.split_of.get(word, NO_SPLIT)
            label = self.label_of.get(text, -1)
            why = part.wrong.get(row) or _objection(name, label, split, word)
            if why:
                self.wrong.append(f"{part.place(row)}: {why}")
            elif not (part.folder and self._known(part, row, seen, label, split)):
                rows.append(row)
                self.items.append(_item(part, row, label, split))

    def _known(self, part: Rows, row: int, seen: dict[str, int], label: int, split: int) -> bool:
        """Tell whether an image before is of the same file; note where the two disagree.

        Args:
            part: Has the row.
            row: Which it is.
            seen: The first image of each file.
            label: What the row says, as `label_of`.
            split: What the row says, as `split_of`.
        """
        name = part.names[row]
        index = seen.setdefault(name, len(self.items))
        if index == len(self.items):
            return False
        first, at = self.items[index], part.place(row)
        if label != (known := max(first.label, first.held_label)):
            here, there = (self.shown.get(k, "without a label") for k in (label, known))
            self.wrong.append(f"{at}: {name} is {here}, but {there} in {self._place(index)}")
        elif split != first.split:
            self.wrong.append(f"{at}: {name} is in another split than in {self._place(index)}")
        else:
            self.doubled.append(f"{at}: {name}")
        return True

    def _place(self, index: int) -> str:
        """Return what an error calls the row that became an image."""
        for part, rows in zip(self.parts, self.rows, strict=True):
            if index < len(rows):
                return part.place(rows[index])
            index -= len(rows)
        raise IndexError(index)

    def finish(self) -> list[Item]:
        """Return the images.

        Raises:
            InvalidInputError: Something is wrong with a row.
        """
        if self.wrong:
            more = len(self.wrong) - SHOWN
            rest = f"; and {counted(more, 'row')} more" if more > 0 else ""
            raise InvalidInputError(f"{self.where}: {'; '.join(self.wrong[:SHOWN])}{rest}")
        return self.items

    def side(self, columns: Sequence[str]) -> dict[str, list[str]]:
        """Return the further columns as text, one entry an image."""
        side: dict[str, list[str]] = {stored_as(column): [] for column in columns}
        for part, rows in zip(self.parts, self.rows, strict=True):
            for column in columns:
                found = texts(part.kept[column])
                side[stored_as(column)] += [found[row] for row in rows]
        return side

    def left_out(self) -> dict[str, int]:
        counts = {"excluded": self.excluded, "doubled": len(self.doubled)}
        return {kind: count for kind, count in counts.items() if count}

    def said(self) -> list[str]:
        if not self.doubled:
            return []
        return [
            f"doubled rows: {len(self.doubled):,}, such as {self.doubled[0]}; each file is one row"
        ]
