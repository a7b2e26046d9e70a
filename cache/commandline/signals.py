"""Ctrl-C and SIGTERM, for commands only: a library leaves the signals of its process alone."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from onepass.cache.stopping import StopRequest

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Let SIGTERM interrupt the block at once, as Ctrl-C does, also where Ctrl-C was ignored before.

    A shell starts its background jobs with SIGINT ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _answered_by(interrupt):
        yield


@contextmanager
def stop_on_signals(stop: StopRequest) -> Iterator[StopRequest]:
    """Let the first Ctrl-C or SIGTERM ask for a stop; a second one interrupts at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        stop.ask(name)
        note = f"{name}: stopping at the next safe point; once more to interrupt at once\n"
        with suppress(OSError):
            os.write(2, note.encode())  # print() may be in the middle of another line

    with _answered_by(ask):
        yield stop


@contextmanager
def _answered_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextmanager
def keep_signals() -> Iterator[None]:
    """Keep this process's own answers to signals where the block calls a library that sets others."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def end_on_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end this process at once, where nothing is lost and a library would wait on."""
    with keep_signals():
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        yield


@contextmanager
def unheard_by_children() -> Iterator[None]:
    """Let processes that the block starts not hear Ctrl-C, which a terminal sends to all of them: this one ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
