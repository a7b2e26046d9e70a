"""Independent pieces of work at once: a thread each, and BLAS not threaded inside them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many threads BLAS may use now: `OMP_NUM_THREADS` and outer limits count."""
    libraries = (library for library in threadpool_info() if library["user_api"] == "blas")
    return max((library["num_threads"] for library in libraries), default=1)


def spread(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return `work` of each item, in order.

    What waits for memory or converts numbers runs on one core only where BLAS alone is threaded.
    """
    items, there = list(items), cores()
    workers = min(len(items), there)
    if workers < 2:
        return [work(item) for item in items]
    with threadpool_limits(there // workers), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))
