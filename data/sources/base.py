"""What every source of images gives, and how one that lies in files is opened."""

import glob
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from onepass.cache.errors import InvalidInputError, MissingFileError, UsageError
from onepass.cache.provenance import digest_bytes
from onepass.data.archive import Tree, open_tree
from onepass.data.download import Download, fetch
from onepass.data.images import MAGIC_BYTES, image_suffixes, inspect_image, may_be_image
from onepass.data.layout import splits_of
from onepass.data.record import DatasetRecord, Origin
from onepass.data.splits import TEST, TRAIN, UNDRAWN, check_classes

KIND_SUFFIX = re.compile(
    r"\.(zip|tar|tar\.(?:gz|bz2|xz)|tgz|csv|tsv|jsonl|ndjson|parquet|npz)$", re.IGNORECASE
)
BRACES = re.compile(r"\{(?:(\d{1,9})\.\.(\d{1,9})|([^{}]*,[^{}]*))\}")
MAX_FILES = 100_000  # that a pattern may mean
SUFFIX = re.compile(r"\.(?!\d+$)[a-z0-9]{1,10}")  # a number such as .0001 says nothing


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks of a source.

    Attributes:
        source: File, folder or address; None where the source knows itself where to look.
        digest: "md5:…" or "sha256:…" that a download must have; "" for the source's own.
        raw: Folder of the downloads.
        layout: "classes" where every folder at the top is a class, whatever its name.
        further: The images are added to those of another source, which has all that is known of both.
        images: Folder, zip or tar that the files of a table are in; "" for the folder of the table.
        columns: The column of a table by what it is for, such as {"label": "species"}.
        scratch: Folder for temporary copies, which are as large as the images; the system's own where None.
    """

    source: str | None
    digest: str
    raw: Path
    layout: str = "auto"
    further: bool = False
    images: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    scratch: Path | None = None


class Read:
    """A call that is put off: what reads, and what; of a million images there is one each, and a `partial` takes four times the memory."""

    __slots__ = ("reader", "what")

    def __init__(self, reader: Callable[[Any], bytes | np.ndarray], what: Any) -> None:
        self.reader, self.what = reader, what

    def __call__(self) -> bytes | np.ndarray:
        return self.reader(self.what)


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    Attributes:
        name: Its file name, unique in the data set.
        label: Index into the class ids; -1 unknown.
        split: Index into `SPLITS`; `UNDRAWN` where the source does not say.
        read: Returns its encoded bytes, or pixels (H, W) or (H, W, 3) uint8.
        held_label: Of a test image whose class is known, kept apart from `label`; -1 unknown.
        stamp: What tells without reading it that the file is as it was, 16 bytes; none where nothing does.
        origin: Which of several sources it is from, from 0.
    """

    name: str
    label: int
    split: int
    read: Callable[[], bytes | np.ndarray]
    held_label: int = -1
    stamp: bytes = b""
    origin: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """What has to be known of all images before the first is packed.

    Attributes:
        largest: Longest side of any image (px).
        square: All have the same size, and are square.
        grey: All are grey.
        usual: Longest side that all but 5 % of the images keep within (px); 0 where it was not taken
            (by an early version, or where all are alike): the same as `largest`.
    """

    largest: int
    square: bool
    grey: bool
    usual: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Images in a fixed order, and what is known of them.

    Attributes:
        kind: Its name in `SOURCES`.
        where: File, folder or package it was read from.
        class_ids: K identities; label k is `class_ids[k]`.
        class_names: K names for people.
        items: The images. New ones become rows in this order.
        origins: Where they come from, each with what tells it elsewhere.
        record: Title, licence, citation, published results, notes; the rest is filled in later.
        survey: Where every image is known to be alike; None asks for a look at each.
        side: Further arrays or lists with one entry an item.
        strata: (N,) int, finer than the labels, that a split is to be even in; None for the labels.
        split_note: What a reader of a result has to know where a split is drawn; "" for the usual.
        left_out: How many files are no items, by kind, such as {".heic": 20, "in @eaDir": 12}.
        name: What the data set is called where nobody says so; "" for its kind.
        said: What a person is told.
        group_column: Which of the further arrays says what belongs together; "" for none.
    """

    kind: str
    where: str
    class_ids: list[str]
    class_names: list[str]
    items: list[Item]
    origins: list[Origin]
    record: DatasetRecord
    survey: Survey | None = None
    side: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    strata: np.ndarray | None = None
    split_note: str = ""
    name: str = ""
    said: list[str] = field(default_factory=list)
    group_column: str = ""

    def check(self) -> None:
        """Refuse what cannot be learnt, or told apart.

        Raises:
            InvalidInputError: There are fewer than two classes, and not none with test images only; a class has
                no training image; or two images have one name.
        """
        only_test = bool(self.items) and all(item.split == TEST for item in self.items)
        if len(self.class_ids) < 2 and not (only_test and not self.class_ids):
            raise InvalidInputError(
                f"{self.where}: expected at least two classes, found {', '.join(self.class_ids) or 'none'}"
            )
        twice = [
            name for name, count in Counter(item.name for item in self.items).items() if count > 1
        ]
        if twice:
            raise InvalidInputError(
                f"{self.where}: expected each image once, found {twice[0]} twice "
                "(names are compared in Unicode form NFC); rename one"
            )
        to_learn = [item.label for item in self.items if item.split in (TRAIN, UNDRAWN)]
        check_classes(self.where, self.class_ids, to_learn)


def refuse_location(kind: str, request: Request) -> None:
    """Refuse --source and --digest where a source brings its images itself.

    Raises:
        UsageError: One of them was given.
    """
    if request.source or request.digest:
        raise UsageError(f"{kind} comes with its package: leave --source and --digest out")


@contextmanager
def open_location(request: Request, default: Download | None = None) -> Iterator[Tree]:
    """Open the folder, zip or tar that the user named, after fetching it if it is an address.

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
    with open_tree(path, scratch=request.scratch) as tree:
        yield tree


