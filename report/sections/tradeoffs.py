"""How the results compare, and what input size, backbone and hyper-parameters do."""

from onepass.classify.heads.base import brief
from onepass.report.context import ReportContext, probe_name
from onepass.report.figures.comparison import ComparedResult, comparison_figure
from onepass.report.figures.search import search_figures
from onepass.report.figures.tradeoffs import cost_figure, size_figure
from onepass.report.sections.headline import headline_numbers
from onepass.report.sections.section import Section


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
    facts = {"sweeps": context.sweeps, "brief": brief}
    return Section("tradeoffs", "Comparison and trade-offs", "Trade-offs", facts, shown)


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
