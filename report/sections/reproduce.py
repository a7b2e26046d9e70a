"""What it takes to reproduce the results: commands, versions, digests, seeds, and the protocol."""

from operator import attrgetter

from onepass.cache.commandline.advice import onepass_command
from onepass.cache.made_by import MadeBy
from onepass.cache.rowfile import RowFile
from onepass.report.context import ReportContext
from onepass.report.sections.section import Section


def build(context: ReportContext) -> Section:
    """Return what another person needs."""
    provenance = _provenance(context)
    now = MadeBy.now()
    facts = {
        "commands": list(dict.fromkeys(made_by.command for made_by in [*provenance, now])),
        "versions": _versions(provenance),
        "machines": sorted({made_by.machine for made_by in provenance}),
        "digests": _digests(context),
        "seeds": _seeds(context),
        "rows": context.winner.rows,
        "record": context.dataset.record,
        "created": now.created,
        "missing": _missing(context),
        "notes": context.notes,
    }
    return Section("reproduce", "How to reproduce it", "Reproduce", facts)


def _provenance(context: ReportContext) -> list[MadeBy]:
    """Return command, time, machine and versions of everything on the page, in order."""
    created = attrgetter("created")
    extracted = [file.made_by for file in context.files]
    classified = [probe.made_by for probe in context.board.results]
    analysed = [
        found.made_by
        for found in (context.transferability, context.inspection, context.folds, context.curve)
        if found
    ]
    return [
        RowFile.open(context.dataset.path).made_by,
        *sorted(extracted, key=created),
        *sorted([*classified, *analysed], key=created),
        *(run.config.made_by for run in context.runs),
        *(ensemble.made_by for ensemble in context.ensembles),
    ]


def _missing(context: ReportContext) -> list[tuple[str, str]]:
    """Return what the page has no results for, and the command that makes each."""
    name, compared = context.dataset.name, context.compared
    ensembles = bool(context.ensembles) or any(p.members for p in context.board.ranked)
    known: list[tuple[str, object, str]] = [
        ("fine-tuned results", context.runs, "finetune"),
        ("an ensemble", ensembles, "classify ensemble"),
        ("cross-validation in folds", context.folds, "classify --folds 5"),
        ("a learning curve", context.curve, "classify curve"),
        ("transferability scores", context.transferability, "classify transfer"),
        ("label errors, duplicates and outliers", context.inspection, "classify inspect"),
        ("an ablation of the augmentation", context.ablation, "finetune ablate"),
    ]
    missing = [
        (what, onepass_command(*words.split(), "--dataset", name))
        for what, there, words in known
        if not there
    ]
    if compared and not compared.errors:
        command = onepass_command("finetune", "errors", "--run", f"{name}/{compared.run.name}")
        missing.append(("what fine-tuning gained and lost by class", command))
    return missing


def _versions(provenance: list[MadeBy]) -> list[tuple[str, str]]:
    """Return every package with each of its versions that had a part in the results."""
    found: dict[str, dict[str, None]] = {}
    for made_by in provenance:
        for name, version in made_by.versions.items():
            found.setdefault(name, {})[version] = None
    return [(name, ", ".join(versions)) for name, versions in found.items()]


def _digests(context: ReportContext) -> list[tuple[str, str]]:
    weights = {f"weights of {file.key.backbone}": file.key.weights for file in context.files}
    return [
        (f"data set {context.dataset.name}", f"sha256:{context.dataset.digest}"),
        *((f"features {file.key}", f"sha256:{file.digest}") for file in context.files),
        *weights.items(),
    ]


def _seeds(context: ReportContext) -> list[tuple[str, str]]:
    probes = {probe.seed for probe in context.board.results}
    seeds = [("selection split, heads and intervals", probes)]
    if context.runs:
        runs = {run.identity.seed for run in context.runs}
        seeds.append(("order of the images and augmentation", runs))
    if (own := context.dataset.record.seed) is not None:
        seeds.append(("split of the data set", {own}))
    return [(what, ", ".join(map(str, sorted(values)))) for what, values in seeds]
