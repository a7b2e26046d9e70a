"""Where images come from: each source gives names, images, labels and splits in a fixed order."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from onepass.cache.errors import Remedy, unknown_name

if TYPE_CHECKING:  # the table below is read by --help, which should not wait for NumPy
    from onepass.data.sources.base import Request, Source

SOURCES = {
    "solar-cells": "2,624 photographs of solar cells, 2 classes, from the package elpv-dataset",
    "tiny-imagenet": "200 classes at 64 x 64 px, from the official address or --source ZIP_OR_FOLDER_OR_URL",
    "folder": "your own images: --source FOLDER_OR_ZIP with train/<class>/*.jpg [val/<class>/*.jpg] [test/*.jpg]",
    "digits": "1,797 digits at 8 x 8 px from scikit-learn, for fast tests",
}


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
    module = import_module("onepass.data.sources." + kind.replace("-", "_"))
    with ExitStack() as stack:
        opened = [stack.enter_context(module.open_source(request)) for request in requests]
        if len(opened) > 1:
            from onepass.data.sources.several import join

            opened = [join(opened)]
        opened[0].check()
        yield opened[0]
