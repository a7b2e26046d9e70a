"""The first screen: who won, by how much, at what cost, and what is still wrong."""

from dataclasses import dataclass
from typing import Any

from onepass.classify.metrics import confused_pairs, confusion_matrix, verdict
from onepass.classify.pipeline import compare_best
from onepass.report.context import Material, probe_name
from onepass.report.numbers import p_value, points
from onepass.report.sections.section import Section

STAGES = ("frozen", "fine-tuned", "ensemble")
Ours = tuple[str, float | None, tuple[float, float] | None]  # name, accuracy, interval
NONE: Ours = ("", None, None)


@dataclass(frozen=True, slots=True)
class Number:
    """One of the headline numbers.

    Attributes:
        stage: "frozen", "fine-tuned" or "ensemble".
        what: What gave it; "" where it was not run.
        accuracy: Ours, 0 … 1; None where it was not run.
        interval: Its 95 % interval.
        reference: The accuracy of the report that is followed, in %; None where there is none.
        method: How it got that.
    """

    stage: str
    what: str
    accuracy: float | None
    interval: tuple[float, float] | None
    reference: float | None
    method: str


def build(material: Material) -> Section:
    """Return the first screen."""
    published = published_results(material)
    facts = {
        "numbers": headline_numbers(material),
        "verdict": _verdict(material),
        "gain": _gain(material),
        "wrong": _wrong(material),
        "name": probe_name(material.winner),
        "rate": material.images_per_second(material.winner),
        "published": published,
        "reference": material.reference,
        "notes": [str(note) for note in material.dataset.record.get("notes", [])],
    }
    return Section("headline", "Result", "Result", facts)


def headline_numbers(material: Material) -> list[Number]:
    """Return ours beside the report's, for each stage that either has.

    Its third number was measured on the test images; it stands beside our ensembles.
    """
    theirs = {line["stage"]: line for line in material.reference.get("lines", [])}
    numbers = []
    for stage, ours in zip(STAGES, (_frozen(material), _tuned(material), _together(material)), strict=True):  # fmt: skip
        line = theirs.get(stage)
        if ours != NONE or line:
            words = (line["accuracy"], line["method"]) if line else (None, "")
            numbers.append(Number(stage, *ours, *words))
    return numbers


def _frozen(material: Material) -> Ours:
    single = [probe for probe in material.board.ranked if not probe.members]
    return (probe_name(single[0]), single[0].val_top1, single[0].val_interval) if single else NONE


def _tuned(material: Material) -> Ours:
    run = material.run
    return (run.name, run.result["val_top1"], run.result.get("val_interval")) if run else NONE


def _together(material: Material) -> Ours:
    """Return the last ensemble of fine-tuned runs, else the best of frozen probes on the selection split."""
    if material.ensembles:
        last = material.ensembles[-1]
        return _members(last["members"]), last["val_top1"], last.get("val_interval")
    joined = [probe for probe in material.board.ranked if probe.members]
    return (probe_name(joined[0]), joined[0].val_top1, joined[0].val_interval) if joined else NONE


def _members(members: list[dict[str, Any]]) -> str:
    """Name two members; count more: they are listed below, under fine-tuning."""
    if len(members) <= 2:
        return " + ".join(str(member["name"]) for member in members)
    runs = sum(bool(member["views"]) for member in members)  # a probe looks at no image itself
    return f"{runs} fine-tuned and {len(members) - runs} frozen, weighed together"


def published_results(material: Material) -> list[dict[str, Any]]:
    """Return what others reported, where it is stated as the data set's record should: in %."""
    lines = material.dataset.record.get("published") or []
    return [
        line
        for line in lines
        if isinstance(line, dict) and isinstance(line.get("accuracy"), int | float)
    ]


def _verdict(material: Material) -> str:
    """Say by how much the winner leads, and whether a paired test believes it."""
    test = compare_best(material.board, material.dataset.labels[material.dataset.rows("val")])
    if test is None:
        return ""
    rival = material.board.find(test.second)
    against = f"{points(test.gain)} points against the runner-up, {probe_name(rival)}"
    return f"{against}: {test.verdict} (McNemar, {p_value(test.p_value)})"


def _gain(material: Material) -> str:
    """Say what fine-tuning gained over the probe it started from."""
    if material.run is None or material.run.result.get("probe_top1") is None:
        return ""
    result, p = material.run.result, material.run.result.get("p_value")
    gain = result["val_top1"] - result["probe_top1"]
    text = f"{points(gain)} points over its frozen probe"
    return text if p is None else f"{text}: {verdict(gain, p)} (McNemar, {p_value(p)})"


def _wrong(material: Material) -> dict[str, Any]:
    """Say what is still wrong: how many images, and the pair that is confused most."""
    if not material.judged:
        return {}
    model, names = material.judged[-1], material.class_names
    counts = confusion_matrix(model.truth, model.predicted, len(names))
    pairs = confused_pairs(counts, 1)
    return {
        "stage": model.stage,
        "count": int((~model.correct).sum()),
        "rows": len(model.truth),
        "pair": next(((names[i], names[j], count) for i, j, count in pairs), None),
    }
