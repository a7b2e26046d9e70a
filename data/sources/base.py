"""What every source of images gives, and how one that lies in files is opened."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.cache.provenance import digest_bytes
from onepass.data.archive import Tree, open_tree
from onepass.data.download import Download, fetch
from onepass.data.record import DatasetRecord
from onepass.data.splits import TRAIN

VALIDATION_FRACTION = 0.25  # of a data set that comes without a validation split


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks of a source.

    Attributes:
        source: File, folder or address; None where the source knows itself where to look.
        digest: "md5:…" or "sha256:…" that a download must have; "" for the source's own.
        raw: Folder of the downloads.
        seed: Of the validation split, where the source has none of its own.
    """

    source: str | None
    digest: str
    raw: Path
    seed: int


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    Attributes:
        name: Its file name, unique in the data set.
        label: Index into the class ids; -1 unknown.
        split: Index into `SPLITS`.
        read: Returns its encoded bytes, or pixels (H, W) or (H, W, 3) uint8.
    """

    name: str
    label: int
    split: int
    read: Callable[[], bytes | np.ndarray]


@dataclass(frozen=True, slots=True)
class Survey:
    """What has to be known of all images before the first is packed.

    Attributes:
        largest: Longest side of any image (px).
        square: All have the same size, and are square.
        grey: All are grey.
    """

    largest: int
    square: bool
    grey: bool


@dataclass(frozen=True, slots=True)
class Source:
    """Images in a fixed order, and what is known of them.

    Attributes:
        kind: Its name in `SOURCES`.
        where: File, folder or package it was read from.
        class_ids: K identities; label k is `class_ids[k]`.
        class_names: K names for people.
        items: The images. Their order is the row order.
        identity: JSON that changes when the images, labels or splits do, found without reading them.
        record: Title, licence, citation, published results, notes; the rest is filled in later.
        survey: Where every image is known to be alike; None asks for a look at each.
        side: Further arrays or lists with one entry an item.
    """

    kind: str
    where: str
    class_ids: list[str]
    class_names: list[str]
    items: list[Item]
    identity: dict[str, Any]
    record: DatasetRecord
    survey: Survey | None = None
    side: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.class_ids) < 2:
            raise InvalidInputError(
                f"{self.where}: expected at least two classes, found {', '.join(self.class_ids) or 'none'}"
            )
        twice = [
            name for name, count in Counter(item.name for item in self.items).items() if count > 1
        ]
        if twice:
            raise InvalidInputError(
                f"{self.where}: expected each image once, found {twice[0]} twice"
            )
        check_classes(self.where, self.class_ids, self.items)


def check_classes(where: str, class_ids: Sequence[str], items: Sequence[Item]) -> None:
    """Refuse a data set with a class that cannot be learnt.

    Raises:
        InvalidInputError: Names the classes without a training image.
    """
    trained = {item.label for item in items if item.split == TRAIN}
    empty = [name for label, name in enumerate(class_ids) if label not in trained]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise InvalidInputError(
            f"{where}: expected a training image of every class, found none of {', '.join(empty[:5])}{more}"
        )


def refuse_location(kind: str, request: Request) -> None:
    """Refuse --source and --digest where a source brings its images itself.

    Raises:
        UsageError: One of them was given.
    """
    if request.source or request.digest:
        raise UsageError(f"{kind} comes with its package: leave --source and --digest out")


@contextmanager
def open_location(request: Request, default: Download | None = None) -> Iterator[Tree]:
    """Open the folder or zip that the user named, after fetching it if it is an address.

    Args:
        request: Names it.
        default: What is fetched where it names nothing.

    Raises:
        UsageError: Nothing is named and there is no default, or a digest is given for local files.
        OnepassError: It cannot be fetched or opened.
    """
    url = request.source or (default.url if default else "")
    if not url:
        raise UsageError("expected --source with a folder, a zip or the address of a zip")
    if url.startswith(("http://", "https://")):
        known = default if default and default.url == url and not request.digest else None
        path = fetch(known or _download(url, request))
    elif request.digest:
        raise UsageError("--digest is for downloads; compare local files with sha256sum")
    else:
        path = Path(url).expanduser()
    with open_tree(path) as tree:
        yield tree


def _download(url: str, request: Request) -> Download:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name.endswith(".zip"):
        raise InvalidInputError(f"{url}: expected the address of a .zip file")
    own = f"{name.removesuffix('.zip')}-{digest_bytes(url.encode())[:8]}.zip"  # one name, many addresses
    return Download(url, request.raw / own, digest=request.digest)
