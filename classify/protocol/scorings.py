"""Every look at the validation split, in the order it was taken.

`runs/<data set>/scorings.jsonl` grows by one line a scoring, and `--fresh` leaves it alone: the split is
an honest judge once, and whoever shows it one changed model after another should see how often.

Each line holds a digest of itself and of the one before, so that no line can change or go unseen.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from onepass.cache.artifacts import check_digest, from_json, record, to_json
from onepass.cache.errors import CorruptFileError
from onepass.cache.files import fsync, full_disk_named, make_folder, parse_json, read_bytes
from onepass.cache.flock import lock_file
from onepass.cache.made_by import MadeBy
from onepass.cache.provenance import digest_bytes, digest_json
from onepass.classify.leaderboard.board import ProbeResult

CHAIN = "chain"  # digest of the line before and of this one
MEND = "put back a copy of the file, or move it away: the count of looks then begins anew"


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
    made_by = MadeBy.now()
    line = to_json(replace(scoring, time=made_by.created, command=made_by.command))
    path = scorings_path(folder)
    make_folder(folder)
    with full_disk_named(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            lock_file(descriptor, wait=True)  # for a moment: other commands append as well
            content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            links = [link for _, link in _whole_lines(path, content)]
            line[CHAIN] = digest_json([links[-1] if links else "", line])
            torn = b"" if content.endswith(b"\n") or not content else b"\n"  # by a power cut
            text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
            os.write(descriptor, torn + text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync(folder)


def read_scorings(folder: Path, dataset_digest: str) -> list[Scoring]:
    """Return the scorings of one state of a data set; a line that a power cut tore is left out.

    Raises:
        CorruptFileError: A line is no scoring, or not what was written.
    """
    path = scorings_path(folder)
    if not path.exists():
        return []
    found = [scoring for scoring, _ in _whole_lines(path, read_bytes(path))]
    return [scoring for scoring in found if scoring.dataset_digest == dataset_digest]


def _whole_lines(path: Path, content: bytes) -> Iterator[tuple[Scoring, str]]:
    """Yield each scoring of the record, with what the line after it is chained to.

    Lines from before the chain come first. A line that a power cut tore is left out: either it has no
    end, or the whole line after it is not chained to it.
    """
    link, chained, torn = "", False, 0
    *ended, last = content.split(b"\n")
    for number, text in enumerate([*ended, last] if _whole(last) else ended, 1):
        try:
            value = parse_json(text)
        except ValueError:
            torn = number
            continue
        try:
            chain = value.pop(CHAIN, None) if isinstance(value, dict) else None
            if chain is not None or chained:
                check_digest([link, value], chain)
            scoring = from_json(Scoring, value)
        except CorruptFileError as error:
            raise CorruptFileError(f"{path}: line {number}: {error}; {MEND}") from error
        link, chained, torn = chain or digest_bytes(text), chain is not None, 0
        yield scoring, link
    if torn:
        raise CorruptFileError(f"{path}: line {torn}: expected a JSON object; {MEND}")


def _whole(last: bytes) -> bool:
    """Say whether what follows the last end of line is more than the beginning of a line."""
    try:
        parse_json(last.decode(errors="replace").encode())
    except ValueError as error:
        return getattr(error, "msg", "") == "Extra data"
    return True


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
