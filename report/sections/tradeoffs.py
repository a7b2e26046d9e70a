"""How the results compare, and what input size, backbone and hyper-parameters do."""

from dataclasses import dataclass

from onepass.classify.heads.base import brief
from onepass.classify.search.sweep_record import SweepRecord
from onepass.report.context import ReportContext, probe_name
from onepass.report.figures.comparison import ComparedResult, comparison_figure
from onepass.report.figures.search import search_figures
from onepass.report.figures.tradeoffs import cost_figure, size_figure
from onepass.report.sections.headline import headline_numbers
from onepass.report.sections.section import Section


@dataclass(frozen=True, slots=True)
class SweepLine:
    """A sweep of many heads, and its best head by the images held out.

    Attributes:
        head: Kind of head.
        features: What they were trained on.
        heads: How many.
        params: Hyper-parameters of the best one, in words.
        epochs: Of the best one; None where none was evaluated, as the next two.
        training, selection: Its accuracy there, 0 … 1.
        seconds: Of the sweep.
    """

    head: str
    features: str
    heads: int
    params: str
    epochs: float | None
    training: float | None
    selection: float | None
    seconds: float


def build(context: ReportContext) -> Section:
    """Return the figures for which there are results, and the sweeps."""
    probes = context.board.ranked
    figures = [
        comparison_figure(_results(context)),
        size_figure(probes),
        cost_figure(probes, context.costs),
        *search_figures(probes),
    ]
    shown = [figure for figure in figures if figure]
    facts = {"sweeps": [_sweep_line(sweep) for sweep in context.sweeps]}
    return Section("tradeoffs", "Comparison and trade-offs", "Trade-offs", facts, shown)


def _sweep_line(sweep: SweepRecord) -> SweepLine:
    best = sweep.best.best
    return SweepLine(
        head=sweep.head,
        features=" & ".join(sweep.features),
        heads=len(sweep.heads),
        params=brief(sweep.best.params) if best else "",
        epochs=best.epochs if best else None,
        training=best.train_accuracy if best else None,
        selection=best.accuracy if best else None,
        seconds=sweep.seconds,
    )


def _results(context: ReportContext) -> list[ComparedResult]:
    """Return our best result of each stage, published ones, and the baselines."""
    ours = [
        ComparedResult("ours", f"{number.stage}, ours", number.accuracy, number.interval)
        for number in headline_numbers(context)
        if number.accuracy is not None
    ]
    published = [
        ComparedResult("published", f"{line.method}, {line.source}", line.accuracy / 100)
        for line in context.dataset.record.published
    ]
    baselines = [
        ComparedResult("baseline", probe_name(probe), probe.val_top1, probe.val_interval)
        for probe in context.board.baselines
    ]
    return [*ours, *published, *baselines]
