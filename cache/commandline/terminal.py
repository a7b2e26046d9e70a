"""Standard output and error as a person sees them: what is printed, log lines, and a line of progress.

Names of files and classes come from strangers, and a terminal obeys what it is sent: all that a command
prints goes through `printable`.
"""

import logging
import os
import re
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from onepass.cache.progress import ProgressUpdate

LIVE_PERIOD, LOG_PERIOD = 0.2, 10.0  # seconds between lines: on a terminal, in a log
BAR = 20  # characters
# Control characters, which a terminal obeys; marks that turn the direction of text, which hide what
# follows; further line ends; halves of characters, which no terminal can show.
OBEYED = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text with what a terminal would obey written as an escape, such as `\\x1b`; lines stay lines."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(name: str) -> str:
    """Return a name, or other text from elsewhere, so that it can neither be obeyed nor look like two lines."""
    return printable(name).replace("\n", "\\n")


def reserve_descriptors() -> None:
    """Put the null device in the place of standard streams that are closed.

    Else the next file that is opened takes their number, and what a library prints goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            mute(name)


def _bar(update: ProgressUpdate, text: str) -> str:
    """Return a line of progress with a bar before it, no wider than the terminal; it has no colours."""
    width = BAR * min(update.done, update.total) // max(update.total, 1)
    columns = shutil.get_terminal_size((10 * BAR, 1)).columns
    return f"[{'#' * width:.<{BAR}}] {text}"[: columns - 1]


def mute(name: str) -> None:
    """Send what is still printed to `sys.<name>` nowhere; the interpreter flushes it at its end, too."""
    setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


class Terminal(logging.Handler):
    """Shows what the library logs and how far it is; standard output is left to results.

    Work goes on where standard error is closed, or its disk is full. Use as a context manager.

    Args:
        quiet: Say only what went wrong.
        verbose: Say what is of use to who mends the program, too, and when and where each line was said.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        super().__init__(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
        self.quiet, self.verbose = quiet, verbose
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.period = LIVE_PERIOD if self.live else LOG_PERIOD
        self._last = time.monotonic()
        self._shown = ""  # the line of progress that stands there now, or was logged last
        self._logger = logging.getLogger("onepass")
        self._level = self._logger.level

    @classmethod
    def in_use(cls) -> "Terminal | None":
        """Return that of the command that runs, if one runs."""
        handlers = logging.getLogger("onepass").handlers
        return next((one for one in handlers if isinstance(one, cls)), None)

    def __enter__(self) -> "Terminal":
        self._logger.addHandler(self)
        self._logger.setLevel(self.level)
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record as a line."""
        if self.verbose:
            when = time.strftime("%H:%M:%S", time.localtime(record.created))
            self.line(f"{when} {record.name}: {record.getMessage()}")
        else:
            self.line(record.getMessage())

    def line(self, text: str) -> None:
        """Print a line above the line of progress."""
        erase = "\r\x1b[2K" if self.live and self._shown else ""
        self._print(f"{erase}{printable(text)}\n")

    def progress(self, update: ProgressUpdate) -> None:
        """Show an update if the last one is old enough, or if it is the last of its kind."""
        now = time.monotonic()
        if self.quiet:
            return
        if not update.finished and now - self._last < self.period:
            return
        self._last = now
        text = one_line(str(update))
        if self.live:
            text = _bar(update, text)
            end = "\n" if update.finished else ""
            self._print(f"\r\x1b[2K{text}{end}")
            self._shown = "" if update.finished else text
        elif text != self._shown:  # the last one may have come by itself just now
            self._shown = text
            self._print(text + "\n")

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads it, no room, closed
            print(text, end="", file=sys.stderr, flush=True)
