"""Where the time went: extraction, classification, fine-tuning."""

from collections import defaultdict
from dataclasses import dataclass

from onepass.report.artifacts import FeatureFile, devices_text
from onepass.report.context import Material
from onepass.report.figures.timing import Spent, time_figure
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


def build(material: Material) -> Section | None:
    """Return the speeds and times that were measured."""
    files = [file for file in material.files if file.rate]
    runs = _runs(material)
    probes = _probe_seconds(material)
    spent: list[Spent] = [("extract", name, s) for name, s in _jobs(files)]
    spent += [("classify", name or "floor lines", seconds) for name, _, seconds in probes]
    spent += [("finetune", run.name, run.seconds) for run in runs]
    if not spent:
        return None
    facts = {"files": files, "probes": probes, "runs": runs, "total": sum(s for *_, s in spent)}
    return Section("time", "Where the time went", "Time", facts, [time_figure(spent)])


def _jobs(files: list[FeatureFile]) -> list[tuple[str, float]]:
    """Return each pass over the pixels once, however many files came out of it."""
    jobs: dict[tuple, list[FeatureFile]] = defaultdict(list)
    for file in files:
        jobs[file.job].append(file)
    return [
        (
            f"{group[0].key}{f' and {len(group) - 1} more' if len(group) > 1 else ''}",
            max(f.seconds for f in group),
        )
        for group in jobs.values()
    ]


def _probe_seconds(material: Material) -> list[tuple[str, int, float]]:
    """Return features ("" for the floor lines), how many probes looked at them, and their seconds."""
    found: dict[str, list[float]] = defaultdict(list)
    for probe in material.board.results:
        found["" if probe.baseline else probe.features_text].append(probe.seconds)
    return [(name, len(seconds), sum(seconds)) for name, seconds in found.items()]


def _runs(material: Material) -> list[RunSpeed]:
    runs = []
    for run in material.runs:
        seconds = sum(float(row.get("seconds", 0.0)) for row in run.history)
        if seconds:
            images = run.rows(material.dataset) * len(run.history)
            rate = run.result.get("images_per_second") or images / seconds
            where = devices_text(run.result) or str(run.made.get("machine", ""))
            runs.append(RunSpeed(run.name, len(run.history), rate, seconds, where))
    return runs
