"""What is sent to a cluster by value: a scheduler, or a machine where Onepass is not installed, can load it.

It takes and gives plain values, so that nobody but a worker needs to know our classes.
"""

from typing import Any


def call(task: str, message: Any) -> dict[str, Any]:
    """Do a task of `onepass.extract.cluster.tasks` in this process; return what it returns, or what was wrong."""
    try:
        from onepass.extract.cluster.tasks import perform
    except ImportError as error:
        import socket

        how = "run there: pip install 'onepass[cluster]'"
        return {
            "by": socket.gethostname(),
            "kind": "ImportError",
            "error": f"{error.name} cannot be imported; {how}",
        }
    return perform(task, message)


class Caller:
    """An actor of Ray that does the same."""

    def call(self, task: str, message: Any) -> dict[str, Any]:
        """Return what `call` returns."""
        return call(task, message)
