"""The first screen: what won, by how much, whether that is real, what is still wrong, and what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from onepass.cache.commandline.advice import onepass_command
from onepass.classify.goals import RateGoal
from onepass.classify.leaderboard.board import ProbeResult
from onepass.classify.leaderboard.prediction_record import MemberRecord
from onepass.classify.metrics import Share, confused_pairs, confusion_matrix
from onepass.classify.pipeline import compare_best, compare_probes
from onepass.classify.text import gain_words
from onepass.data.record import PublishedResult
from onepass.report.context import ReportContext, probe_name
from onepass.report.names import feature_words
from onepass.report.numbers import interval, p_value, percent, points
from onepass.report.sections.section import Section

STAGES = ("frozen", "fine-tuned", "ensemble")


@dataclass(frozen=True, slots=True)
class Number:
    """One of the headline numbers.

    Attributes:
        stage: One of STAGES.
        name: What reached it; "" where it was not run.
        accuracy: Top-1 on the validation split, 0 … 1; None where it was not run.
        interval: Its 95 % interval; None where it was not run.
        published: Published results that it is comparable to.
    """

    stage: str
    name: str = ""
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    published: Sequence[PublishedResult] = ()


@dataclass(frozen=True, slots=True)
class Detected:
    """What the operating point gives on the validation split.

    Attributes:
        lead: The rate that is not promised: false alarms where a sensitivity is, else what is found.
        words: What it is a share of.
        rest: The other rate, of which model, and the threshold.
    """

    lead: Share
    words: str
    rest: str


@dataclass(frozen=True, slots=True)
class ModelToUse:
    """What the page is headed by.

    Attributes:
        name: The network, with its head or as fine-tuned.
        stage: In words.
        accuracy: Top-1 on the validation split, 0 … 1.
        interval: Its 95 % interval.
        tuned: Whether it is the fine-tuned network; baseline and runner-up are then those of the best probe.
    """

    name: str
    stage: str
    accuracy: float
    interval: tuple[float, float]
    tuned: bool = False


def build(context: ReportContext) -> Section:
    """Return the first screen."""
    numbers = headline_numbers(context)
    published = context.dataset.record.published
    facts = {
        "numbers": numbers,
        "compared": any(number.published for number in numbers),
        "baseline": _baseline(context),
        "verdict": _verdict(context),
        "detection": _detection(context),
        "gain": _gain(context),
        "errors": _errors(context),
        "next": _next(context),
        "used": _model_to_use(context),
        "rate": context.images_per_second(context.winner),
        "published": [line for line in published if line.stage not in STAGES],
        "notes": context.dataset.record.notes,
    }
    return Section("headline", "Result", "Result", facts)


def _model_to_use(context: ReportContext) -> ModelToUse:
    """Return the best probe, or the fine-tuned network where that is to be used."""
    winner = context.winner
    if context.compared is None or context.chosen is not context.tuned:
        return ModelToUse(
            probe_name(winner), "frozen features", winner.val_top1, winner.val_interval
        )
    result = context.compared.result
    started_from = next((one for one in context.board.results if one.id == result.probe), winner)
    assert result.val_top1 is not None and result.val_interval is not None
    network = " & ".join(map(feature_words, started_from.features)) or probe_name(started_from)
    return ModelToUse(
        f"{network}, fine-tuned,", "fine-tuned", result.val_top1, result.val_interval, tuned=True
    )


def headline_numbers(context: ReportContext) -> list[Number]:
    """Return our best result of each stage, beside what others published of it."""
    published = context.dataset.record.published
    numbers = [
        replace(number, published=[one for one in published if one.stage == number.stage])
        for number in (_frozen(context), _tuned(context), _ensemble(context))
    ]
    return [number for number in numbers if number.accuracy is not None or number.published]


def _of_probe(stage: str, probes: Sequence[ProbeResult]) -> Number:
    """Return the number of the first probe."""
    if not probes:
        return Number(stage)
    return Number(stage, probe_name(probes[0]), probes[0].val_top1, probes[0].val_interval)


def _frozen(context: ReportContext) -> Number:
    return _of_probe("frozen", [probe for probe in context.board.ranked if not probe.members])


def _tuned(context: ReportContext) -> Number:
    if context.compared is None:
        return Number("fine-tuned")
    result = context.compared.result
    return Number("fine-tuned", context.compared.run.name, result.val_top1, result.val_interval)


def _ensemble(context: ReportContext) -> Number:
    """Return the ensemble of fine-tuned runs that selection chooses, else the best one of frozen probes.

    One without a selection accuracy counts where no other has one; of equal ones the latest.
    """
    if context.ensembles:
        latest_first = reversed(context.ensembles)
        best = max(
            latest_first, key=lambda one: -1 if one.selection_top1 is None else one.selection_top1
        )
        return Number("ensemble", _members(best.members), best.val_top1, best.val_interval)
    return _of_probe("ensemble", [probe for probe in context.board.ranked if probe.members])


def _members(members: Sequence[MemberRecord]) -> str:
    """Name up to two members and count more, which are listed under fine-tuning."""
    if len(members) <= 2:
        return " + ".join(_member(member) for member in members)
    runs = sum(bool(member.views) for member in members)  # a probe has no views of its own
    kinds = [(runs, "fine-tuned"), (len(members) - runs, "frozen")]
    counts = " and ".join(f"{count} {kind}" for count, kind in kinds if count)
    return f"average of {counts} models"


def _member(member: MemberRecord) -> str:
    views = len(member.views)
    return f"{member.name} ({views} views)" if views > 1 else member.name


def _verdict(context: ReportContext) -> str:
    """Say by how much the winner leads, and whether a paired test confirms it."""
    truth = context.dataset.labels[context.dataset.rows("val")]
    test = compare_best(context.board, truth)
    if test is None:
        return ""
    runner_up = probe_name(context.board.find(test.second))
    ahead = f"{points(test.gain)} points against {runner_up}"
    return f"{ahead}: {test.verdict} (McNemar, {p_value(test.p_value)})"


def _baseline(context: ReportContext) -> str:
    """Say how the winner does against the best that takes no network, and whether a paired test confirms it."""
    baselines = context.board.baselines
    if not baselines:
        return ""
    best = max(baselines, key=lambda probe: probe.val_top1)
    test = compare_probes(context.board, context.winner, best, context.frozen.truth)
    beside = f"{percent(best.val_top1)} right: {points(test.gain)} points, {test.verdict}"
    return f"{probe_name(best)}, {beside} (McNemar, {p_value(test.p_value)})"


def _next(context: ReportContext) -> list[tuple[str, str]]:
    """Return what to do next, and the command of each."""
    flags = ("--dataset", context.dataset.name)
    steps = [("new pictures", onepass_command("predict", context.chosen_name, "NEW_PICTURES"))]
    if context.inspection is None:
        command = onepass_command("classify", "inspect", *flags)
        steps.insert(0, ("look for wrong labels and duplicates", command))
    elif not context.runs:
        steps.insert(0, ("train the network as well", onepass_command("finetune", *flags)))
    return steps


def _detection(context: ReportContext) -> Detected | None:
    """Return what an inspector asks first: how many are found, at how many false alarms."""
    point = context.point
    if point is None or point.validation is None:
        return None
    found, alarms = point.validation.sensitivity, point.validation.false_alarms
    if found.value is None or alarms.value is None:
        return None
    names, column = context.class_names, context.dataset.class_ids.index(point.positive)
    name = f"“{names[column]}”"
    others = f"“{names[1 - column]}”" if len(names) == 2 else "all others"
    kind, rate = "", str(point.goal)
    if isinstance(point.goal, RateGoal):
        kind, rate = point.goal.kind, f"{100 * point.goal.share:g}\u00a0%"
    lead, words = found, f"of {name} are found at {rate} {kind}".rstrip()
    rest = f"false alarms: {_with_interval(alarms)} of {others}"
    if kind == "sensitivity":
        lead, rest = alarms, f"found: {_with_interval(found)} of {name}"
        words = f"of {others} are false alarms when {rate} of {name} are to be found"
    stage = next(stage for stage, its in context.points.items() if its is point)
    chosen = f"{stage}, threshold {point.threshold:.3g}, chosen on the held-out training images"
    return Detected(lead, words, f"{rest}; {chosen}")


def _with_interval(share: Share) -> str:
    return f"{percent(share.value)} ({interval(share.interval)})"


def _gain(context: ReportContext) -> str:
    """Say what fine-tuning gained over the probe it started from."""
    if context.compared is None:
        return ""
    result = context.compared.result
    assert result.gain is not None
    kept = "no epoch did better than the start; " if result.kept_start and result.history else ""
    if result.p_value is None:
        gain = f"{points(result.gain)} points against its frozen probe"
    else:
        gain = f"{gain_words(result.gain, result.p_value)} (McNemar, {p_value(result.p_value)})"
    beaten = "; no better than the winner, which is the model to use"
    return f"{kept}{gain}{'' if context.tuned_wins or kept else beaten}"


def _errors(context: ReportContext) -> dict[str, Any]:
    """Count the errors of the model to use, and name its most confused pair."""
    model, names = context.chosen, context.class_names
    pairs = confused_pairs(confusion_matrix(model.truth, model.predicted, len(names)), 1)
    return {
        "stage": model.stage,
        "count": int((~model.correct).sum()),
        "rows": len(model.truth),
        "pair": next(((names[i], names[j], count) for i, j, count in pairs), None),
    }
