"""What a worker does, in its own process: show itself, look at images, and decode them into shards."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from onepass.cache.artifacts import from_json, to_json
from onepass.cache.content import content_of
from onepass.cache.rows import RowFilePlan
from onepass.cache.shards import write_shard_once
from onepass.data.cluster.messages import Decoding, Look, Place, identity
from onepass.data.images import share_memory
from onepass.data.look import Seen, read_images
from onepass.data.pack import decoded, quiet_bombs
from onepass.data.sources import open_source
from onepass.data.sources.base import Source


def _show(message: Any) -> Any:
    return to_json(identity(_source(from_json(Place, message))))


def _look(message: Any) -> list[Seen]:
    look = from_json(Look, message)
    items = [_source(look.place).items[item] for item in look.items]
    return list(read_images(items, look.alike, look.threads))


def _decode(message: Any) -> dict[str, str]:
    """Commit the rows of the images that can be used; return what is wrong with the others, by name."""
    task = from_json(Decoding, message)
    items = [_source(task.place).items[item] for item in task.items]
    plan = task.folder / "plan.json"
    if task.processes > 1:
        share_memory(task.processes, plan)
    with quiet_bombs():
        ((pixels, source, bad),) = decoded([items], task.geometry, task.threads)
    good = np.array([item.name not in bad for item in items])
    if good.any():
        arrays = {
            "pixels": pixels[good],
            "content": content_of(pixels[good]),
            "source": source[good],
        }
        write_shard_once(task.folder, RowFilePlan.read(plan).kind, arrays)
    return bad


TASKS: dict[str, Callable[[Any], Any]] = {"look": _show, "look at": _look, "decode": _decode}

_open: list[tuple[Place, Source, ExitStack]] = []  # the last one


def _source(place: Place) -> Source:
    """Return the images, which are opened once in this process."""
    if not _open or _open[0][0] != place:
        for _, _, stack in _open:
            stack.close()
        _open.clear()
        stack = ExitStack()
        _open.append((place, stack.enter_context(open_source(place.kind, place.requests)), stack))
    return _open[0][1]
