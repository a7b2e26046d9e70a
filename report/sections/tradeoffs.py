"""How the results compare, and what size, backbone and penalty do."""

from onepass.classify.heads.base import brief
from onepass.classify.leaderboard.pareto import board_front
from onepass.report.context import Material, probe_name
from onepass.report.figures.comparison import Standing, standing_figure
from onepass.report.figures.paths import path_figures
from onepass.report.figures.tradeoffs import cost_figure, size_figure
from onepass.report.optional import Record, read_optional
from onepass.report.sections.headline import headline_numbers, published_results
from onepass.report.sections.section import Section


def build(material: Material) -> Section:
    """Return the figures for which there are results."""
    probes = material.board.ranked
    front = board_front(material.board, material.costs)
    figures = [
        standing_figure(_standings(material)),
        size_figure(probes),
        cost_figure(probes, material.costs, front),
        *path_figures(probes),
    ]
    found = [figure for figure in figures if figure]
    facts = {"sweeps": [_sweep_line(record) for record in read_sweeps(material)]}
    return Section("tradeoffs", "How the choices compare", "Comparison", facts, found)


def read_sweeps(material: Material) -> list[Record]:
    """Return what `onepass classify sweep` left, for this state of the data set."""
    paths = sorted((material.board.folder / "sweeps").glob("*.json"))
    digest = material.dataset.digest
    found = [read_optional(path, digest, material.notes) for path in paths]
    return [record for record in found if record]


def _sweep_line(record: Record) -> Record:
    """Return a sweep in numbers: its best head by the selection split, and what it cost."""
    judged = [head for head in record["heads"] if head.get("best")]
    best = min(judged, key=lambda head: head["rank"]) if judged else None
    return {
        "head": record["head"], "features": " & ".join(record["features"]), "heads": len(record["heads"]),
        "params": brief(best["params"]) if best else "", "seconds": float(record["seconds"]),
        "best": best["best"] if best else {"epochs": None, "accuracy": None, "train_accuracy": None},
    }  # fmt: skip


def _standings(material: Material) -> list[Standing]:
    """Return our results, those of others, and the floor lines."""
    numbers = headline_numbers(material)
    ours = [
        Standing("ours", f"{n.stage}, ours", n.accuracy, n.interval)
        for n in numbers
        if n.accuracy is not None
    ]
    theirs = [
        Standing(
            "published", f"{n.stage}, {material.reference['title'].lower()}", n.reference / 100
        )
        for n in numbers
        if n.reference is not None
    ]
    others = [
        Standing("published", str(p.get("method", "published")), p["accuracy"] / 100)
        for p in published_results(material)
    ]
    floor = [
        Standing("floor", probe_name(b), b.val_top1, b.val_interval)
        for b in material.board.baselines
    ]
    return [*ours, *theirs, *others, *floor]
