"""Images in folders, or in a zip, that are named after their classes."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.data.archive import Tree
from onepass.data.images import SUFFIXES
from onepass.data.record import DatasetRecord
from onepass.data.sources.base import VALIDATION_FRACTION, Item, Request, Source, open_location
from onepass.data.splits import SPLITS, TEST, TRAIN, VAL, validation_split


@contextmanager
def open_source(request: Request) -> Iterator[Source]:
    """Yield the images of train/<class>, then val/<class>, then test, each by name.

    Folders of classes without train/ above them do as well. The classes are the sorted folder
    names. Where there is no val/, a stratified, seeded quarter of the training images becomes the
    validation split. Images in test/ have no label.

    Raises:
        InvalidInputError: A class has no image, val/ holds a class that train/ does not, or the
            folders are laid out in another way.
        OnepassError: The folder, zip or address cannot be read.
    """
    with open_location(request) as whole:
        tree = _below_wrappers(whole)
        parts = _parts(tree)
        class_ids = _classes(tree, parts["train"])
        items = [
            item
            for split, name in enumerate(SPLITS)
            if name in parts
            for item in _items(tree, parts[name], split, class_ids)
        ]
        identity, notes = dict(whole.identity), []
        if "val" not in parts:
            items = _with_val(items, request.seed)
            identity["seed"] = request.seed
            notes.append(
                f"There was no val/: {VALIDATION_FRACTION:.0%} of the training images, stratified by class, "
                f"seed {request.seed}, became the validation split."
            )
        yield Source(
            kind="folder",
            where=str(whole.path),
            class_ids=class_ids,
            class_names=class_ids,
            items=items,
            identity=identity,
            record=DatasetRecord(title=whole.path.stem, notes=notes),
        )


def _top(tree: Tree) -> list[str]:
    return sorted(name for name in tree.folders if "/" not in name)


def _images(tree: Tree, folder: str) -> list[str]:
    start = folder + "/" if folder else ""
    return [n for n in tree.files if n.startswith(start) and n.lower().endswith(SUFFIXES)]


def _loose(tree: Tree, folder: str) -> list[str]:
    """Return the images that lie in a folder itself, not deeper."""
    return [name for name in _images(tree, folder) if name.rpartition("/")[0] == folder]


def _below_wrappers(tree: Tree) -> Tree:
    """Enter a single folder that holds everything, as zips often have one."""
    top = _top(tree)
    while (
        len(top) == 1 and top[0] not in SPLITS and _top(tree.below(top[0])) and not _loose(tree, "")
    ):
        tree = tree.below(top[0])
        top = _top(tree)
    return tree


def _parts(tree: Tree) -> dict[str, str]:
    """Return the folder of each split; "" is the tree itself."""
    top = _top(tree)
    if "train" not in top:
        if "val" in top or "test" in top:
            raise InvalidInputError(
                f"{tree.path}: expected train/ beside {', '.join(top[:5])}, found none"
            )
        return {"train": ""}
    for name in top:
        if name in SPLITS or not _images(tree, name):
            continue
        near = difflib.get_close_matches(name, SPLITS, n=1, cutoff=0.4)
        hint = f"; rename it to {near[0]}" if near else "; move it elsewhere"
        raise InvalidInputError(
            f"{tree.path}: expected train/, val/ and test/ only, found {name}/{hint}"
        )
    return {name: name for name in SPLITS if name in top}


def _classes(tree: Tree, train: str) -> list[str]:
    """Return the class folders, sorted; each has to hold an image."""
    folders = _top(tree.below(train))
    where = f"{tree.path}: {tree.prefix}{train}".rstrip("/: ")
    loose = _loose(tree, train)
    if loose or not folders:
        found = f"{len(loose)} images outside of them, such as {loose[0]}" if loose else "none"
        raise InvalidInputError(
            f"{where}: expected one folder a class with its images, found {found}"
        )
    filled = {
        name.removeprefix(train + "/" if train else "").split("/")[0]
        for name in _images(tree, train)
    }
    if empty := [name for name in folders if name not in filled]:
        raise InvalidInputError(
            f"{where}: class {empty[0]!r} has no image ({', '.join(SUFFIXES)}); "
            f"add some or remove the folder{f' ({len(empty)} are empty)' if len(empty) > 1 else ''}"
        )
    return folders


def _items(tree: Tree, folder: str, split: int, class_ids: list[str]) -> Iterator[Item]:
    labels = {name: label for label, name in enumerate(class_ids)}
    for name in _images(tree, folder):
        inside = name.removeprefix(folder + "/" if folder else "").split("/")
        label = labels.get(inside[0], -1) if len(inside) > 1 else -1
        if label < 0 and split == VAL:
            raise InvalidInputError(
                f"{tree.path}: {name}: expected val/<class>/ with a class of train/ ({', '.join(class_ids[:5])} …); "
                "the val split needs labels"
            )
        yield Item(name, -1 if split == TEST else label, split, partial(tree.read, name))


def _with_val(items: list[Item], seed: int) -> list[Item]:
    """Return the items with a quarter of the training images in the validation split."""
    train = [index for index, item in enumerate(items) if item.split == TRAIN]
    labels = np.array([items[index].label for index in train])
    for index, split in zip(
        train, validation_split(labels, fraction=VALIDATION_FRACTION, seed=seed), strict=True
    ):
        old = items[index]
        items[index] = Item(old.name, old.label, int(split), old.read)
    return items
