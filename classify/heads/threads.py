"""Independent pieces of work in parallel: a thread each, and BLAS not threaded inside them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many threads BLAS may use now: `OMP_NUM_THREADS` and outer limits count."""
    libraries = (library for library in threadpool_info() if library["user_api"] == "blas")
    return max((library["num_threads"] for library in libraries), default=1)


def parallel_map(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return `work` of each item, in order.

    Work that is bound by memory or by conversions would use one core only if BLAS alone were threaded.
    """
    items, available = list(items), cores()
    workers = min(len(items), available)
    if workers < 2:
        return [work(item) for item in items]
    with threadpool_limits(available // workers), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))


def one_lapack_thread() -> AbstractContextManager[object]:
    """Limit SciPy's LAPACK to the calling thread, where a matrix is small.

    SciPy's wheels bring a BLAS of their own; its threads and NumPy's, both waiting for work, would
    spin on each other's cores.
    """
    return _lapack().limit(limits=1)


@cache
def _lapack() -> ThreadpoolController:
    loaded = ThreadpoolController().select(user_api="blas")
    own = [library["filepath"] for library in loaded.info() if "scipy" in library["filepath"]]
    return loaded.select(filepath=own) if own else loaded
