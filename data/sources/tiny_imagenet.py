"""Tiny ImageNet, from its zip (read in place), an unpacked folder, or the official address."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from onepass.cache.errors import InvalidInputError, Remedy
from onepass.cache.progress import counted
from onepass.data.archive import Tree
from onepass.data.download import Download
from onepass.data.images import image_suffixes
from onepass.data.record import DatasetRecord, PublishedResult
from onepass.data.sources.base import (
    Item,
    Read,
    Request,
    Source,
    Survey,
    only_images,
    open_location,
    tree_origin,
)
from onepass.data.splits import TEST, TRAIN, VAL

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
SIZE = 248_100_043  # bytes
DIGEST = "md5:90528d7ca1a48142e341f4ef8d21d0de"  # as public loaders quote it
SIDE = 64  # px
ANNOTATIONS = "val/val_annotations.txt"
TRAIN_IMAGE = re.compile(r"((?:[^/]+/)?)train/n\d{8}/")  # the first file of more training images

RECORD = DatasetRecord(
    title="Tiny ImageNet",
    licence="images of ImageNet: research and education, not commercial; the archive states no licence of its own",
    citation=[
        "Y. Le, X. Yang: Tiny ImageNet Visual Recognition Challenge. CS 231N, Stanford University, 2015.",
        "O. Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge. International Journal "
        "of Computer Vision 115, 2015.",
    ],
    published=[
        PublishedResult("Xception, frozen", 58.2, "De 2020", "frozen"),
        PublishedResult("Xception, fine-tuned on 90,000 images", 75.7, "De 2020", "fine-tuned"),
        PublishedResult(
            "its last headline number, probably of the test images", 74.8, "De 2020", "ensemble"
        ),
        PublishedResult("Swin-L at 384 px, fine-tuned", 91.35, "arXiv 2205.10660"),
    ],
    notes=[
        "Tiny ImageNet is cut out of ImageNet, which most backbones were trained on: "
        "its frozen features are better here than on images of another origin."
    ],
    symmetries=["flip"],
)


@contextmanager
def open_source(request: Request) -> Iterator[Source]:
    """Yield all images: training rows by wnid and number, then validation, then test by number.

    The classes are the sorted wnids of wnids.txt, their names stand in words.txt, the labels of the
    validation images in val_annotations.txt. Test images have no label. A further source may have
    more training images and no such lists.

    Raises:
        InvalidInputError: It is not a Tiny ImageNet, a class has no image, or a label is missing.
        OnepassError: The zip, folder or address cannot be read.
    """
    default = Download(URL, request.raw / "tiny-imagenet-200.zip", SIZE, DIGEST)
    with open_location(request, default) as whole:
        _, left_out = only_images(whole)
        left_out.pop(".txt", None)  # the lists of classes and boxes that belong to it
        if request.further and (more := TRAIN_IMAGE.match(next(iter(whole.files), ""))):
            tree = whole.below(more[1].rstrip("/"))
            wnids, words = sorted({name.split("/")[1] for name in _images(tree, "train")}), {}
            items = list(_train_items(tree, wnids))
        else:
            tree = whole.below(_root(whole))
            wnids = sorted(set(tree.read("wnids.txt").decode("utf-8", "replace").split()))
            words = _table(tree, "words.txt")
            items = [*_train_items(tree, wnids), *_val_items(tree, wnids), *_test_items(tree)]
        yield Source(
            kind="tiny-imagenet",
            where=str(whole.path),
            class_ids=wnids,
            class_names=[words.get(wnid, wnid) for wnid in wnids],
            items=items,
            origins=[tree_origin(whole)],
            record=RECORD,
            survey=Survey(largest=SIDE, square=True, grey=False),
            left_out=left_out,
        )


def _root(tree: Tree) -> str:
    """Return the folder that holds wnids.txt and the rest: the tree itself or a folder at its top."""
    for name in tree.files:
        folder = name.removesuffix("wnids.txt").rstrip("/")
        needed = {f"{folder}/{part}".lstrip("/") for part in (ANNOTATIONS, "words.txt")}
        if name.endswith("wnids.txt") and name.count("/") <= 1 and needed <= set(tree.files):
            return folder
    found = ", ".join(sorted({name.split("/")[0] for name in tree.files})[:5]) or "nothing"
    raise InvalidInputError(
        f"{tree.path}: expected Tiny ImageNet (wnids.txt, words.txt, train/<wnid>/images, {ANNOTATIONS}), "
        f"found {found}",
        remedy=Remedy("prepare a folder"),
    )


def _images(tree: Tree, folder: str) -> list[str]:
    """Return the images below a folder, by folder and then by the number in their name."""

    def order(name: str) -> tuple[str, int, str]:
        above, _, base = name.rpartition("/")
        number = re.search(r"(\d+)\.\w+$", base)
        return above, int(number[1]) if number else -1, base

    suffixes = tuple(image_suffixes())
    found = (n for n in tree.files if n.startswith(folder + "/") and n.lower().endswith(suffixes))
    return sorted(found, key=order)


def _item(tree: Tree, name: str, label: int, split: int) -> Item:
    base = name.rpartition("/")[2]
    return Item(base, label, split, Read(tree.read, name), stamp=tree.stamp(name))


def _train_items(tree: Tree, wnids: list[str]) -> Iterator[Item]:
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    for name in _images(tree, "train"):
        wnid = name.split("/")[1]
        if wnid not in labels:
            raise InvalidInputError(f"{tree.path}: {name}: its class is not in wnids.txt")
        yield _item(tree, name, labels[wnid], TRAIN)


def _val_items(tree: Tree, wnids: list[str]) -> Iterator[Item]:
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    annotated = {file: row.split("\t")[0] for file, row in _table(tree, ANNOTATIONS).items()}
    names = _images(tree, "val")
    if not names:
        raise InvalidInputError(
            f"{tree.path}: expected validation images in val/images, found none"
        )
    for name in names:
        wnid = annotated.pop(name.rpartition("/")[2], None)
        if wnid not in labels:
            why = f"names {wnid}, which is not in wnids.txt" if wnid else "gives no label"
            raise InvalidInputError(
                f"{tree.path}: {ANNOTATIONS} {why} for {name}; the val split needs labels"
            )
        yield _item(tree, name, labels[wnid], VAL)
    if annotated:
        raise InvalidInputError(
            f"{tree.path}: {ANNOTATIONS} names {counted(len(annotated), 'image')} not there, such as {min(annotated)}"
        )


def _test_items(tree: Tree) -> Iterator[Item]:
    return (_item(tree, name, -1, TEST) for name in _images(tree, "test"))


def _table(tree: Tree, name: str) -> dict[str, str]:
    """Return a text file's lines as {first field: rest}, fields parted by tabs."""
    lines = tree.read(name).decode("utf-8", "replace").splitlines()
    return {first: rest for first, _, rest in (line.partition("\t") for line in lines) if first}
