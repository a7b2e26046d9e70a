"""Probes, folds and sweeps as units of work: done here one after the other, or by the workers of a cluster.

Only plain values travel: the configuration, and which unit. Each worker opens the data set and its features by path;
what a probe leaves lies in the runs folder, which all machines see at the same path.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from onepass.cache.artifacts import from_json, to_json
from onepass.cache.cluster.crew import Crew, Part
from onepass.cache.cluster.identity import Identity
from onepass.cache.cluster.workers import connect
from onepass.cache.commandline.flags import sent
from onepass.cache.provenance import digest_json
from onepass.cache.stopping import StopRequest
from onepass.classify.config import ProbingConfig
from onepass.classify.heads.linear.logistic import Logistic
from onepass.classify.heads.linear.ridge import Ridge
from onepass.classify.leaderboard.records import model_digest
from onepass.classify.protocol.inputs import Inputs
from onepass.data.dataset import ImageDataset

ROOMS = ("onepass.cache", "onepass.data", "onepass.classify")
TASKS = "onepass.classify.cluster.tasks"

Unit = int | tuple[int, ...]


class Work(Protocol):
    """What a configuration asks for, opened.

    Attributes:
        NAME: Its name in the table of `onepass.classify.cluster.tasks`.
        FOUND: What a unit gives: a record.
        config: The configuration.
        dataset, features: What it reads.
    """

    NAME: ClassVar[str]
    FOUND: ClassVar[type]

    @property
    def config(self) -> Any: ...
    @property
    def dataset(self) -> ImageDataset: ...
    @property
    def features(self) -> Sequence[Inputs]: ...

    def label(self, unit: Any) -> str:
        """Return what a unit is called."""

    def run(self, unit: Any) -> Any:
        """Do a unit."""


def run_units(work: Work, units: Sequence[Unit], accept: Callable[[Any, Any], None]) -> None:
    """Do some units, where the configuration says, and let what each gives be accepted: here, in the order they end.

    Raises:
        ClusterError: A unit failed too often, the cluster has gone, or nobody there can take part.
        OnepassError: Of a unit that is done here.
    """
    config: ProbingConfig = work.config
    if config.executor == "local":
        for unit in units:
            accept(unit, work.run(unit))
        return
    message = {"work": work.NAME, "config": to_json(sent(config))}
    workers = connect(config.executor, config.address)
    try:
        crew = Crew(workers, TASKS, message, identity(work), StopRequest(), ahead=1)
        crew.hand_out(
            "run",
            [Part(unit, work.label(unit)) for unit in units],
            lambda unit: {**message, "unit": unit},
            lambda unit, found: accept(unit, from_json(work.FOUND, found)),
        )
    finally:
        workers.close()


def identity(work: Work) -> Identity:
    """Return what this process is, which sees the data set and its features, and learns the same of noise."""
    random = np.random.default_rng(0)
    X, y = random.standard_normal((512, 64), np.float32), np.arange(512) % 5
    learnt = [model_digest(head.fit(X, y)) for head in (Ridge(), Logistic())]
    same = {
        "the data set": work.dataset.digest[:12],
        "the features": digest_json([one.digest for one in work.features])[:12],
        "what heads learn of noise": digest_json(learnt)[:12],
    }
    return Identity.here(ROOMS, same)
