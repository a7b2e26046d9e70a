"""Stopping cleanly: on request, or after a time limit, work ends at its next safe point."""

import time


class StoppedError(Exception):
    """Work was asked to stop before there was anything to give back; the message is the reason."""


class StopRequest:
    """What long work asks between its steps: should it stop?

    Any thread may ask for the stop; the work reads `reason` at each safe point.
    """

    def __init__(self) -> None:
        self.asked = ""
        self._deadline: float | None = None

    def ask(self, reason: str) -> None:
        """Ask the work to stop at its next safe point.

        Args:
            reason: Why, as it is reported: "SIGTERM", or a caller's own word.
        """
        self.asked = reason

    def limit(self, seconds: float | None) -> "StopRequest":
        """Ask for a stop after so many seconds from now (None: never); return the request itself."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        return self

    @property
    def reason(self) -> str:
        """Why the work should stop now; "" while it should continue."""
        if self.asked:
            return self.asked
        over = self._deadline is not None and time.monotonic() >= self._deadline
        return "time limit" if over else ""
