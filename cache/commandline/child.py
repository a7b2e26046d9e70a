"""A command that goes on in a child, for libraries that end their process without a word of ours."""

import os
import signal
import sys
from contextlib import suppress

from onepass.cache.commandline.signals import ENDING
from onepass.cache.orphans import end_with_parent


def go_on_in_child() -> str:
    """Go on in a child of this process, in which only Python writes to the terminal; its parent waits for it.

    Returns:
        In the child "". In the parent the name of the signal that the child was ended by, such as "SIGABRT"; where
        it ended by itself, the parent ends with its exit code.

    Raises:
        KeyboardInterrupt: In the parent; the child was ended by Ctrl-C or SIGTERM.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        end_with_parent(parent)
        _leave_terminal_to_python()
        return ""
    for ending in ENDING:
        signal.signal(ending, lambda number, frame: _pass_on(child, number))
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    if os.WTERMSIG(status) in ENDING:
        raise KeyboardInterrupt
    return signal.Signals(os.WTERMSIG(status)).name


def _leave_terminal_to_python() -> None:
    """Send what libraries write to the descriptors of standard output and error nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        own = os.fdopen(
            os.dup(stream.fileno()), "w", encoding=stream.encoding, errors=stream.errors
        )
        os.dup2(nowhere, stream.fileno())
        setattr(sys, name, own)


def _pass_on(child: int, number: int) -> None:
    if number == signal.SIGTERM:  # a terminal sends SIGINT to both
        with suppress(ProcessLookupError):
            os.kill(child, number)