def tree_origin(tree: Tree) -> Origin:
    """Return where the images of a folder or zip come from."""
    return Origin(str(tree.path.expanduser().resolve()), tree.identity["digest"])


def only_images(tree: Tree) -> tuple[Tree, dict[str, int]]:
    """Return a tree with its images only, and how many files are left out by kind.

    A file is an image by its suffix; one without a suffix by its content.

    Raises:
        OnepassError: A file without a suffix cannot be read.
    """
    left_out = Counter(tree.left_out)
    images = []
    for name in tree.files:
        suffix = PurePosixPath(name).suffix.lower()
        has_suffix = SUFFIX.fullmatch(suffix)
        if suffix in image_suffixes() or (not has_suffix and _is_image(tree, name)):
            images.append(name)
        else:
            left_out[suffix if has_suffix else "without a suffix"] += 1
    return replace(tree, files=tuple(images)), dict(left_out.most_common())


def _is_image(tree: Tree, name: str) -> bool:
    try:
        if not may_be_image(tree.read(name, MAGIC_BYTES)):
            return False
        inspect_image(tree.read(name), name)
    except InvalidInputError:
        return False
    except MissingFileError:  # a link that leads nowhere: it is named with the bad images
        return True
    return True


def own_name(path: Path) -> str:
    """Return the name of a folder, whole; of a file or a pattern, without its suffix and what varies."""
    resolved = path.expanduser().resolve()
    if path.is_dir():
        return resolved.name
    plain = re.split(r"[{*?\[]", KIND_SUFFIX.sub("", resolved.name))[0].rstrip("-_.")
    return plain or resolved.parent.name


def matching_files(place: str) -> list[Path]:
    """Return the files that a pattern such as `shard-{000..012}.tar` or `*.csv` means, sorted.

    Raises:
        MissingFileError: There is none, or one of those that are counted is not there.
        InvalidInputError: It counts too far.
    """
    path = Path(place).expanduser()
    if path.exists() or not set(place) & set("{*?["):
        return [path]
    found: set[Path] = set()
    for pattern in _without_braces(str(path)):
        matches = {Path(match) for match in glob.glob(pattern, recursive=True)}  # noqa: PTH207  as the shell's own
        if not matches:
            raise MissingFileError(f"{pattern}: no such file")
        found |= matches
    return sorted(found)


def splits_by_name(files: Sequence[Path]) -> list[str]:
    """Return the split that each file's name means among several, as of train-00000-of-00012; "" for none."""
    words = [re.sub(r"[\d_.-]+of[\d_.-]+", "", KIND_SUFFIX.sub("", file.name)) for file in files]
    found = splits_of(words) if len(files) > 1 else {}
    split_of_words = {name: split for split, names in found.items() for name in names}
    return [split_of_words.get(name, "") for name in words]


def _without_braces(pattern: str) -> list[str]:
    """Return what a shell makes of `{a,b}` and `{000..012}`."""
    waiting, done = [pattern], list[str]()
    while waiting:
        text = waiting.pop(0)
        if len(waiting) + len(done) > MAX_FILES:
            raise InvalidInputError(f"{pattern}: expected at most {MAX_FILES:,} files")
        braces = BRACES.search(text)
        if not braces:
            done.append(text)
            continue
        low, high, words = braces.groups()
        if words is None:
            last = min(int(high), int(low) + MAX_FILES)
            width = len(low) if low.startswith("0") else 0
            parts = [str(number).zfill(width) for number in range(int(low), last + 1)]
        else:
            parts = words.split(",")
        waiting += [text[: braces.start()] + part + text[braces.end() :] for part in parts]
    return done


def _download(url: str, request: Request) -> Download:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name.endswith(".zip"):
        raise InvalidInputError(f"{url}: expected the address of a .zip file")
    own = f"{name.removesuffix('.zip')}-{digest_bytes(url.encode())[:8]}.zip"  # one name, many addresses
    return Download(url, request.raw / own, digest=request.digest)
