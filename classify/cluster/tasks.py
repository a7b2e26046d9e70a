"""What a worker does, in its own process: show itself, and run probes, folds and sweeps."""

from collections.abc import Callable
from typing import Any

from onepass.cache.artifacts import from_json, to_json
from onepass.cache.memory import memory_budget
from onepass.classify.cluster.work import Work, identity
from onepass.classify.config import ClassifyConfig, SweepConfig
from onepass.classify.pipeline import Probing
from onepass.classify.resampling.folds import Folding
from onepass.classify.search.sweep import Sweeping

WORKS: dict[str, tuple[Any, type]] = {
    Probing.NAME: (Probing, ClassifyConfig),
    Folding.NAME: (Folding, ClassifyConfig),
    Sweeping.NAME: (Sweeping, SweepConfig),
}

_open: list[tuple[Any, Work]] = []  # the last one, by its configuration


def _look(message: Any) -> Any:
    _open.clear()  # what it reads may be another by now
    return to_json(identity(_opened(message)))


def _run(message: Any) -> Any:
    work = _opened(message)
    unit = message["unit"]
    with memory_budget(work.config.memory):
        return to_json(work.run(unit if isinstance(unit, int) else tuple(unit)))


TASKS: dict[str, Callable[[Any], Any]] = {"look": _look, "run": _run}


def _opened(message: Any) -> Work:
    """Return the work, which is opened once in this process."""
    name, config = message["work"], message["config"]
    if not _open or _open[0][0] != (name, config):
        _open.clear()
        work, kind = WORKS[name]
        asked: Any = from_json(kind, config)
        with memory_budget(asked.memory):
            _open.append(((name, config), work.of(asked)))
    return _open[0][1]
