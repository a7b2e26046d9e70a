"""Every probe, ranked, and whether a paired test tells it from the winner."""

from dataclasses import dataclass

from onepass.cache.errors import OnepassError
from onepass.classify.heads.base import brief
from onepass.classify.leaderboard.board import ProbeResult
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import compare
from onepass.classify.protocol.scorings import count_scorings
from onepass.report.context import Material
from onepass.report.numbers import p_value, points
from onepass.report.sections.section import Section

COMPARED = 20  # lines that are compared with the winner: each reads a file of probabilities
BAR = 96.0  # width of the picture of an interval


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        rank: From 1; None for a floor line.
        probe: The result.
        chosen: Its hyper-parameters in words.
        rate: Images per second of the extraction of its features; 0 where it was not measured.
        bar: Where its interval and accuracy lie on a scale of BAR, (low, accuracy, high); None off it.
        ahead: Its val accuracy less the winner's, on the same rows; None where it was not compared.
        versus: That in words.
    """

    rank: int | None
    probe: ProbeResult
    chosen: str
    rate: float
    bar: tuple[float, float, float] | None
    ahead: float | None
    versus: str


def build(material: Material) -> Section:
    """Return the table."""
    probes = [*material.board.ranked, *material.board.baselines]
    shown = [probe for probe in probes if not probe.baseline] or probes
    low = min(probe.val_interval[0] for probe in shown)
    high = max(probe.val_interval[1] for probe in shown)
    rows = [
        _row(material, rank if rank <= len(material.board.ranked) else None, probe, (low, high))
        for rank, probe in enumerate(probes, 1)
    ]
    facts = {
        "rows": rows,
        "top5": any(probe.val_top5 is not None for probe in probes),
        "rates": any(row.rate for row in rows),
        "unsettled": [row for row in rows if not row.probe.converged],
        "looks": count_scorings(material.board.folder, material.dataset.digest),
        "seeds": sorted({probe.seed for probe in probes}),
    }
    return Section("leaderboard", "Leaderboard", "Leaderboard", facts)


def _row(
    material: Material, rank: int | None, probe: ProbeResult, ends: tuple[float, float]
) -> Row:
    ahead, versus = None, ""
    if rank is not None and 1 < rank <= COMPARED:
        ahead, versus = _against_winner(material, probe)
    return Row(
        rank=rank,
        probe=probe,
        chosen=brief(probe.params),
        rate=material.images_per_second(probe),
        bar=interval_bar(probe, ends),
        ahead=ahead,
        versus=versus,
    )


def _against_winner(material: Material, probe: ProbeResult) -> tuple[float | None, str]:
    """Return how far the probe is ahead of the winner on the same rows, and the test's word on it."""
    frozen = next((model for model in material.judged if model.stage == "frozen"), None)
    if frozen is None:
        return None, ""
    try:
        found = load_probabilities(material.board.head_folder(probe), probe.rows)
    except OnepassError as error:
        material.notes.append(str(error))
        return None, ""
    correct = found.val_predicted == frozen.truth
    test = compare(probe.id, "winner", correct, frozen.correct)
    return test.gain, f"{points(test.gain)} ({test.verdict}, {p_value(test.p_value)})"


def interval_bar(
    probe: ProbeResult, ends: tuple[float, float]
) -> tuple[float, float, float] | None:
    """Return where an interval lies on the scale that all lines share; a floor line may be off it."""
    low, high = ends
    span = (high - low) or 1.0
    if not low <= probe.val_top1 <= high:
        return None
    shares = (probe.val_interval[0], probe.val_top1, probe.val_interval[1])
    first, middle, last = (5 + (BAR - 10) * (min(max(v, low), high) - low) / span for v in shares)
    return first, middle, last
