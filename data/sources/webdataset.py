"""WebDataset shards: tars in which 0042.jpg, 0042.cls and 0042.json are one sample."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.data.archive import TARS, Tree, open_tree
from onepass.data.images import image_suffixes
from onepass.data.layout import one_form
from onepass.data.sources.base import (
    Request,
    Source,
    matching_files,
    own_name,
    splits_by_name,
    tree_origin,
)
from onepass.data.sources.tabular import Rows, choose_columns, columns_text, kept_cells, source_of
from onepass.data.tables import MAX_COLUMNS, MAX_LINE, json_cells

TEXTS = ("cls", "txt", "text", "caption", "id")  # members that are one cell each


def recognises(place: str) -> bool:
    """Tell whether a place is of this kind: tars, the first of which has a label or a text beside an image."""
    files = _shards(place)
    if not files:
        return False
    from onepass.data.tars import first_names

    parts = [_parts(name) for name in first_names(files[0])]
    images = {key for key, ending in parts if "." + ending in image_suffixes()}
    return any(key in images and ending in (*TEXTS, "json") for key, ending in parts)


@contextmanager
def open_sources(requests: Sequence[Request]) -> Iterator[Source]:
    """Yield the samples of all shards that have an image, by name.

    Their labels are in `.cls`, or in a key of `.json`; its other keys become columns. Where there are several
    shards, their names say of which split they are.

    Raises:
        UsageError: No shard is named, or no label is found.
        InvalidInputError: A sample has several images or no label, or its JSON is none.
        OnepassError: A shard cannot be read.
    """
    request = requests[0]
    places = [each.source for each in requests if each.source]
    if not places or request.digest:
        raise UsageError("webdataset: expected the path of a tar on this machine, and no --digest")
    files = [file for place in places for file in _shards(place)]
    with ExitStack() as stack:
        trees = [stack.enter_context(open_tree(f, scratch=request.scratch)) for f in files]
        shards = [_Shard(tree, several=len(files) > 1) for tree in trees]
        names = list(dict.fromkeys(name for shard in shards for name in shard.cells))
        chosen = choose_columns(str(files[0]), names, {"file": "", **request.columns})
        kept = [name for name in names if name not in (chosen["label"], chosen.get("split"))]
        yield source_of(
            "webdataset",
            [
                shard.rows(chosen, kept, split)
                for shard, split in zip(shards, splits_by_name(files), strict=True)
            ],
            name=own_name(Path(places[0])),
            origins=[tree_origin(tree) for tree in trees],
            said=[columns_text(chosen, [name for name in kept if name not in chosen.values()])],
            group_column=chosen.get("group", ""),
        )


def _shards(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.name.endswith(TARS))
    return matching_files(place) if place.lower().endswith(TARS) else []


def _parts(name: str) -> tuple[str, str]:
    """Return the key of a sample and the ending that says what the member is: a/0042.seg.png is a/0042, seg.png."""
    folder, slash, base = name.rpartition("/")
    key, _, ending = base.partition(".")
    return folder + slash + key, ending.lower()


class _Shard:
    """The samples of a tar.

    Args:
        tree: The tar.
        several: There are other shards, whose samples may have the same keys.
    """

    def __init__(self, tree: Tree, *, several: bool) -> None:
        self.tree = tree
        self.images: list[str] = []
        members: dict[str, dict[str, str]] = {}
        for name in tree.files:
            key, ending = _parts(name)
            members.setdefault(key, {})[ending] = name
        self.cells: dict[str, list[Any]] = {}
        for key, endings in members.items():
            images = [ending for ending in endings if "." + ending in image_suffixes()]
            if len(images) > 1:
                raise InvalidInputError(
                    f"{tree.path}: {key}: expected one image, found {key}.{images[0]} and {key}.{images[1]}"
                )
            if images:
                self._add(endings[images[0]], self._texts(endings))
        prefix = f"{own_name(tree.path)}/" if several else ""
        self.names = [prefix + one_form(name) for name in self.images]

    def _add(self, image: str, cells: Mapping[str, Any]) -> None:
        for name, cell in cells.items():
            if name not in self.cells and len(self.cells) >= MAX_COLUMNS:
                raise InvalidInputError(f"{self.tree.path}: more than {MAX_COLUMNS:,} keys of JSON")
            column = self.cells.setdefault(name, [None] * len(self.images))
            column.append(cell)
        self.images.append(image)
        for column in self.cells.values():
            if len(column) < len(self.images):
                column.append(None)

    def _texts(self, endings: Mapping[str, str]) -> dict[str, Any]:
        """Return what the members beside an image say."""
        cells: dict[str, Any] = {}
        for ending in (*TEXTS, "json"):
            if ending not in endings:
                continue
            name = endings[ending]
            try:
                content = self.tree.read(name, MAX_LINE + 1)
                if ending == "json":
                    found = json_cells(content)
                    cells |= {key: cell for key, cell in found.items() if key not in cells}
                elif len(content) > MAX_LINE:
                    raise ValueError(f"more than {MAX_LINE:,} bytes")
                else:
                    cells[ending] = content.decode().strip()
            except ValueError as error:
                raise InvalidInputError(f"{self.tree.path}: {name}: {error}") from error
        return cells

    def rows(self, chosen: Mapping[str, str], kept: Sequence[str], split: str) -> Rows:
        """Return the samples, with the cells of the columns that were chosen."""
        nothing = [None] * len(self.images)
        cells = {
            role: self.cells.get(name, nothing)
            for role, name in chosen.items()
            if role in ("label", "split")
        }
        if split and "split" not in cells:
            cells["split"] = [split] * len(self.images)
        return Rows(
            where=str(self.tree.path),
            names=self.names,
            read=lambda row: self.tree.read(self.images[row]),
            place=lambda row: self.names[row],
            cells=cells,
            kept=kept_cells(chosen, kept, lambda name: self.cells.get(name, nothing)),
            stamp=lambda row: self.tree.stamp(self.images[row]),
        )
