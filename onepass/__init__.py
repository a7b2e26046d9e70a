"""Onepass: transfer learning for image classification on a budget.

An image is decoded once and a frozen backbone sees it once; everything else is done on rows.

The names in `__all__` are the library; the command `onepass` is made of the same functions. They log to
`logging.getLogger("onepass")`, leave signals and standard output alone, and work in any thread. Each is
imported when it is first used, so `import onepass` takes no time.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onepass.api import (
        extract_features,
        finetune_network,
        load_predictor,
        open_dataset,
        open_features,
        prepare_dataset,
        run_probes,
        write_predictions,
        write_report,
    )
    from onepass.cache.progress import ProgressUpdate
    from onepass.cache.stopping import StopRequest

# In a checkout that is not installed the rooms lie beside this folder, not inside it.
if not (Path(__file__).parent / "cache").exists():
    __path__.append(str(Path(__file__).resolve().parent.parent))

__all__ = [
    "ProgressUpdate",
    "StopRequest",
    "extract_features",
    "finetune_network",
    "load_predictor",
    "open_dataset",
    "open_features",
    "prepare_dataset",
    "run_probes",
    "write_predictions",
    "write_report",
]
_ELSEWHERE = {
    "ProgressUpdate": "onepass.cache.progress",
    "StopRequest": "onepass.cache.stopping",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'onepass' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "onepass.api")), name)


def __dir__() -> list[str]:
    return __all__
