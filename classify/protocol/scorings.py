"""Every look at the validation split, in the order it was taken.

`runs/<data set>/scorings.jsonl` grows by one line a scoring, and `--fresh` leaves it alone: the split is
an honest judge once, and whoever shows it one changed model after another should see how often.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from onepass.cache.artifacts import from_json, record, to_json
from onepass.cache.errors import CorruptFileError
from onepass.cache.files import FULL_DISK, fsync_folder, out_of_space
from onepass.cache.provenance import made_by
from onepass.classify.leaderboard.board import ProbeResult


@record
class Scoring:
    """One line of the record: a model was scored on the validation split.

    Attributes:
        probe: Id of the probe or name of the run.
        model: Digest of what was learnt.
        features: What it looks at.
        inputs: Digest of that.
        head: Kind of head.
        dataset_digest: State of the data set.
        seed: Of the selection split.
        accuracy: Top-1, 0 … 1.
        time, command: When, and by which command; `record_scoring` fills them in.
    """

    probe: str
    model: str
    features: str
    inputs: str
    head: str
    dataset_digest: str
    seed: int
    accuracy: float
    time: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Scorings:
    """How often the validation split was looked at.

    Attributes:
        times: Lines of the record.
        models: Different models among them.
    """

    times: int
    models: int


def record_scoring(folder: Path, scoring: Scoring) -> None:
    """Append a scoring to the record in one synced write; a kill leaves a whole line or none.

    Args:
        folder: `runs/<data set>`.
        scoring: What was scored; the time and the command are those of now.

    Raises:
        OutOfSpaceError: The disk is full.
    """
    made = made_by()
    line = to_json(replace(scoring, time=made["created"], command=made["command"]))
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


def read_scorings(folder: Path, dataset_digest: str) -> list[Scoring]:
    """Return the scorings of one state of a data set; a line that a power cut tore is left out.

    Raises:
        CorruptFileError: A whole line is no scoring.
    """
    path = scorings_path(folder)
    if not path.exists():
        return []
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, text in enumerate(lines, 1):
        try:
            value = json.loads(text)
        except ValueError:
            continue
        try:
            found.append(from_json(Scoring, value))
        except CorruptFileError as error:
            raise CorruptFileError(f"{path}: line {number}: {error}; delete that line") from error
    return [scoring for scoring in found if scoring.dataset_digest == dataset_digest]


def count_scorings(folder: Path, dataset_digest: str) -> Scorings:
    """Return how often the validation split was scored in this state of the data set."""
    found = read_scorings(folder, dataset_digest)
    return Scorings(len(found), len({scoring.model for scoring in found}))


def number_of_model(folder: Path, dataset_digest: str, features: str, head: str, model: str) -> int:
    """Return the how-manyth model of its kind on its features this one is, from 1, as val saw them.

    Args:
        folder: `runs/<data set>`.
        dataset_digest: State of the data set.
        features, head: As they are recorded.
        model: Digest of what was learnt; one that was scored before keeps its number.
    """
    seen = dict.fromkeys(
        scoring.model
        for scoring in read_scorings(folder, dataset_digest)
        if (scoring.features, scoring.head) == (features, head)
    )
    return ([*seen, model] if model not in seen else [*seen]).index(model) + 1


def record_probe(folder: Path, result: ProbeResult, model: str) -> None:
    """Append the scoring of a probe on the leaderboard."""
    record_scoring(
        folder,
        Scoring(
            probe=result.id, model=model, features=result.features_text,
            inputs=result.features_digest, head=result.head, dataset_digest=result.dataset_digest,
            seed=result.seed, accuracy=result.val_top1,
        ),
    )  # fmt: skip


def scorings_path(folder: Path) -> Path:
    """Return where the record of a data set's runs folder lies."""
    return folder / "scorings.jsonl"
