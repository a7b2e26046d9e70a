"""Libraries that write to standard error while they load."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def suppress_stderr() -> Iterator[None]:
    """Hold back what is written to standard error in the block; show it if the block fails.

    TensorFlow writes notes there before its own log level is heard.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        sys.stderr.flush()
        keep = os.dup(2)
    except (
        AttributeError,
        OSError,
        ValueError,
    ):  # there is none, it is closed, or its disk is full
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            with suppress(OSError):
                os.write(keep, held.read())
            raise
        finally:
            os.dup2(keep, 2)
            os.close(keep)
