"""What a worker is, and whether it computes what the others compute."""

import os
import pkgutil
import socket
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

from onepass.cache.artifacts import record
from onepass.cache.made_by import versions
from onepass.cache.provenance import digest_bytes

NUMERIC = ("TF_", "XLA_", "ONEDNN_", "DNNL_", "JAX_", "KERAS_", "NVIDIA_TF32")  # may change bits
SILENT = ("TF_CPP_MIN_LOG_LEVEL", "KERAS_HOME")


@record
class Identity:
    """What the numbers of a process may depend on.

    Attributes:
        host: Its machine.
        pid: Its number there.
        same: What must be equal on every machine, by name: code, versions, what is read.
        device: What it computes on, such as "tensorflow, cpu: AMD EPYC 9R14"; "" where it does not compute.
        settings: Environment variables that may change bits.
    """

    host: str
    pid: int
    same: dict[str, str]
    device: str
    settings: dict[str, str]

    @classmethod
    def here(cls, rooms: Sequence[str], same: Mapping[str, str], device: str = "") -> "Identity":
        """Return that of this process.

        Args:
            rooms: Whose code the work runs, such as "onepass.data".
            same: What must be equal besides code and versions, by name.
            device: As above.
        """
        settings = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(NUMERIC) and name not in SILENT
        }
        code = {"the code of onepass": code_digest(*rooms)[:12]}
        return cls(
            socket.gethostname(), os.getpid(), {**code, **versions(), **same}, device, settings
        )

    def __str__(self) -> str:
        return f"{self.host} (process {self.pid})"

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on a CPU."""
        return ", cpu" in self.device

    def unlike(self, other: "Identity") -> str:
        """Say what differs from another that must not: `numpy is 2.4.0 and not 2.3.1`; "" where nothing does."""
        return unequal(other.same, self.same)

    def explained(self, other: "Identity") -> str:
        """Say what may be the cause of other bits."""
        ours, theirs = ({"its device": one.device, **one.settings} for one in (self, other))
        return unequal(theirs, ours) or "its device and settings are theirs"


def unequal(expected: dict[str, str], received: dict[str, str]) -> str:
    """Say in words in which values two tables differ."""
    names = [n for n in {**expected, **received} if expected.get(n) != received.get(n)]
    return ", ".join(
        f"{n} is {received.get(n, 'not there')} and not {expected.get(n, 'unset')}" for n in names
    )


@cache
def code_digest(*rooms: str) -> str:
    """Return the SHA-256 of the modules of some rooms."""
    parts: list[bytes] = []
    for room in rooms:
        path = import_module(room).__path__
        for module in sorted(pkgutil.walk_packages(path, f"{room}."), key=lambda info: info.name):
            spec = module.module_finder.find_spec(module.name, None)
            assert spec and spec.origin
            parts += [module.name.encode(), Path(spec.origin).read_bytes()]
    return digest_bytes(*parts)
