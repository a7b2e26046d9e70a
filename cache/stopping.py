"""Ending cleanly: Ctrl-C, SIGTERM and a time limit ask, the work stops at its next safe point."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM interrupt the block at once, as Ctrl-C does: for work whose files are whole at any moment."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """Turns the first SIGINT or SIGTERM, or the end of a time limit, into a question the work asks.

    Use as a context manager in the main thread. A second signal interrupts at once.

    Args:
        time_limit: Seconds that the work may take from now; None for no limit.
    """

    def __init__(self, time_limit: float | None = None) -> None:
        self.deadline = None if time_limit is None else time.monotonic() + time_limit
        self.signal = ""
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        note = f"{self.signal}: ending at the next safe point; once more to interrupt at once\n"
        with suppress(OSError):
            os.write(2, note.encode())  # print() may be in the middle of another line

    @property
    def reason(self) -> str:
        """Why the work should stop now; "" while it should go on."""
        if self.signal:
            return self.signal
        return (
            "time limit" if self.deadline is not None and time.monotonic() >= self.deadline else ""
        )
