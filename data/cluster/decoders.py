"""Images read and decoded by workers of a cluster or processes of this machine; this one puts the file together.

Only plain values travel: where the images are, and which. Each worker opens their source itself, and commits
its shards into the store, which all machines see at the same path.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from onepass.cache.artifacts import to_json
from onepass.cache.cluster.crew import Crew, Part
from onepass.cache.cluster.processes import Processes
from onepass.cache.cluster.workers import connect
from onepass.cache.memory import processes_within
from onepass.cache.progress import Progress, counted
from onepass.cache.rows import RowWriter
from onepass.cache.stopping import StoppedError, StopRequest
from onepass.data.cluster.messages import Decoding, Look, Place, absolute, identity
from onepass.data.look import Seen
from onepass.data.pack import Geometry, cores
from onepass.data.sources.base import Request, Source, Survey

TASKS = "onepass.data.cluster.tasks"
LOOKED_AT = 512  # images a task
MANY = 5_000  # images; fewer are read before the processes of this machine have started


class Decoders:
    """The processes that read and decode the images of a source.

    Args:
        crew: They.
        place: What the source was opened by.
        source: It.
        stop: Asked several times a second.
        processes: How many of this machine they are, a thread each; 0 for the workers of a cluster.
    """

    def __init__(
        self,
        crew: Crew | Processes,
        place: Place,
        source: Source,
        stop: StopRequest,
        processes: int = 0,
    ) -> None:
        self._crew, self._place, self._stop = crew, place, stop
        self._processes, self._threads = processes, 1 if processes else None
        self._names = [item.name for item in source.items]

    def pay(self, images: int) -> bool:
        """Tell whether so many images are worth handing out."""
        return not self._processes or images >= MANY

    def look(
        self,
        items: np.ndarray,
        alike: Survey | None,
        progress: Progress,
        keep: Callable[[np.ndarray, list[Seen]], None],
    ) -> None:
        """Ask what `onepass.data.look.read_images` says of images.

        Args:
            items: (n,) int64, which images of the source.
            alike: As `read_images` takes it.
            progress: Of the images.
            keep: Takes some of them, and what is said of each, in any order.

        Raises:
            StoppedError: The work is asked to stop.
        """
        self._show(progress)
        parts = (items[low : low + LOOKED_AT] for low in range(0, len(items), LOOKED_AT))

        def accept(part: np.ndarray, seen: list[Seen]) -> None:
            keep(part, seen)
            progress.advance(len(seen))

        self._crew.hand_out(
            "look at",
            (Part(part, self._named(part)) for part in parts),
            lambda part: to_json(Look(self._place, tuple(part.tolist()), alike, self._threads)),
            accept,
        )
        if progress.done < len(items):
            raise StoppedError(self._stop.reason)

    def decode(
        self, items: np.ndarray, geometry: Geometry, writer: RowWriter, progress: Progress
    ) -> dict[str, str]:
        """Let every image be decoded whose row exists nowhere yet, and adopt the shards.

        Args:
            items: (n,) which image of the source is that of each position of the writer.
            geometry, writer: As `onepass.data.pack.decode_missing` takes them.
            progress: Of the images.

        Returns:
            What is wrong with the images that cannot be used, by name.
        """
        self._show(progress)
        bad: dict[str, str] = {}

        def message(positions: np.ndarray) -> dict:
            which = tuple(items[positions].tolist())
            return to_json(
                Decoding(
                    self._place,
                    which,
                    geometry,
                    writer.folder.resolve(),
                    self._threads,
                    self._processes,
                )
            )

        def accept(positions: np.ndarray, found: dict[str, str]) -> None:
            good = np.array([self._names[item] not in found for item in items[positions]])
            if good.any():
                writer.adopt(positions[good])
            bad.update(found)
            progress.advance(len(positions))

        parts = (Part(positions, self._named(items[positions])) for positions in writer.missing)
        self._crew.hand_out("decode", parts, message, accept)
        return bad

    def _named(self, items: np.ndarray) -> str:
        return f"{counted(len(items), 'image')} from {self._names[items[0]]} on"

    def _show(self, progress: Progress) -> None:
        progress.note = lambda: self._crew.at_work


@contextmanager
def open_decoders(
    executor: str, address: str, kind: str, requests: Sequence[Request], source: Source, stop: StopRequest
) -> Iterator[Decoders | None]:  # fmt: skip
    """Connect with the cluster that is named, or let the cores of this machine work; None where one process will do.

    Raises:
        ClusterError: It cannot be reached.
    """
    place = Place(kind, tuple(absolute(request) for request in requests))
    if executor == "local":
        are_files = any(item.stamp for item in source.items)  # arrays are not decoded
        count = processes_within(cores())  # each opens the source, as this one did
        crew = Processes(count, TASKS, stop)
        yield Decoders(crew, place, source, stop, count) if are_files and count > 1 else None
        return
    workers = connect(executor, address)
    try:
        yield Decoders(
            Crew(workers, TASKS, to_json(place), identity(source), stop), place, source, stop
        )
    finally:
        workers.close()
