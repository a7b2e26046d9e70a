"""Images in folders, or in a zip, that are named after their classes."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

from onepass.cache.errors import InvalidInputError
from onepass.cache.progress import counted
from onepass.data.archive import Tree
from onepass.data.layout import one_form, split_of, splits_of, twins
from onepass.data.record import DatasetRecord
from onepass.data.sources.base import (
    Item,
    Read,
    Request,
    Source,
    only_images,
    open_location,
    own_name,
    tree_origin,
)
from onepass.data.splits import SPLITS, TEST, TRAIN, UNDRAWN, VAL

CLASSES = "--layout classes"


@contextmanager
def open_source(request: Request) -> Iterator[Source]:
    """Yield the images of train/<class>, then val/<class>, then test, each by name.

    Folders of classes without train/ above them do as well. The classes are the sorted folder
    names, in Unicode form NFC. Where there is no val/, the training images are yet to be drawn.
    Images in test/ have no label; where they lie in folders of classes, those are their held labels.

    Raises:
        InvalidInputError: A class has no image, val/ holds a class that train/ does not, folders may
            be splits or classes, or are laid out in another way.
        OnepassError: The folder, zip or address cannot be read.
    """
    with open_location(request) as whole:
        images, left_out = only_images(whole)
        tree = _below_wrappers(images)
        parts = _parts(tree, request.layout)
        class_ids = _classes(tree, parts["train"]) if "train" in parts else []
        splits = {"train": TRAIN if "val" in parts else UNDRAWN, "val": VAL, "test": TEST}
        items = [
            item
            for name, split in splits.items()
            if name in parts
            for item in _items(tree, _inner(tree, parts[name], class_ids), split, class_ids)
        ]
        notes = [
            f"{folder}/ was taken for the {name} split."
            for name, folder in parts.items()
            if folder not in ("", name)
        ]
        if known := sum(item.held_label >= 0 for item in items):
            notes.append(
                f"{known:,} test images lie in folders of classes. These labels are kept apart: nothing is trained or "
                "chosen by them, and only a scoring of the test split, when it is asked for, looks at them."
            )
        yield Source(
            kind="folder",
            where=str(whole.path),
            class_ids=class_ids,
            class_names=class_ids,
            items=items,
            origins=[tree_origin(whole)],
            record=DatasetRecord(title=own_name(whole.path), notes=notes),
            left_out=left_out,
            name=own_name(whole.path),
        )


def _top(tree: Tree) -> list[str]:
    return sorted(name for name in tree.folders if "/" not in name)


def _images(tree: Tree, folder: str) -> list[str]:
    start = folder + "/" if folder else ""
    return [name for name in tree.files if name.startswith(start)]


def _loose(tree: Tree, folder: str) -> list[str]:
    """Return the images that lie in a folder itself, not deeper."""
    return [name for name in _images(tree, folder) if name.rpartition("/")[0] == folder]


def _filled(tree: Tree, folder: str) -> list[str]:
    """Return the folders in a folder that hold an image, also deeper, sorted."""
    start = len(folder) + 1 if folder else 0
    parts = (name[start:].partition("/") for name in _images(tree, folder))
    return sorted({name for name, slash, _ in parts if slash})


def _below_wrappers(tree: Tree) -> Tree:
    """Enter a single folder that holds everything, as zips often have one."""
    top = _top(tree)
    while (
        len(top) == 1
        and top[0] not in SPLITS
        and split_of(top[0]) != "train"
        and _top(tree.below(top[0]))
        and not _loose(tree, "")
    ):
        tree = tree.below(top[0])
        top = _top(tree)
    return tree


def _inner(tree: Tree, folder: str, class_ids: list[str]) -> str:
    """Enter a single folder in a split's that holds all of it, as in seg_train/seg_train/<class>."""
    while folder and not _loose(tree, folder):
        inside = _filled(tree, folder)
        deeper = f"{folder}/{inside[0]}" if len(inside) == 1 else ""
        if not deeper or one_form(inside[0]) in class_ids or not _filled(tree, deeper):
            return folder
        folder = deeper
    return folder


