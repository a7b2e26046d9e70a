"""How the results compare, and what size, backbone and penalty do."""

from report.figures.choices import cost_figure, size_figure
from report.figures.paths import path_figures
from report.figures.standing import Standing, standing_figure
from report.material import Material
from report.sections.headline import floor_name, headline_numbers, published_results
from report.sections.section import Section


def build(material: Material) -> Section:
    """Return the figures for which there are results."""
    probes = material.board.ranked
    speeds = {probe.features: material.images_per_second(probe.features) for probe in probes}
    figures = [
        standing_figure(_standings(material)),
        size_figure(probes),
        cost_figure(probes, speeds),
        *path_figures(probes),
    ]
    found = [figure for figure in figures if figure]
    return Section("choices", "How the choices compare", "Comparison", {}, found)


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
        Standing("floor", floor_name(b.head, b.features_text), b.val_top1, b.val_interval)
        for b in material.board.baselines
    ]
    return [*ours, *theirs, *others, *floor]
