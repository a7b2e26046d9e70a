"""What a worker does with a task, in its own process: one at a time, and an error is an answer."""

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from onepass.cache.errors import OnepassError

_turn = threading.Lock()  # a worker with several threads does one thing at a time


def perform(work: Callable[[Any], Any], message: Any) -> dict[str, Any]:
    """Do a task; return {"by": worker, "result": …}, or {"by": …, "kind": class, "error": message, …}."""
    answer: dict[str, Any] = {"by": f"{socket.gethostname()} (process {os.getpid()})"}
    try:
        with _turn:
            answer["result"] = work(message)
    except Exception as error:  # of any kind: the driver says it, with the worker and the shard
        answer["kind"], answer["error"] = type(error).__name__, first_line(error)
        if isinstance(error, OnepassError) and error.remedy:
            answer["remedy"] = asdict(error.remedy)
    return answer


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().partition("\n")[0]
