"""Standard error as a person sees it: log lines, and one line of progress that is rewritten in place."""

import logging
import sys
import time
from types import TracebackType

from onepass.cache.progress import ProgressUpdate

LIVE_PERIOD, LOG_PERIOD = 0.2, 10.0  # seconds between lines: on a terminal, in a log


class Terminal(logging.Handler):
    """Shows what the library logs and how far it is; standard output is left to results.

    Use as a context manager.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.live = sys.stderr.isatty()
        self.period = LIVE_PERIOD if self.live else LOG_PERIOD
        self._last = time.monotonic()
        self._shown = ""  # the line of progress that stands there now, or was logged last
        self._logger = logging.getLogger("onepass")
        self._level = self._logger.level

    def __enter__(self) -> "Terminal":
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record as a line."""
        self.line(record.getMessage())

    def line(self, text: str) -> None:
        """Print a line above the line of progress."""
        if self.live and self._shown:
            print("\r\x1b[2K", end="", file=sys.stderr)
        print(text, file=sys.stderr, flush=True)

    def progress(self, update: ProgressUpdate) -> None:
        """Show an update if the last one is old enough, or if it is the last of its kind."""
        now = time.monotonic()
        if not update.finished and now - self._last < self.period:
            return
        self._last = now
        text = str(update)
        if self.live:
            end = "\n" if update.finished else ""
            print(f"\r\x1b[2K{text}", end=end, file=sys.stderr, flush=True)
            self._shown = "" if update.finished else text
        elif text != self._shown:  # the last one may have come by itself just now
            self._shown = text
            print(text, file=sys.stderr, flush=True)
