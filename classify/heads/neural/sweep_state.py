"""What becomes of heads that are trained together, and its file for a run that goes on after a kill."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.files import leftovers, write_atomic
from onepass.classify.heads.neural.network import Networks
from onepass.classify.heads.storage import pack_arrays, unpack_arrays

log = logging.getLogger(__name__)

FORMAT = 1  # of the file; raised with every change of its layout


@dataclass(frozen=True, slots=True)
class Judged:
    """A head after a number of epochs.

    Attributes:
        epochs: One of `onepass.classify.heads.neural.successive_halving.JUDGED`, or the last.
        accuracy: On the selection rows.
        loss: Log-loss there (nats).
        arrays: Its weights and biases, layer by layer.
    """

    epochs: int
    accuracy: float
    loss: float
    arrays: list[np.ndarray]


@dataclass(frozen=True, slots=True)
class Track:
    """What became of one head.

    Attributes:
        history: After each epoch, and after the rung that it was dropped at: {"epoch" (a fraction
            where a rung ends inside one), "train_loss", "train_accuracy" (of the steps since the
            last entry, with dropout, as Keras prints them), "selection_loss" (None: it diverged),
            "selection_accuracy"}.
        judged: All judged epochs of a head that is alone; of one among others the best at most.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)

    @property
    def best(self) -> Judged | None:
        """The best judged epoch; ties go to the lower log-loss, then the earlier."""
        return min(self.judged, key=lambda j: (-j.accuracy, j.loss), default=None)


@dataclass(frozen=True, slots=True)
class Saved:
    """A race between two of its looks at the selection rows, on disk: arrays and JSON in one `.npz`.

    Attributes:
        path: Of the file.
        identity: Of everything the race depends on; the file of another race is not read.
    """

    path: Path
    identity: str

    def save(self, networks: Networks, tracks: list[Track], alive: set[int], step: int) -> None:
        """Write the race as it is after `step` steps."""
        arrays: dict[str, np.ndarray] = {}
        noise: list[Any] = []
        for number, group in enumerate(networks.groups):
            noise.append([group.update.steps, group.noise.bit_generator.state])
            for place, array in enumerate(group.update.all_arrays()):
                arrays[f"group {number} {place}"] = array
        rows: list[dict[str, Any]] = []
        for member, track in enumerate(tracks):
            judged = [[one.epochs, one.accuracy, one.loss, len(one.arrays)] for one in track.judged]
            rows.append({"history": track.history, "judged": judged})
            for number, one in enumerate(track.judged):
                for place, array in enumerate(one.arrays):
                    arrays[f"judged {member} {number} {place}"] = array
        facts = {"format": FORMAT, "id": self.identity, "step": step, "alive": sorted(alive)}
        text = json.dumps({**facts, "noise": noise, "tracks": rows}).encode()
        arrays["facts"] = np.frombuffer(text, np.uint8)
        write_atomic(self.path, pack_arrays(arrays))

    def restore(self, networks: Networks, tracks: list[Track]) -> tuple[set[int], int] | None:
        """Bring untrained networks and empty tracks to where the race was.

        Returns:
            The heads that are still trained and the steps taken; None where there is nothing to go on from.
        """
        for path in leftovers(self.path):
            path.unlink()
        if not self.path.exists():
            return None
        try:
            arrays = unpack_arrays(self.path.read_bytes())
            facts = json.loads(arrays["facts"].tobytes())
            if (facts["format"], facts["id"]) != (FORMAT, self.identity):
                raise ValueError("it is of another sweep")
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.info(f"{self.path}: expected the state of a sweep ({error}); it begins anew")
            return None
        networks.keep(set(facts["alive"]))
        for number, (group, (steps, noise)) in enumerate(
            zip(networks.groups, facts["noise"], strict=True)
        ):
            group.update.steps, group.noise.bit_generator.state = steps, noise
            for place, array in enumerate(group.update.all_arrays()):
                array[...] = arrays[f"group {number} {place}"]
        for member, (track, row) in enumerate(zip(tracks, facts["tracks"], strict=True)):
            track.history.extend(row["history"])
            for number, (epochs, accuracy, loss, layers) in enumerate(row["judged"]):
                kept = [arrays[f"judged {member} {number} {place}"] for place in range(layers)]
                track.judged.append(Judged(epochs, accuracy, loss, kept))
        return set(facts["alive"]), facts["step"]

    def remove(self) -> None:
        """Delete the file; the race's result is kept elsewhere."""
        self.path.unlink(missing_ok=True)
