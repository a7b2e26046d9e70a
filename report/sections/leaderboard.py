"""Every probe, ranked, and whether it differs from the winner by a paired test."""

from dataclasses import dataclass

from onepass.classify.heads.base import brief
from onepass.classify.intervals import ClassShares, class_shares
from onepass.classify.leaderboard.board import ProbeResult
from onepass.classify.leaderboard.history import last_correction
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import METRICS, Verdict, compare, confusion_matrix, worst_classes
from onepass.classify.pipeline import compare_with_majority
from onepass.classify.protocol.scorings import count_scorings
from onepass.data.splits import shared_images
from onepass.report.context import ReportContext
from onepass.report.numbers import p_value, points
from onepass.report.sections.section import Section

COMPARED = 20  # lines that are compared with the winner: each reads a file of probabilities
SHOWN = 20  # classes
BAR = 96.0  # width of the drawing of an interval


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        rank: From 1; None for a baseline.
        probe: The result.
        chosen: Its hyper-parameters in words.
        rate: Images per second of the extraction of its features; 0 where it was not measured.
        bar: Its interval on a scale of 0 … BAR: (low, accuracy, high); None where it is off the scale.
        gain: Its validation accuracy less the winner's; None where it was not compared.
        comparison: That in words.
    """

    rank: int | None
    probe: ProbeResult
    chosen: str
    rate: float
    bar: tuple[float, float, float] | None
    gain: float | None
    comparison: str


def build(context: ReportContext) -> Section:
    """Return the table."""
    probes = [*context.board.ranked, *context.board.baselines]
    shown = [probe for probe in probes if not probe.baseline] or probes
    low = min(probe.val_interval[0] for probe in shown)
    high = max(probe.val_interval[1] for probe in shown)
    rows = [
        _row(context, rank if rank <= len(context.board.ranked) else None, probe, (low, high))
        for rank, probe in enumerate(probes, 1)
    ]
    facts = {
        "rows": rows,
        "top5": any(probe.val_top5 is not None for probe in probes),
        "rates": any(row.rate for row in rows),
        "unconverged": [row for row in rows if not row.probe.converged],
        "correction": last_correction(context.board, context.dataset),
        "shared": shared_images(context.dataset.content, context.dataset.split),
        "scorings": count_scorings(context.board.folder, context.dataset.digest),
        "metric": METRICS[context.board.metric],
        "positive": context.board.positive,
        "scores": [
            (metric.label, *map(metric.text, (found.value, found.low, found.high)))
            for name, metric in METRICS.items()
            if name != "top1" and (found := context.board.winner.scores.get(name))
        ],  # top-1 and its interval stand in the table above
        "classes": _classes(context),
        "majority": compare_with_majority(context.board, context.frozen.truth),
    }
    return Section("leaderboard", "Leaderboard", "Leaderboard", facts)


def _classes(context: ReportContext) -> list[tuple[str, ClassShares]]:
    """Return name, recall and precision of the classes, of many the SHOWN that are found least often."""
    confusion = confusion_matrix(
        context.frozen.truth, context.frozen.predicted, len(context.class_names)
    )
    shares = class_shares(confusion)
    shown = worst_classes(confusion, SHOWN) if len(shares) > SHOWN else range(len(shares))
    return [(context.class_names[k], shares[k]) for k in shown]


def _row(
    context: ReportContext, rank: int | None, probe: ProbeResult, ends: tuple[float, float]
) -> Row:
    gain, comparison = None, ""
    if rank is not None and 1 < rank <= COMPARED:
        gain, comparison = _against_winner(context, probe)
    return Row(
        rank=rank,
        probe=probe,
        chosen=brief(probe.params),
        rate=context.images_per_second(probe),
        bar=interval_bar(probe, ends),
        gain=gain,
        comparison=comparison,
    )


def _against_winner(context: ReportContext, probe: ProbeResult) -> tuple[float, str]:
    """Return the probe's validation accuracy less the winner's, and what McNemar's test says of it."""
    found = load_probabilities(context.board.head_folder(probe), probe.rows)
    frozen = context.frozen
    test = compare(probe.id, "winner", found.val_predicted == frozen.truth, frozen.correct)
    tie = "tie, " if test.verdict is Verdict.TIE else ""
    return test.gain, f"{points(test.gain)} ({tie}{p_value(test.p_value)})"


def interval_bar(
    probe: ProbeResult, ends: tuple[float, float]
) -> tuple[float, float, float] | None:
    """Return where an interval lies on the scale that all lines share; a baseline may be off it."""
    low, high = ends
    span = (high - low) or 1.0
    if not low <= probe.val_top1 <= high:
        return None
    shares = (probe.val_interval[0], probe.val_top1, probe.val_interval[1])
    first, middle, last = (5 + (BAR - 10) * (min(max(v, low), high) - low) / span for v in shares)
    return first, middle, last
