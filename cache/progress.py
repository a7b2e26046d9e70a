"""How far long work is, how fast, how long still and what bounds it; whoever calls decides how it is shown."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType


def human_seconds(seconds: float) -> str:
    """Return a duration as `45 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def human_bytes(count: float) -> str:
    """Return a size as `12 B`, `3.4 MB` or `1.2 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if count < 999.95:  # what would be shown as 1000.0 takes the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def counted(number: int, what: str) -> str:
    """Return how many there are of what, a noun in the singular, as `1 image` or `2,100 images`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """How far a piece of work is; `str()` of it is one line for a person.

    Attributes:
        label: What is being done.
        unit: What is counted, in the plural.
        done: Units that are done, those of earlier runs included.
        total: Units there are.
        rate: Units per second of this run.
        seconds: Since it began.
        note: What else the work says of itself, such as what bounds it.
        finished: Whether this is the last update.
    """

    label: str
    unit: str
    done: int
    total: int
    rate: float
    seconds: float
    note: str
    finished: bool

    def __str__(self) -> str:
        parts = [
            f"{self.label}: {self.done:,} / {self.total:,} {self.unit}",
            f"{self.rate:,.{1 if 0 < self.rate < 9.95 else 0}f} {self.unit}/s",
        ]
        if self.done < self.total and self.rate > 0:
            parts.append(human_seconds((self.total - self.done) / self.rate) + " left")
        elif self.done >= self.total:
            parts.append(human_seconds(self.seconds))
        return " · ".join(parts + ([self.note] if self.note else []))


ProgressCallback = Callable[[ProgressUpdate], None]
_callback: ContextVar[ProgressCallback | None] = ContextVar("onepass_progress", default=None)


@contextmanager
def progress_to(callback: ProgressCallback | None) -> Iterator[None]:
    """Send the progress of all work in the block, in this thread, to a callback; None keeps the one before."""
    if callback is None:
        yield
        return
    token = _callback.set(callback)
    try:
        yield
    finally:
        _callback.reset(token)


def is_told() -> bool:
    """Tell whether the progress of work in this thread goes to a callback."""
    return _callback.get() is not None


class Progress:
    """Counts units of work and tells the callback of `progress_to`, if there is one.

    Args:
        total: How many units there are.
        unit: What is counted, in the plural.
        label: What is being done.
        done: Units that were done before this run; they do not count for the rate.
        note: Called for each update; what it returns becomes its note.
        after: Seconds before the first update; work that ends sooner says nothing.
    """

    def __init__(
        self,
        total: int,
        unit: str = "rows",
        label: str = "",
        *,
        done: int = 0,
        note: Callable[[], str] | None = None,
        after: float = 0.0,
    ) -> None:
        self.after = after
        self.total, self.unit, self.label, self.note = total, unit, label, note
        self.before = self.done = done
        self.start = time.monotonic()
        self._callback = _callback.get()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(finished=True)

    def advance(self, count: int) -> None:
        """Count `count` more units as done."""
        self.done += count
        self._tell()

    def skip(self, count: int) -> None:
        """Count `count` more units as done whose time says nothing of the others'; the rate begins after them."""
        self.done += count
        self.before, self.start = self.done, time.monotonic()

    @property
    def rate(self) -> float:
        """Units per second of this run."""
        return (self.done - self.before) / max(time.monotonic() - self.start, 1e-9)

    def update(self, finished: bool = False) -> ProgressUpdate:
        """Return how far it is now."""
        seconds = time.monotonic() - self.start
        note = self.note() if self.note else ""
        return ProgressUpdate(
            self.label, self.unit, self.done, self.total, self.rate, seconds, note, finished
        )

    def _tell(self, finished: bool = False) -> None:
        if self._callback is None or time.monotonic() - self.start < self.after:
            return
        self._callback(self.update(finished))
