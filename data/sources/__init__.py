"""Where images come from: each source gives names, images, labels and splits in a fixed order."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from onepass.cache.errors import Remedy, unknown_name

if TYPE_CHECKING:  # the tables below are read by --help, which should not wait for NumPy
    from onepass.data.sources.base import Request, Source

# Data sets that are known by name,
KNOWN = {
    "solar-cells": "2,624 photographs of solar cells, 2 classes, from the package elpv-dataset",
    "tiny-imagenet": "200 classes at 64 x 64 px, from the official address or --source ZIP_OR_FOLDER_OR_URL",
    "digits": "1,797 digits at 8 x 8 px from scikit-learn, for fast tests",
}
# and what your own may be. A place is of the first kind whose module recognises it, else a folder.
OWN = {
    "hugging-face": "hf://NAME that the library datasets has downloaded, or a folder of its save_to_disk",
    "tensorflow-datasets": "tfds://NAME that the library has made on this machine, or the folder of a version",
    "table": "a .csv, .tsv, .jsonl or .parquet of files (or images) and labels, or a folder with metadata.csv",
    "webdataset": "tars in which 0042.jpg and 0042.cls (or .json) are one sample, such as 'train-{000..012}.tar'",
    "arrays": "an .npz with images and labels, sklearn://NAME, keras://NAME",
    "folder": "a folder, zip or tar with train/<class>/*.jpg [val/<class>/*.jpg] [test/*.jpg], or classes at the top",
}
SOURCES = KNOWN | OWN
TABULAR = (
    "table",
    "webdataset",
    "hugging-face",
    "tensorflow-datasets",
)  # those whose columns can be chosen


def kind_of(place: str) -> str:
    """Return which of `OWN` a path or an address is."""
    others = (kind for kind in OWN if kind != "folder")
    return next((kind for kind in others if _module(kind).recognises(place)), "folder")


@contextmanager
def open_source(kind: str, requests: Sequence["Request"]) -> "Iterator[Source]":
    """Open the images of a data set; use it as a context manager.

    Args:
        kind: One of `SOURCES`.
        requests: Where to look, in one place or in several, whose images are joined.

    Raises:
        UnknownNameError: There is no source of that kind.
        OnepassError: A source is not there, not whole, or not what it should be.
    """
    if kind not in SOURCES:
        raise unknown_name("data set", kind, SOURCES, Remedy("prepare a folder"))
    module = _module(kind)
    with ExitStack() as stack:
        if hasattr(module, "open_sources"):  # its places are parts of one
            opened = [stack.enter_context(module.open_sources(requests))]
        else:
            opened = [stack.enter_context(module.open_source(request)) for request in requests]
        if len(opened) > 1:
            from onepass.data.sources.several import join

            opened = [join(opened)]
        opened[0].check()
        yield opened[0]


def _module(kind: str) -> ModuleType:
    return import_module("onepass.data.sources." + kind.replace("-", "_"))
