"""What is sent to a cluster by value: a scheduler, or a machine where Onepass is not installed, can load it.

It takes and gives plain values, so that nobody but a worker needs to know our classes.
"""

from typing import Any


def call(task: str, message: Any) -> dict[str, Any]:
    """Do a task in this process; return what it returns, or what was wrong.

    Args:
        task: Module and name of it, such as "onepass.extract.cluster.tasks:compute": in the module's table TASKS.
        message: What it is given.
    """
    try:
        from importlib import import_module

        from onepass.cache.cluster.perform import perform

        module, _, name = task.partition(":")
        work = import_module(module).TASKS[name]
    except ImportError as error:
        import socket

        how = "run there: pip install 'onepass[cluster]'"
        return {
            "by": socket.gethostname(),
            "kind": "ImportError",
            "error": f"{error.name} cannot be imported; {how}",
        }
    return perform(work, message)


class Caller:
    """An actor of Ray that does the same."""

    def call(self, task: str, message: Any) -> dict[str, Any]:
        """Return what `call` returns."""
        return call(task, message)
