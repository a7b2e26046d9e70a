"""Every look at the reported rows, in the order it was taken.

`runs/<data set>/scorings.jsonl` grows by one line a scoring, and `--fresh` leaves it alone: val is an
honest judge once, and whoever shows it one changed model after another should see how often.
A line: {"time", "probe" (id), "model" (digest of what was learnt), "features", "inputs" (digest of the
vectors), "head", "dataset_digest", "seed", "accuracy", "command"}.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepass.cache.files import FULL_DISK, fsync_folder, out_of_space
from onepass.cache.provenance import made_by
from onepass.classify.leaderboard.board import ProbeResult


@dataclass(frozen=True, slots=True)
class Scorings:
    """How often val was looked at.

    Attributes:
        times: Lines of the record.
        models: Different models among them.
    """

    times: int
    models: int


def record_scoring(
    folder: Path,
    *,
    probe: str,
    model: str,
    features: str,
    inputs: str,
    head: str,
    dataset_digest: str,
    seed: int,
    accuracy: float,
) -> None:
    """Append a scoring to the record in one synced write; a kill leaves a whole line or none.

    Args:
        folder: `runs/<data set>`.
        probe: Id of the probe or name of the run.
        model: Digest of what was learnt.
        features: What it looks at.
        inputs: Digest of that.
        head: Kind of head.
        dataset_digest: State of the data set.
        seed: Of the selection split.
        accuracy: Top-1 on val, 0 … 1.

    Raises:
        OutOfSpaceError: The disk is full.
    """
    made = made_by()
    line = {
        "time": made["created"], "probe": probe, "model": model, "features": features, "inputs": inputs,
        "head": head, "dataset_digest": dataset_digest, "seed": seed, "accuracy": accuracy,
        "command": made["command"],
    }  # fmt: skip
    path = scorings_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"  # by a power cut
            text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
            os.write(descriptor, (b"\n" if torn else b"") + text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise out_of_space(path) from error
        raise
    fsync_folder(folder)


def read_scorings(folder: Path, dataset_digest: str) -> list[dict[str, Any]]:
    """Return the scorings of one state of a data set; a line that a power cut tore is left out."""
    path = scorings_path(folder)
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("dataset_digest") == dataset_digest:
            lines.append(line)
    return lines


def count_scorings(folder: Path, dataset_digest: str) -> Scorings:
    """Return how often val was scored in this state of the data set, and how many models."""
    lines = read_scorings(folder, dataset_digest)
    return Scorings(len(lines), len({line.get("model") for line in lines}))


def number_of_model(folder: Path, dataset_digest: str, features: str, head: str, model: str) -> int:
    """Return the how-manyth model of its kind on its features this one is, from 1, as val saw them.

    Args:
        folder: `runs/<data set>`.
        dataset_digest: State of the data set.
        features, head: As they are recorded.
        model: Digest of what was learnt; one that was scored before keeps its number.
    """
    seen = dict.fromkeys(
        line.get("model")
        for line in read_scorings(folder, dataset_digest)
        if (line.get("features"), line.get("head")) == (features, head)
    )
    return ([*seen, model] if model not in seen else [*seen]).index(model) + 1


def record_probe(folder: Path, result: ProbeResult, model: str) -> None:
    """Append the scoring of a probe on the leaderboard."""
    record_scoring(
        folder, probe=result.id, model=model, features=result.features_text,
        inputs=result.features_digest, head=result.head, dataset_digest=result.dataset_digest,
        seed=result.seed, accuracy=result.val_top1,
    )  # fmt: skip


def scorings_path(folder: Path) -> Path:
    """Return where the record of a data set's runs folder lies."""
    return folder / "scorings.jsonl"
