"""Where rows lie: one folder that takes what is new, and others that are only read."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of rows, with others behind it.

    A data set or a feature file is looked for in each, in order, and rows are copied from all of them.
    Nothing is written to, locked in or deleted from those that are only read: they may lie on a read-only
    file system.

    Attributes:
        path: Takes everything new.
        read_from: Stores that are only read.
    """

    path: Path
    read_from: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return str(self.path)


AnyStore = Path | Store  # a path is a store with none behind it


def root(store: AnyStore) -> Path:
    """Return the folder that takes what is new."""
    return store.path if isinstance(store, Store) else store


def roots(store: AnyStore) -> tuple[Path, ...]:
    """Return every folder in which rows are looked for, that which takes what is new first."""
    return (store.path, *store.read_from) if isinstance(store, Store) else (store,)


def find_file(store: AnyStore, *parts: str) -> Path | None:
    """Return the first of the stores' files of that name, None where there is none.

    Args:
        store: Where to look.
        *parts: Of its path below the store, such as "birds", "manifest.h5".
    """
    return next(
        (path for path in (top.joinpath(*parts) for top in roots(store)) if path.exists()), None
    )
