"""What a sweep leaves in `runs/<data set>/sweeps/<id>.json`.

format: FORMAT.
id: Digest of everything the numbers depend on, behind the head's name.
dataset, dataset_digest, features, features_digest, seed, rows, made_by: As in `ProbeResult`.
head: Kind of head.
fixed: Its hyper-parameters that are equal in all heads.
plan: {"epochs", "keep"}.
rungs: [{"heads", "epoch"}]: how many were trained up to which epoch (a fraction inside one).
heads: [{"params", "rank", "best", "history"}] in the order of the grid. rank: from 1, by the best
    judged epoch; those dropped before their first whole epoch come last, by how far they came. best:
    {"epochs", "accuracy", "log_loss" (both on the selection split), "train_accuracy"}, or null.
    history: `onepass.classify.heads.neural.sweep_state.Track.history`.
probe: Id of the best head on the leaderboard; its validation accuracy stands there only.
seconds: Wall time of sweep, refit and scoring.

FORMAT is the number of this layout. Whoever changes it raises it.
"""

import logging
from pathlib import Path
from typing import Any

from onepass.cache.errors import OnepassError
from onepass.cache.files import read_json
from onepass.classify.heads.neural.trained import Sweep

log = logging.getLogger(__name__)

FORMAT = 1
Record = dict[str, Any]


def read_record(path: Path, identity: str) -> Record | None:
    """Return a sweep's record; None where there is none that can be used, and why is said."""
    if not path.exists():
        return None
    try:
        record = read_json(path)
        if record["format"] != FORMAT or record["id"] != identity:
            raise ValueError(f"format {record['format']}, id {record['id']}")
    except (OnepassError, ValueError, KeyError, TypeError) as error:
        log.info(f"{path}: expected a sweep, but it cannot be read ({error}); it is run again")
        return None
    return record


def heads_of(found: Sweep) -> list[dict[str, Any]]:
    """Return what became of each head, ranked."""

    def order(place: int) -> tuple[float, ...]:
        track = found.tracks[place]
        last, best = track.history[-1], track.best
        if best is None:
            return (1, -float(last["epoch"]), -last["selection_accuracy"], place)
        return (0, -best.accuracy, best.loss, place)

    ranked = sorted(range(len(found.tracks)), key=order)
    rank = {place: number for number, place in enumerate(ranked, 1)}
    heads = []
    for place, (params, track) in enumerate(zip(found.params, found.tracks, strict=True)):
        best = None
        if track.best:
            rows = {row["epoch"]: row for row in track.history}
            figures = {"accuracy": track.best.accuracy, "log_loss": track.best.loss}
            accuracy = rows[track.best.epochs]["train_accuracy"]
            best = {"epochs": track.best.epochs, **figures, "train_accuracy": accuracy}
        heads.append(
            {"params": params, "rank": rank[place], "best": best, "history": track.history}
        )
    return heads
