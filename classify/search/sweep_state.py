"""The file from which an interrupted sweep resumes: arrays and JSON in one `.npz`."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.artifacts import Artifact, record
from onepass.cache.errors import CorruptFileError
from onepass.cache.files import leftovers, parse_json, read_bytes, write_atomic
from onepass.classify.heads.neural.network import Group, Networks
from onepass.classify.search.learning_curve import CurvePoint, LearningCurve, Snapshot

log = logging.getLogger(__name__)

FACTS = "facts"  # the array that holds the JSON


@record
class SavedSnapshot:
    """A `Snapshot` without its arrays, of which there are `arrays`."""

    epochs: int
    accuracy: float
    loss: float
    arrays: int
    merit: float


@record
class SavedCurve:
    """A `LearningCurve` without arrays."""

    points: tuple[CurvePoint, ...]
    snapshots: tuple[SavedSnapshot, ...]


@record
class SavedGroup:
    """A `Group` of heads without arrays.

    Attributes:
        steps: Of its optimiser.
        noise: State of the generator that draws dropout.
    """

    steps: int
    noise: dict[str, Any]


@record
class SweepState(Artifact):
    """What a sweep is between two of its steps, without arrays.

    Attributes:
        id: Of everything that the sweep depends on.
        step: Steps that were taken.
        alive: The heads that are still trained.
        groups: In the order of the networks' groups, fold by fold.
        curves: Of all heads.
    """

    FORMAT = 3

    id: str
    step: int
    alive: tuple[int, ...]
    groups: tuple[SavedGroup, ...]
    curves: tuple[SavedCurve, ...]


@dataclass(frozen=True, slots=True)
class StateFile:
    """A sweep on disk.

    Attributes:
        path: Of the file.
        identity: Of everything that the sweep depends on; the file of another sweep is not read.
    """

    path: Path
    identity: str

    def save(
        self, networks: list[Networks], curves: list[LearningCurve], alive: set[int], step: int
    ) -> None:
        """Write the sweep as it is after `step` steps."""
        groups = tuple(
            SavedGroup(group.optimizer.steps, dict(group.noise.bit_generator.state))
            for group in _groups(networks)
        )
        saved = tuple(
            SavedCurve(
                tuple(curve.points),
                tuple(
                    SavedSnapshot(one.epochs, one.accuracy, one.loss, len(one.arrays), one.merit)
                    for one in curve.snapshots
                ),
            )
            for curve in curves
        )
        state = SweepState(self.identity, step, tuple(sorted(alive)), groups, saved)
        text = json.dumps(state.sealed()).encode()
        arrays = {FACTS: np.frombuffer(text, np.uint8)}
        for number, group in enumerate(_groups(networks)):
            for place, array in enumerate(group.optimizer.all_arrays()):
                arrays[f"group {number} {place}"] = array
        for member, curve in enumerate(curves):
            for number, one in enumerate(curve.snapshots):
                for place, array in enumerate(one.arrays):
                    arrays[f"snapshot {member} {number} {place}"] = array
        write_atomic(self.path, pack_arrays(arrays))

    def restore(
        self, networks: list[Networks], curves: list[LearningCurve]
    ) -> tuple[set[int], int] | None:
        """Bring untrained networks and empty curves to where the sweep was.

        Returns:
            The heads that are still trained and the steps taken; None where there is nothing to resume
            from, and why is logged.
        """
        for path in leftovers(self.path):
            path.unlink()
        if not self.path.exists():
            return None
        try:
            arrays = unpack_arrays(read_bytes(self.path))
            state = self._read(arrays[FACTS])
        except (OSError, ValueError, KeyError) as error:
            log.info(f"{self.path}: expected the state of a sweep ({error}); it begins anew")
            return None
        try:
            return self._resume(networks, curves, state, arrays)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise CorruptFileError(
                f"{self.path}: expected the state of this sweep, but it does not fit ({error}); delete it "
                "and run the same command again"
            ) from error

    def _resume(
        self,
        networks: list[Networks],
        curves: list[LearningCurve],
        state: SweepState,
        arrays: dict[str, np.ndarray],
    ) -> tuple[set[int], int]:
        """Put a state into networks and curves; whatever does not fit is one of several plain errors."""
        alive = set(state.alive)
        for fold in networks:
            fold.keep(alive)
        groups = zip(_groups(networks), state.groups, strict=True)
        for number, (group, saved) in enumerate(groups):
            group.optimizer.steps, group.noise.bit_generator.state = saved.steps, saved.noise
            for place, array in enumerate(group.optimizer.all_arrays()):
                array[...] = arrays[f"group {number} {place}"]
        for member, (curve, known) in enumerate(zip(curves, state.curves, strict=True)):
            curve.points.extend(known.points)
            for number, one in enumerate(known.snapshots):
                names = (f"snapshot {member} {number} {place}" for place in range(one.arrays))
                kept = [arrays[name] for name in names]
                curve.snapshots.append(
                    Snapshot(one.epochs, one.accuracy, one.loss, one.merit, kept)
                )
        return alive, state.step

    def _read(self, facts: np.ndarray) -> SweepState:
        """Return the state without arrays.

        Raises:
            CorruptFileError: It is of another format or another sweep.
        """
        state = SweepState.unsealed(parse_json(facts.tobytes()))
        if state.id != self.identity:
            raise CorruptFileError("it is of another sweep")
        return state

    def remove(self) -> None:
        """Delete the file; what the sweep found is kept elsewhere."""
        self.path.unlink(missing_ok=True)


def _groups(networks: list[Networks]) -> list[Group]:
    return [group for fold in networks for group in fold.groups]
