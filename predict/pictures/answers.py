"""What is said of each new picture, and the files that hold it: CSV, JSON lines, parquet."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.csv_text import csv_text, harmless
from onepass.cache.errors import UsageError
from onepass.cache.files import atomic_path
from onepass.data.arrow_tables import pyarrow_parquet
from onepass.predict.config import ANSWER_FILES

OPEN_CLASS = ""  # in a table: the answer was left open
GROUP = 4096  # rows of a group of a parquet file


@dataclass(frozen=True, slots=True)
class ClassShare:
    """A class and how probable it is, 0 … 1."""

    class_id: str
    class_name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one new picture.

    Attributes:
        file: Its name.
        top: The class that it is given, then the most probable others; none where it could not be read.
        margin: Highest probability less the second highest; None where it could not be read.
        novelty: Share of known pictures that lie nearer to those that were learnt than this one, 0 … 1;
            None where that is not known.
        reason: Why it could not be read, or why the answer was left open; else "".
        is_open: Whether the answer was left open.
        prior: Share of its class in the mix that the probabilities are for (`--prior`); None: that of training.
    """

    file: str
    top: tuple[ClassShare, ...]
    margin: float | None = None
    novelty: float | None = None
    reason: str = ""
    is_open: bool = False
    prior: float | None = None

    @property
    def unread(self) -> bool:
        """Whether the picture could not be read."""
        return not self.top

    @property
    def decided(self) -> ClassShare | None:
        """The class that the picture is given; None where it could not be read, or was left open."""
        return None if self.is_open or self.unread else self.top[0]


def top_classes(
    probabilities: np.ndarray, first: int, ids: Sequence[str], names: Sequence[str], count: int
) -> tuple[ClassShare, ...]:
    """Return `count` classes of (K,) probabilities: the one that is the answer, then the most probable others."""
    order = np.argsort(-probabilities, kind="stable")
    order = np.append(first, order[order != first])[:count]
    return tuple(ClassShare(ids[k], names[k], float(probabilities[k])) for k in order)


def margin(probabilities: np.ndarray) -> float:
    """Return the greatest of (K,) probabilities less the second, K >= 2."""
    second, first = np.partition(probabilities, -2)[-2:]
    return float(first - second)


Write = Callable[[Answer], object]


def check_answer_file(path: Path) -> None:
    """Refuse a name that no format of answers has, before anything is computed.

    Raises:
        UsageError: It is a folder, or ends otherwise.
        MissingFileError: It is a parquet file, and pyarrow is not installed.
    """
    if path.is_dir() or path.suffix.lower() not in ANSWER_FILES:
        kind = "a folder" if path.is_dir() else path.suffix or "no suffix"
        raise UsageError(
            f"--out {path}: expected a file that ends in {', '.join(ANSWER_FILES)}, received {kind}"
        )
    if path.suffix.lower() == ".parquet":
        pyarrow_parquet(path)


@contextmanager
def answer_file(path: Path, top: int) -> Iterator[Write]:
    """Yield what writes one answer after the other; the file takes its place, whole, at the end.

    Args:
        path: Its suffix is the format. A CSV or parquet file has the columns file, class_id, class_name,
            probability, margin, novelty, reason, prior, and class_id_2, class_name_2, probability_2 and so on;
            the class is empty where an answer was left open. A line of a .jsonl file is one `Answer`.
        top: How many classes are named.
    """
    kinds = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
    with atomic_path(path) as temporary, kinds[path.suffix.lower()](temporary, top) as write:
        yield write


@contextmanager
def _csv(path: Path, top: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(csv_text(_columns(top), []))

        def write(answer: Answer) -> None:
            cells = [harmless(_text(cell)) for cell in _cells(answer, top)]
            file.write(csv_text(cells, []))

        yield write


@contextmanager
def _json_lines(path: Path, top: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda answer: file.write(json.dumps(answer_json(answer)) + "\n")


@contextmanager
def _parquet(path: Path, top: int) -> Iterator[Write]:
    parquet = pyarrow_parquet(path)
    import pyarrow

    columns = _columns(top)
    numbers = ("probability", "margin", "novelty", "prior")
    kinds = [pyarrow.float32() if c.startswith(numbers) else pyarrow.string() for c in columns]
    schema = pyarrow.schema(list(zip(columns, kinds, strict=True)))
    rows: list[list[Any]] = []

    def flush() -> None:
        arrays = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns]
        writer.write_table(pyarrow.table(dict(zip(columns, arrays, strict=True)), schema))
        rows.clear()

    def write(answer: Answer) -> None:
        rows.append([_storable(cell) for cell in _cells(answer, top)])
        if len(rows) == GROUP:
            flush()

    with parquet.ParquetWriter(path, schema) as writer:
        yield write
        flush()


def _columns(top: int) -> list[str]:
    first = [
        "file",
        "class_id",
        "class_name",
        "probability",
        "margin",
        "novelty",
        "reason",
        "prior",
    ]
    words = ("class_id", "class_name", "probability")
    return first + [f"{word}_{place}" for place in range(2, top + 1) for word in words]


def _cells(answer: Answer, top: int) -> list[Any]:
    decided = answer.decided
    best = answer.top[0] if answer.top else None
    identity, words = (decided.class_id, decided.class_name) if decided else (OPEN_CLASS,) * 2
    cells: list[Any] = [
        answer.file, identity, words, best and best.probability, answer.margin, answer.novelty,
        answer.reason, answer.prior,
    ]  # fmt: skip
    others = answer.top[1:] if decided else ()
    for place in range(top - 1):
        one = others[place] if place < len(others) else None
        cells += [one.class_id, one.class_name, one.probability] if one else ["", "", None]
    return cells


def answer_json(answer: Answer) -> dict[str, Any]:
    """Return an answer as a JSON object."""
    return {
        "file": answer.file,
        "class_id": answer.decided and answer.decided.class_id,
        "class_name": answer.decided and answer.decided.class_name,
        "top": [
            {"class_id": o.class_id, "class_name": o.class_name, "probability": o.probability}
            for o in answer.top
        ],
        "margin": answer.margin,
        "novelty": answer.novelty,
        "reason": answer.reason,
        "prior": answer.prior,
    }


def _text(cell: Any) -> str:
    return "" if cell is None else f"{cell:.6f}" if isinstance(cell, float) else cell


def _storable(cell: Any) -> Any:
    """Return text that UTF-8 can hold; a file name may be any bytes."""
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell
