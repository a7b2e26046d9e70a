"""What a person reads at the end of a command."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onepass.cache.commandline.advice import command_of, onepass_command
from onepass.cache.commandline.table import table
from onepass.cache.commandline.terminal import one_line
from onepass.cache.progress import counted, human_seconds

if TYPE_CHECKING:
    from onepass.classify.ensemble import EnsembleResult
    from onepass.classify.intervals import Difference
    from onepass.classify.leaderboard.board import ProbeResult
    from onepass.classify.leaderboard.history import Correction
    from onepass.classify.metrics import Comparison, Share
    from onepass.classify.operating_points import OperatingPoint
    from onepass.classify.pipeline import ClassifyResult
    from onepass.classify.prior import Prior
    from onepass.classify.search.sweep import SweepsResult

SHOWN = 5  # heads of a sweep, classes of a mix


def classify_text(result: "ClassifyResult") -> str:
    """Return the leaderboard as a table, with what a reader needs to interpret it."""
    from onepass.classify.analysis.series import series_words

    lines = [f"{result.dataset}: {result.classes} classes, {counted(result.ran, 'probe')} run, {result.reused} cached", ""]  # fmt: skip
    rows = [(*_row(str(rank), p), _cost(p, result)) for rank, p in enumerate(result.results, 1)]
    rows += [(*_row("baseline", p), _cost(p, result)) for p in result.baselines]
    lines += [*table([_header(result.results[0]), *rows]), ""]
    if result.comparison:
        names = _names((*result.results, *result.baselines))
        lines.append(f"Winner: {winner_text(result.comparison, result.difference, names)}")
    if result.majority:
        lines.append(majority_text(result.majority, result.results[0].val_top1))
    if result.point:
        lines.append(one_line(operating_point_text(result.point)))
    if result.correction:
        lines.append(f"Correction: {correction_text(result.correction)}")
    if result.front:
        lines.append(
            "* on the Pareto front: no other is both cheaper to extract and better on the selection split."
        )
    if unsettled := [probe.id for probe in result.results if not probe.converged]:
        lines.append(f"Did not converge: {', '.join(unsettled)}")
    lines += [
        f"Published: {paper.accuracy} % {paper.method} ({paper.source})"
        for paper in result.published
    ]
    lines.append(_calibration(result.results[0]))
    lines.append(f"Protocol: {result.protocol}.")
    lines += _scorings(result)
    lines += [f"Note: {note}" for note in result.notes]
    if result.series:
        lines.append(f"Note: {series_words(result.dataset, result.series)}")
    lines += [
        f"Note: {counted(count, 'image')} of {where.replace(' in ', ' lies in ' if count == 1 else ' lie in ')} as well; accuracies are too high there."
        for where, count in result.shared.items()
    ]
    split = "test" if result.results[0].rows.test else "val"
    lines += [
        f"Files: {result.leaderboard}, heads and probabilities in {result.leaderboard.parent / 'heads'}",
        f"Next: {command_of('finetune', result.dataset)}",
        f"      {onepass_command('predict', result.dataset, '--split', split)}",
    ]
    return "\n".join(lines)


def correction_text(correction: "Correction") -> str:
    """Return what a change of the data set was worth, in a sentence."""
    left_out = f" ({correction.relabelled:,} with a changed label left out)" * bool(
        correction.relabelled
    )
    return (
        f"{correction.probe}: {100 * correction.before_top1:.1f} % before the data set changed ({correction.before[:8]}), "
        f"{100 * correction.after_top1:.1f} % now, on the {counted(correction.comparison.rows, 'validation image')} "
        f"with the same label in both{left_out}; mid-p McNemar {p_value(correction.comparison.p_value)}"
    )


def operating_point_text(point: "OperatingPoint") -> str:
    """Return what an operating point is and gives, in a sentence."""
    from onepass.classify.goals import CostGoal
    from onepass.classify.operating_points import mean_cost

    odds = point.prior_odds
    parts = [
        f"Operating point {point.goal}: {point.name} from a probability of {point.threshold_in_use:.3g} on"
    ]
    if found := point.validation:
        precision = share_text(found.precision)
        if odds != 1 and found.precision.rows:
            true = odds * found.true_positive
            precision = f"{percent(true / (true + found.false_positive))} at the mix in use"
        parts.append(
            f"on val {share_text(found.sensitivity)} are found, with {share_text(found.false_alarms)} false alarms "
            f"among the others and a precision of {precision}"
        )
        if isinstance(point.goal, CostGoal):
            parts.append(f"mean cost {mean_cost(point.goal, found, odds):.3g}")
    chosen = (
        f"chosen on {point.positives:,} positive and {point.negatives:,} negative selection rows"
    )
    if point.expected:
        low, high = point.expected
        chosen += f", which promise {percent(low)} to {percent(high)} for new images"
    return "; ".join([*parts, chosen]) + "."


def prior_text(prior: "Prior", class_names: Sequence[str]) -> str:
    """Return the mix of classes in use, and whence it is known, in a sentence; the commonest classes of many."""
    if not prior.used:
        return "The mix of classes in use is to be estimated."
    order = sorted(range(len(prior.used)), key=lambda k: -prior.used[k])
    parts = [f"{class_names[k]} {100 * prior.used[k]:.3g} %" for k in order[:SHOWN]]
    more = f" and {len(order) - SHOWN:,} more" if len(order) > SHOWN else ""
    origin = f"estimated on {counted(prior.estimated_on, 'image')}"
    return (
        f"Probabilities are for the mix of classes in use, {'as given' if not prior.estimated_on else origin}: "
        f"{', '.join(parts)}{more}."
    )


def share_text(share: "Share") -> str:
    """Return a share with its interval as `95.0 % (91.2 … 97.3)`; `none` where there are no rows."""
    if share.value is None or share.interval is None:
        return "none"
    low, high = share.interval
    return f"{percent(share.value)} ({100 * low:.1f} … {100 * high:.1f})"


def ensemble_text(result: "EnsembleResult") -> str:
    """Return the ensembles, what they are made of and whether they beat their best member."""
    lines = [f"{result.dataset}: {counted(len(result.ensembles), 'ensemble')}", ""]
    rows = [_row("", line)[1:] for line in (*result.ensembles, *result.members)]
    lines += [*table([_header(result.members[0])[1:-1], *rows]), ""]
    names = _names((*result.ensembles, *result.members))
    for line, test in zip(result.ensembles, result.comparisons, strict=True):
        parts = " + ".join(f"{weight:.2f} × {member}" for member, weight in line.members.items())
        lines += [
            f"{line.id} = {parts}",
            f"  top-1: {_comparison(test, names)}",
            f"  {_calibration(line)}",
        ]
    split = "test" if result.members[0].rows.test else "val"
    lines.append(f"Winner of the leaderboard: {result.winner} ({result.leaderboard})")
    if result.point:
        lines.append(one_line(operating_point_text(result.point)))
    lines += [
        f"Next: {onepass_command('predict', result.dataset, '--split', split)}",
    ]
    return "\n".join(lines)


def sweep_text(result: "SweepsResult") -> str:
    """Return the best heads of each sweep, and how the chosen one does."""
    from onepass.classify.heads.base import brief

    lines = []
    for record, probe in zip(result.sweeps, result.probes, strict=True):
        rungs = ", ".join(f"{rung.heads} to epoch {rung.epoch:.3g}" for rung in record.rungs)
        lines += [
            f"{record.features_text}: {len(record.heads)} {record.head} heads "
            f"({rungs}), {human_seconds(record.seconds)}",
            "",
        ]
        ranked = sorted(record.heads, key=lambda head: head.rank)
        rows = [
            (
                str(head.rank),
                brief({**head.params, "epochs": head.best.epochs}),
                percent(head.best.train_accuracy),
                percent(head.best.accuracy),
            )
            for head in ranked[:SHOWN]
            if head.best
        ]
        low, high = (100 * bound for bound in probe.val_interval)
        lines += [
            *table([("#", "head", "training top-1", "selection top-1"), *rows]),
            "",
            f"Chosen: {brief(probe.params)} ({probe.id}), refitted on all training rows: "
            f"val top-1 {percent(probe.val_top1)} ({low:.1f} … {high:.1f})",
        ]
    lines.append(f"Files: {', '.join(str(path) for path in result.paths)}; {result.leaderboard}")
    lines.append(f"Next: {command_of('finetune', result.dataset)}")
    return "\n".join(lines)


def _header(probe: "ProbeResult") -> tuple[str, ...]:
    from onepass.classify.metrics import METRICS

    selection = (
        "selection" if probe.metric == "top1" else f"selection {METRICS[probe.metric].label}"
    )
    return (
        "#",
        "features",
        "head",
        "chosen",
        selection,
        *([] if probe.metric == "top1" else [f"val {METRICS[probe.metric].label} (95 %)"]),
        "val top-1 (95 %)",
        "top-5",
        "time",
        "extraction",
    )


def _row(rank: str, probe: "ProbeResult") -> tuple[str, ...]:
    from onepass.classify.heads.base import brief  # scikit-learn: too slow for --help
    from onepass.classify.metrics import METRICS

    low, high = (100 * bound for bound in probe.val_interval)
    seen = f" ×{probe.scoring}" if probe.scoring > 1 else ""
    return (
        rank,
        _features(probe),
        probe.head_text,
        brief(probe.params) or "-",
        METRICS[probe.metric].text(probe.value),
        *([] if probe.metric == "top1" else [_score(probe)]),
        f"{percent(probe.val_top1)} ({low:.1f} … {high:.1f}){seen}",
        "-" if probe.val_top5 is None else percent(probe.val_top5),
        f"{probe.seconds:.1f} s" if probe.seconds < 10 else human_seconds(probe.seconds),
    )


def _score(probe: "ProbeResult") -> str:
    """Return the metric that was chosen by, on the validation split."""
    from onepass.classify.metrics import METRICS

    found, metric = probe.scores.get(probe.metric), METRICS[probe.metric]
    if found is None:
        return "-"
    return f"{metric.text(found.value)} ({metric.text(found.low)} … {metric.text(found.high)})"


def _features(probe: "ProbeResult") -> str:
    return f"{len(probe.members)} probes" if probe.members else probe.features_text or "none"


def _names(probes: Sequence["ProbeResult"]) -> dict[str, str]:
    return {probe.id: f"{_features(probe)} {probe.head_text}" for probe in probes}


def _cost(probe: "ProbeResult", result: "ClassifyResult") -> str:
    """Return the extraction cost, with a mark where it lies on the Pareto front."""
    cost = result.costs.get(probe.id)
    if cost is None or probe.baseline:
        return "-"
    return f"{cost:.2f} ms" + (" *" if probe.id in result.front else "")


def _calibration(probe: "ProbeResult") -> str:
    text = f"Calibration of {probe.id}: temperature {probe.temperature:.2f}"
    if probe.calibration is None:
        return text + "."
    before, after = percent(probe.calibration.before), percent(probe.calibration.after)
    return f"{text}; expected calibration error on val {before} before, {after} after."


def _scorings(result: "ClassifyResult") -> list[str]:
    """Say how often the validation split was scored, and which probes are not ranked."""
    times, models = result.scorings.times, result.scorings.models
    lines = [
        f"The validation split has been scored {counted(times, 'time')}, for {counted(models, 'model')} (scorings.jsonl)."
    ]
    if any(probe.scoring > 1 for probe in (*result.results, *result.baselines)):
        lines.append("×N: the Nth model of that head on these features to be scored on val.")
    if result.other_seeds:
        kept = ", ".join(f"seed {seed}: {count}" for seed, count in result.other_seeds.items())
        lines.append(f"Not ranked, because they were selected on other rows: probes of {kept}.")
    if result.other_rows:
        other = "on the selection split" if result.results[0].rows.select == "folds" else "by folds"
        lines.append(
            f"Not ranked, because they were selected {other}: {counted(result.other_rows, 'probe')}."
        )
    if result.other_metrics:
        kept = ", ".join(f"{metric}: {count}" for metric, count in result.other_metrics.items())
        lines.append(f"Not ranked, because they were chosen by another metric: probes by {kept}.")
    return lines


def winner_text(test: "Comparison", found: "Difference | None", names: dict[str, str]) -> str:
    """Return whether a winner beats its rival, by the metric that was chosen by or by top-1."""
    if found is None:
        return _comparison(test, names)
    metric = found.metric
    return (
        f"{names[test.first]} ({test.first}), {metric.label} {metric.text(found.first)} against "
        f"{metric.text(found.second)} of {names[test.second]} on {test.rows:,} val rows: the difference is "
        f"{found.low:+.3f} … {found.high:+.3f}, {p_value(found.p_value)}, {found.verdict}."
    )


def majority_text(test: "Comparison", top1: float) -> str:
    """Return whether the winner is right more often than the answer that is always the largest class."""
    return (
        f"Classes are uneven: always the largest class is right on {percent(top1 - test.gain)} of val, the winner "
        f"on {percent(top1)}; mid-p McNemar {p_value(test.p_value)}, {test.verdict}."
    )


def _comparison(test: "Comparison", names: dict[str, str]) -> str:
    return (
        f"{names[test.first]} ({test.first}), {100 * test.gain:+.1f} points against {names[test.second]}: "
        f"of {test.rows:,} val rows, only the first is right on {test.only_first:,} and only the second "
        f"on {test.only_second:,}; mid-p McNemar {p_value(test.p_value)}, {test.verdict}."
    )


def percent(share: float) -> str:
    """Return a share as `59.4 %`."""
    return f"{100 * share:.1f} %"


def p_value(p: float) -> str:
    """Return a p-value as `p = 0.16` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def gain_words(gain: float, p: float) -> str:
    """Return a difference of two accuracies, 0 … 1, in words that follow on with "its probe".

    Args:
        gain: Accuracy of a network less that of the probe that it started from.
        p: McNemar's, of the two.
    """
    from onepass.classify.metrics import Verdict, verdict

    size = f"{100 * abs(gain):.1f}"
    if size == "0.0":
        return "as good as its probe"
    text = f"{size} points {'better' if gain > 0 else 'worse'} than its probe"
    if verdict(gain, p) is Verdict.TIE:
        return f"{text}; too few images to call it significant"
    return f"{text}, a significant difference"
