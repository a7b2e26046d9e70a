"""Numbers of a run for TensorBoard and MLflow, written by their own libraries where `--log` asks for them."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from onepass.cache.errors import MissingFileError, OnepassError

log = logging.getLogger(__name__)

LogName = Literal["tensorboard", "mlflow"]
LOG_HELP = (
    "also write the numbers for TensorBoard or MLflow, by their own libraries (extras tensorboard and mlflow); "
    "MLFLOW_TRACKING_URI says where MLflow keeps them"
)
RUN_TAG = "onepass.run"  # of a run in MLflow: its `LoggedRun.identity`


@dataclass(frozen=True, slots=True)
class Point:
    """Numbers that belong to one step of a run.

    Attributes:
        step: Such as an epoch, from 0.
        values: By name.
        time: When they were found (seconds since 1970).
    """

    step: int
    values: Mapping[str, float]
    time: float


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """What is logged.

    Attributes:
        experiment: Name of the data set.
        name: Of the run.
        identity: Tells it from all other runs, also from one of the same name that was deleted.
        folder: Where everything of it lies.
        results: Root folder of the results.
        settings: What it was made with.
    """

    experiment: str
    name: str
    identity: str
    folder: Path
    results: Path
    settings: Mapping[str, Any]


class Log(Protocol):
    """One place that keeps numbers of a run.

    Attributes:
        place: Where that is, and what shows it.
    """

    place: str

    def write(self, points: Sequence[Point]) -> None:
        """Add what of these is not there yet."""

    def close(self, finished: bool) -> None:
        """End; `finished` says whether the run has no work left."""


class Logs:
    """Every place where the numbers of a run are kept; none of them can stop the run.

    Args:
        names: Which are asked for.
        run: What is logged.

    Raises:
        MissingFileError: One is not installed.
        OnepassError: One cannot be opened.
    """

    def __init__(self, names: Sequence[LogName], run: LoggedRun) -> None:
        check_installed(names)
        self.finished = False  # set by whoever does the work
        self.open: list[Log] = []
        kinds: dict[LogName, Callable[[LoggedRun], Log]] = {
            "tensorboard": TensorBoardLog,
            "mlflow": MlflowLog,
        }
        for name in dict.fromkeys(names):
            try:
                self.open.append(kinds[name](run))
            except Exception as error:  # of libraries that are not ours, and of their servers
                raise OnepassError(f"--log {name}: cannot be opened ({_line(error)})") from error

    @property
    def places(self) -> str:
        """Where the numbers go, in words."""
        return " and ".join(one.place for one in self.open)

    def write(self, points: Sequence[Point]) -> None:
        """Add what is not there yet."""
        self._each(lambda one: one.write(points))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._each(lambda one: one.close(self.finished))

    def _each(self, work: Callable[[Log], None]) -> None:
        for one in list(self.open):
            try:
                work(one)
            except Exception as error:
                self.open.remove(one)
                log.warning(
                    f"{one.place}: cannot be written now ({_line(error)}); the run goes on, and the same command "
                    "writes what is missing"
                )


def check_installed(names: Iterable[LogName]) -> None:
    """Refuse a log whose library is missing, before there is any work.

    Raises:
        MissingFileError: It is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise MissingFileError(
                f'--log {name}: {name} is not installed; run: pip install "onepass[{name}]"'
            )


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


class TensorBoardLog:
    """An event file in the run's folder; a run that resumes writes it anew, from what it knows of its past."""

    def __init__(self, run: LoggedRun) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = run.folder / "tensorboard"
        earlier = list(folder.glob("events.out.tfevents.*"))
        self.place = f"{folder} (tensorboard --logdir {run.results})"
        self.writer = EventFileWriter(str(folder))
        # Whoever has read the earlier file forgets it at this event.
        self.writer.add_event(Event(step=0, session_log=SessionLog(status=SessionLog.START)))
        self.writer.flush()
        for path in earlier:
            path.unlink()
        self.written: set[tuple[int, str]] = set()

    def write(self, points: Sequence[Point]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point, values in _new(points, self.written):
            summary = Summary(
                value=[Summary.Value(tag=name, simple_value=value) for name, value in values]
            )
            event = Event(wall_time=point.time, step=point.step, summary=summary)
            self.writer.add_event(event)
        self.writer.flush()

    def close(self, finished: bool) -> None:
        self.writer.close()


class MlflowLog:
    """A run on an MLflow server, or in a database below the results; one that resumes goes on in it."""

    def __init__(self, run: LoggedRun) -> None:
        # Before it is imported: it tells its makers nothing of our users, and says nothing of its tables.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        import mlflow
        from mlflow.entities import Param

        own = f"sqlite:///{run.results.resolve()}/mlflow.db"
        where = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else own
        shown = f" (mlflow ui --backend-store-uri {own})" if where == own else ""
        self.place = re.sub("//[^/@]*@", "//", where) + shown  # without a password
        self.client = client = mlflow.MlflowClient(where)
        found = client.get_experiment_by_name(run.experiment)
        experiment = found.experiment_id if found else client.create_experiment(run.experiment)
        known = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.identity}'")
        if known:
            self.run = known[0].info.run_id
            client.update_run(self.run, status="RUNNING")
        else:
            tags = {RUN_TAG: run.identity, "onepass.folder": str(run.folder)}
            made = client.create_run(experiment, tags=tags, run_name=run.name)
            self.run = made.info.run_id
            settings = [Param(name, str(value)) for name, value in run.settings.items()]
            client.log_batch(self.run, params=settings)
        names = known[0].data.metrics if known else ()
        self.written = {
            (metric.step, name)
            for name in names
            for metric in client.get_metric_history(self.run, name)
        }

    def write(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(1000 * point.time), point.step)
            for point, values in _new(points, self.written)
            for name, value in values
        ]
        if metrics:
            self.client.log_batch(self.run, metrics=metrics)

    def close(self, finished: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if finished else "KILLED")


def _new(
    points: Sequence[Point], written: set[tuple[int, str]]
) -> Iterable[tuple[Point, list[tuple[str, float]]]]:
    """Yield each point that has values not written yet, with these, which then count as written."""
    for point in points:
        values = [(n, v) for n, v in point.values.items() if (point.step, n) not in written]
        if values:
            yield point, values
            written |= {(point.step, name) for name, _ in values}
