"""Speed and wall time of extraction, classification and fine-tuning."""

from collections import defaultdict
from dataclasses import dataclass

from onepass.report.context import ReportContext
from onepass.report.feature_files import FeatureFile, devices_text
from onepass.report.figures.timing import Spent, time_figure
from onepass.report.sections.finetuning import trained_rows
from onepass.report.sections.section import Section


@dataclass(frozen=True, slots=True)
class RunSpeed:
    """How fast a run trained.

    Attributes:
        name: Of the run.
        epochs: Finished.
        rate: Images per second.
        seconds: Of all epochs.
        machine: Where, and how busy its GPUs were.
    """

    name: str
    epochs: int
    rate: float
    seconds: float
    machine: str


def build(context: ReportContext) -> Section | None:
    """Return the speeds and times that were measured."""
    files = [file for file in context.files if file.rate]
    runs = _runs(context)
    probes = _probe_seconds(context)
    spent: list[Spent] = [("extract", name, s) for name, s in _forward_passes(files)]
    spent += [("classify", name or "baselines", seconds) for name, _, seconds in probes]
    spent += [("finetune", run.name, run.seconds) for run in runs]
    if not spent:
        return None
    facts = {"files": files, "probes": probes, "runs": runs, "total": sum(s for *_, s in spent)}
    return Section("time", "Where the time went", "Time", facts, [time_figure(spent)])


def _forward_passes(files: list[FeatureFile]) -> list[tuple[str, float]]:
    """Return each pass over the pixels once, however many files came out of it."""
    passes: dict[tuple, list[FeatureFile]] = defaultdict(list)
    for file in files:
        passes[file.forward_pass].append(file)
    return [
        (
            f"{group[0].key}{f' and {len(group) - 1} more' if len(group) > 1 else ''}",
            max(f.seconds for f in group),
        )
        for group in passes.values()
    ]


def _probe_seconds(context: ReportContext) -> list[tuple[str, int, float]]:
    """Return for each feature set ("" for the baselines) how many probes used it, and their seconds."""
    found: dict[str, list[float]] = defaultdict(list)
    for probe in context.board.results:
        found["" if probe.baseline else probe.features_text].append(probe.seconds)
    return [(name, len(seconds), sum(seconds)) for name, seconds in found.items()]


def _runs(context: ReportContext) -> list[RunSpeed]:
    runs = []
    for run in context.runs:
        result = run.result
        seconds = sum(row.seconds for row in result.history) if result else 0.0
        if result and seconds:
            epochs = len(result.history)
            images = trained_rows(run, context.dataset) * epochs
            rate = result.images_per_second or images / seconds
            where = devices_text(result.devices, result.gpu_use) or run.config.made_by.machine
            runs.append(RunSpeed(run.name, epochs, rate, seconds, where))
    return runs