def _parts(tree: Tree, layout: str) -> dict[str, str]:
    """Return the folder of each split; "" is the tree itself."""
    filled = _filled(tree, "")
    found = splits_of(filled) if layout == "auto" else {}
    if not found:
        if layout == "auto":
            _refuse_twins(tree)
        return {"train": ""}
    for split, folders in found.items():
        if len(folders) > 1:
            raise InvalidInputError(
                f"{tree.path}: expected one folder of the {split} split, found {'/ and '.join(folders)}/; "
                f"rename or join them, or say {CLASSES} if each is a class"
            )
    if list(found) == ["test"] and filled == found["test"] and not _filled(tree, filled[0]):
        return {"test": filled[0]}  # images to predict, or to choose from what to label next
    if "train" not in found:
        names = "/, ".join(folders[0] for folders in found.values())
        raise InvalidInputError(
            f"{tree.path}: expected train/ beside {names}/, found none; rename the folder of the training images, "
            f"or say {CLASSES} if each folder is a class"
        )
    for name in filled:
        if [name] in found.values():
            continue
        near = difflib.get_close_matches(name, SPLITS, n=1, cutoff=0.4)
        hint = f"rename it to {near[0]}" if near else "move it elsewhere"
        raise InvalidInputError(
            f"{tree.path}: expected train/, val/ and test/ only, found {name}/; {hint}, "
            f"or say {CLASSES} if each folder is a class"
        )
    parts = {split: found[split][0] for split in SPLITS if split in found}
    return parts | {"train": _inner(tree, parts["train"], [])}


def _refuse_twins(tree: Tree) -> None:
    """Refuse folders that look like splits in another language, or like splits below classes."""
    inside: dict[str, set[str]] = {}
    for name in tree.files:
        folder, _, rest = name.partition("/")
        below, deeper, _ = rest.partition("/")
        inside.setdefault(folder, set()).add(one_form(below) if deeper else "")
    inside = {folder: names for folder, names in inside.items() if "" not in names}
    if pair := twins(inside):
        shared = sorted(inside[pair[0]] & inside[pair[1]])
        raise InvalidInputError(
            f"{tree.path}: {pair[0]}/ and {pair[1]}/ both hold {shared[0]}/ and {shared[1]}/: expected classes at the "
            f"top, or train/, val/ and test/ there with classes inside; rename the folders, or say {CLASSES} if "
            f"{pair[0]} and {pair[1]} are classes"
        )


def _classes(tree: Tree, train: str) -> list[str]:
    """Return the names of the class folders, sorted; each has to hold an image."""
    folders = sorted({one_form(name) for name in _top(tree.below(train))})
    where = f"{tree.path}: {tree.prefix}{train}".rstrip("/: ")
    loose = _loose(tree, train)
    if loose or not folders:
        found = (
            f"{counted(len(loose), 'image')} outside of them, such as {loose[0]}; images without labels go into a "
            "folder test"
            if loose
            else "none"
        )
        raise InvalidInputError(
            f"{where}: expected one folder a class with its images, found {found}"
        )
    filled = {
        one_form(name.removeprefix(train + "/" if train else "").split("/")[0])
        for name in _images(tree, train)
    }
    if empty := [name for name in folders if name not in filled]:
        raise InvalidInputError(
            f"{where}: class {empty[0]!r} has no image that can be read; "
            f"add some or remove the folder{f' ({len(empty)} are empty)' if len(empty) > 1 else ''}"
        )
    return folders


def _items(tree: Tree, folder: str, split: int, class_ids: list[str]) -> Iterator[Item]:
    labels = {name: label for label, name in enumerate(class_ids)}
    read_file = tree.read  # one for all of a million
    for name in _images(tree, folder):
        inside = name.removeprefix(folder + "/" if folder else "").split("/")
        label = labels.get(one_form(inside[0]), -1) if len(inside) > 1 else -1
        if label < 0 and split == VAL:
            raise InvalidInputError(
                f"{tree.path}: {name}: expected val/<class>/ with a class of train/ ({', '.join(class_ids[:5])} …); "
                "the val split needs labels"
            )
        read, stamp = Read(read_file, name), tree.stamp(name)
        if split == TEST:
            yield Item(one_form(name), -1, split, read, held_label=label, stamp=stamp)
        else:
            yield Item(one_form(name), label, split, read, stamp=stamp)
