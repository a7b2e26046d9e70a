"""How to run it all again: commands, versions, digests, seeds, and the protocol."""

from typing import Any

from onepass.cache.provenance import made_by
from onepass.cache.rowfile import RowFile
from onepass.report.context import Material
from onepass.report.sections.section import Section


def build(material: Material) -> Section:
    """Return what another person needs."""
    pixels = RowFile.open(material.dataset.path)
    makings = [pixels.made]
    makings += sorted((file.made for file in material.files), key=_when)
    makings += sorted((dict(probe.made_by) for probe in material.board.results), key=_when)
    makings += [run.made for run in material.runs]
    now = made_by()
    facts = {
        "commands": list(dict.fromkeys(str(made.get("command", "")) for made in [*makings, now])),
        "versions": _versions(makings),
        "machines": sorted({str(made["machine"]) for made in makings if made.get("machine")}),
        "digests": _digests(material),
        "seeds": _seeds(material),
        "rows": material.winner.rows,
        "record": material.dataset.record,
        "created": now["created"],
        "missing": _missing(material),
        "notes": material.notes,
    }
    return Section("reproduce", "How to run it again", "Again", facts)


def _missing(material: Material) -> list[tuple[str, str]]:
    """Return what the page has no results for, and the command that makes each."""
    name, run = material.dataset.name, material.run
    known = [
        ("fine-tuned results", bool(material.runs), f"onepass finetune --dataset {name}"),
        ("an ensemble", bool(material.ensembles) or any(p.members for p in material.board.ranked),
         f"onepass classify ensemble --dataset {name}"),
        ("transferability scores", "transferability" in material.records,
         f"onepass classify transfer --dataset {name}"),
        ("label errors, near-duplicates and outliers", "inspection" in material.records,
         f"onepass classify inspect --dataset {name}"),
        ("the report\u2019s tables", "tables" in material.records,
         f"onepass finetune tables --dataset {name}"),
        ("the study of augmentations", "finetune/ablation" in material.records,
         f"onepass finetune ablate --dataset {name}"),
        ("what fine-tuning gained and lost by class", run is None or bool(run.errors),
         f"onepass finetune errors --run {name}/{run.name if run else ''}"),
    ]  # fmt: skip
    return [(what, command) for what, there, command in known if not there]


def _when(made: dict[str, Any]) -> str:
    return str(made.get("created", ""))


def _versions(makings: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return every package with each version that had a part in the results."""
    found: dict[str, dict[str, None]] = {}
    for made in makings:
        for name, number in made.get("versions", {}).items():
            found.setdefault(str(name), {})[str(number)] = None
    return [(name, ", ".join(numbers)) for name, numbers in found.items()]


def _digests(material: Material) -> list[tuple[str, str]]:
    inputs = [file.inputs for file in material.files]
    weights = {f"weights of {i.get('backbone')}": str(i.get("weights")) for i in inputs}
    return [
        (f"data set {material.dataset.name}", f"sha256:{material.dataset.digest}"),
        *((f"features {file.key}", f"sha256:{file.digest}") for file in material.files),
        *weights.items(),
    ]


def _seeds(material: Material) -> list[tuple[str, str]]:
    probes = {probe.seed for probe in material.board.results}
    seeds = [("selection split, heads and intervals", probes)]
    runs = {run.identity["seed"] for run in material.runs if "seed" in run.identity}
    seeds += [("order of the images and augmentation", runs)] if runs else []
    if (own := material.dataset.record.get("seed")) is not None:
        seeds.append(("split of the data set", {own}))
    return [(what, ", ".join(map(str, sorted(values)))) for what, values in seeds]
