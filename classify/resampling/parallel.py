"""Fits side by side, each on one core, where they are so small that one cannot use more."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from onepass.cache.cluster.processes import in_processes
from onepass.classify.heads.threads import cores
from onepass.classify.protocol.evaluate import is_small

Item = TypeVar("Item")
Result = TypeVar("Result")
Views = tuple[np.ndarray, ...]

MEMORY = 1 << 31  # bytes of vectors, as float32, that fits side by side may hold
WORTH = 10_000_000  # numbers to be read, from which processes pay: they take seconds to start


def side_by_side(
    work: Callable[[Views, Item], Result],
    items: Sequence[Item],
    views: Views,
    rows: int,
    classes: int,
) -> Iterator[Result]:
    """Yield what `work` makes of each item, in order; the same bits however many are done at a time.

    Threads would wait for one another: the steps of a small fit are shorter than what Python does between them.

    Args:
        work: Done to the vectors and an item; what it is made of is sent to other processes.
        items: They.
        views: Vectors (N, D) in each view.
        rows, classes: Of a fit, at most.
    """
    if not is_small(views, rows, classes):
        yield from (work(views, item) for item in items)
        return
    numbers = rows * len(views) * views[0].shape[1]
    workers = min(cores(), MEMORY // (4 * numbers), len(items))
    if workers < 2 or numbers * len(items) < WORTH:
        yield from (_on_one_core(work, views, item) for item in items)
        return
    from joblib import delayed

    # a file may be replaced while others read it: they get the rows that were compared with their digests
    views = tuple(np.array(view) for view in views)
    calls = (delayed(_on_one_core)(work, views, item) for item in items)
    yield from in_processes(workers, calls, return_as="generator")


def _on_one_core(work: Callable[[Views, Item], Result], views: Views, item: Item) -> Result:
    with threadpool_limits(1):
        return work(views, item)
