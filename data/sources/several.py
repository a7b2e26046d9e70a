"""Several sources become one data set: classes by name, images in the order of their sources."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onepass.data.sources.base import Item, Source, own_name


def join(sources: Sequence[Source]) -> Source:
    """Return the images of all sources as one source.

    Classes are one where their ids are. An image keeps its name where no source before has given it to
    another; else the name of its source goes before it, as in `more/cat/1.png`. What else is known is that
    of the first source.

    Args:
        sources: At least one.
    """
    first = sources[0]
    class_ids, class_names = _classes(sources)
    columns = set.intersection(*(set(source.side) for source in sources))
    notes = dict.fromkeys(note for source in sources for note in source.record.notes)
    return replace(
        first,
        where=", ".join(source.where for source in sources),
        class_ids=class_ids,
        class_names=class_names,
        items=list(_items(sources, class_ids)),
        origins=[origin for source in sources for origin in source.origins],
        record=replace(first.record, notes=list(notes)),
        survey=first.survey if all(s.survey == first.survey for s in sources) else None,
        side={name: _column(sources, name) for name in first.side if name in columns},
        left_out=dict(sum((Counter(s.left_out) for s in sources), Counter()).most_common()),
        strata=None,
        said=[line for source in sources for line in source.said],
        group_column=first.group_column if first.group_column in columns else "",
    )


def _classes(sources: Sequence[Source]) -> tuple[list[str], list[str]]:
    """Return ids and names of the classes of all sources: sorted where each source's are, else as they come."""
    ids = [class_id for source in sources for class_id in source.class_ids]
    in_order = all(source.class_ids == sorted(source.class_ids) for source in sources)
    class_ids = sorted(set(ids)) if in_order else list(dict.fromkeys(ids))
    shown: dict[str, str] = {}
    for source in sources:
        for class_id, name in zip(source.class_ids, source.class_names, strict=True):
            if name != class_id:
                shown.setdefault(class_id, name)
    return class_ids, [shown.get(class_id, class_id) for class_id in class_ids]


def _items(sources: Sequence[Source], class_ids: list[str]) -> Iterator[Item]:
    numbers = {class_id: number for number, class_id in enumerate(class_ids)}
    taken: set[str] = set()
    prefixes: set[str] = set()
    for origin, source in enumerate(sources):
        labels = [numbers[class_id] for class_id in source.class_ids] + [-1]
        prefix = _free(own_name(Path(source.where)), prefixes)
        prefixes.add(prefix)
        own = {item.name for item in source.items}
        for item in source.items:
            clash = item.name in taken
            name = _free(f"{prefix}/{item.name}", taken, own) if clash else item.name
            yield replace(
                item,
                name=name,
                label=labels[item.label],
                held_label=labels[item.held_label],
                origin=origin,
            )
            own.add(name)
        taken |= own


def _free(name: str, *taken: set[str]) -> str:
    """Return a name that none of the sets has yet: `images`, `images-2`, …"""
    number, free = 1, name
    while any(free in names for names in taken):
        number += 1
        free = f"{name}-{number}"
    return free


def _column(sources: Sequence[Source], name: str) -> np.ndarray | list:
    parts = [source.side[name] for source in sources]
    if isinstance(parts[0], list):
        return [value for part in parts for value in part]
    return np.concatenate(parts)
