"""What accuracy costs: the time of extraction, which every new image has to pay again."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from onepass.cache.errors import OnepassError
from onepass.cache.features import ExtractionRecord, FeatureKey
from onepass.cache.rowfile import RowFile
from onepass.cache.stores import AnyStore
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult


def extraction_costs(store: AnyStore, board: Leaderboard) -> dict[str, float | None]:
    """Return the extraction cost of each probe of the leaderboard, in ms an image, by its id.

    The sum over the feature files that the probe reads: sizes, backbones and views side by side, and
    for an ensemble those of all members, each file once. A baseline costs nothing; None where a
    file is gone or was not measured.

    Args:
        store: Root of the store.
        board: Gives the probes.
    """
    by_id = {result.id: result for result in board.results}
    files: dict[Path, float | None] = {}
    costs: dict[str, float | None] = {}
    for result in board.results:
        keys = set(_keys(result, by_id))
        paths = {key.find(store, board.dataset) or key.file(store, board.dataset) for key in keys}
        for path in paths - files.keys():
            files[path] = _milliseconds(path)
        parts = [files[path] for path in sorted(paths)]
        known = [part for part in parts if part is not None]
        costs[result.id] = sum(known) if len(known) == len(parts) else None
    return costs


def pareto_front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Return the names that no other one beats in cost without losing accuracy, cheapest first.

    Args:
        points: name → (cost, accuracy).
    """
    front: list[str] = []
    best = float("-inf")
    for name, (_, accuracy) in sorted(points.items(), key=lambda p: (p[1][0], -p[1][1], p[0])):
        if accuracy > best:
            front.append(name)
            best = accuracy
    return tuple(front)


def board_front(board: Leaderboard, costs: Mapping[str, float | None]) -> tuple[str, ...]:
    """Return the ids on the front of the selection metric against extraction cost, cheapest first.

    Choices look at the selection split only, so the front does too.

    Args:
        board: Gives the probes that are ranked.
        costs: From `extraction_costs`.
    """
    points = {}
    for probe in board.ranked:
        cost = costs.get(probe.id)
        if cost is not None:
            points[probe.id] = (cost, probe.merit)
    return pareto_front(points)


def _keys(result: ProbeResult, by_id: Mapping[str, ProbeResult]) -> Iterable[FeatureKey]:
    yield from result.keys
    for member in result.members:
        if member in by_id:
            yield from by_id[member].keys


def _milliseconds(path: Path) -> float | None:
    """Return what a row of a feature file took to extract (ms), where that was measured."""
    try:
        extraction = ExtractionRecord.of(RowFile.open(path))
    except OnepassError:
        return None
    rate = (
        extraction.rows_per_second if extraction else 0
    )  # 0 also where every row was carried over
    return 1000 / rate if rate else None
