"""What a person reads at the end of `onepass finetune` and its further commands."""

from typing import TYPE_CHECKING

from onepass.cache.commandline.advice import onepass_command
from onepass.cache.commandline.terminal import one_line
from onepass.cache.progress import counted, human_seconds
from onepass.classify.text import gain_words, p_value, percent

if TYPE_CHECKING:
    from onepass.finetune.ablation import AblationResult
    from onepass.finetune.errors import AgainstProbe, ErrorReport, RunErrors
    from onepass.finetune.session.result import FinetuneResult
    from onepass.finetune.session.run_identity import RateSearch

SHOWN = 5
POINTS = 20  # of a curve


def rate_text(found: "RateSearch") -> str:
    """Return the loss at some of the rates, the suggestion, and what to type next."""
    last = len(found.losses) - 1
    flags = ("--dataset", found.dataset, "--learning-rate", f"{found.suggested:g}")
    shown = {*range(0, last, max(last // POINTS, 1)), found.turn, last}
    notes = {found.turn: "  ← the suggestion is a tenth of this"}
    return "\n".join(
        [
            f"{found.dataset}: {found.start}, recipe {found.recipe}",
            "      rate    loss",
            *(
                f"   {found.rates[n]:7.1e}  {found.losses[n]:6.3f}{notes.get(n, '')}"
                for n in sorted(shown)
            ),
            f"Learning rate {found.suggested:g}: {found.why}",
            f"Next: {onepass_command('finetune', *flags)}, and the same other flags",
        ]
    )


def train_text(result: "FinetuneResult") -> str:
    """Return what was trained from what, every epoch, the score beside the probe's, and what comes next."""
    from onepass.cache.features import OPENVINO

    apart = result.warm_start_difference
    of = " on vectors in float32" if f"={OPENVINO}" in result.start else ""
    equal = "" if apart is None else f" (logits equal within {apart:.1g}{of})"
    rows = f"{counted(result.trained_rows, 'image')}"
    if result.selection_rows:
        rows += f"; epochs evaluated on {result.selection_rows:,} others of the training rows"
    lines = [f"{result.run}: started from {result.start}{equal}", f"Trained on {rows}"]
    if start := result.start_selection:
        lines.append(f"  epoch 0, the start: selection accuracy {percent(start.accuracy)}")
    lines += [f"  {row}, {human_seconds(row.seconds)}" for row in result.history]
    if result.gain is None or result.val_interval is None or result.p_value is None:
        lines.append(f"Stopped with a checkpoint ({result.stopped}); the same command resumes")
        return "\n".join([*lines, f"Files: {result.folder}"])
    low, high = map(percent, result.val_interval)
    return "\n".join(
        [
            *lines,
            f"Ended: {result.ended}; kept: {result.kept}",
            f"Validation top-1: {percent(result.probe_top1 + result.gain)} (95 % interval {low} to {high}); "
            f"the frozen probe had {percent(result.probe_top1)}: {gain_words(result.gain, result.p_value)} "
            f"(McNemar's test, {p_value(result.p_value)})",
            f"Files: {result.folder} (mistakes: errors.json, mistakes.png)",
            f"Next: {_next(result)}",
            f"      {onepass_command('report', '--dataset', _dataset(result))}",
        ]
    )


def _next(result: "FinetuneResult") -> str:
    """Return the command that uses the network, or what does better."""
    if result.settings and not result.settings.epochs:
        return onepass_command("predict", "export", result.run)
    split = "test" if result.test_rows else "val"
    return onepass_command("predict", _dataset(result), "--split", split)


def _dataset(result: "FinetuneResult") -> str:
    return result.run.split("/")[0]


def ablation_text(result: "AblationResult") -> str:
    """Return the table of an ablation, one line for each part that was left out."""
    from onepass.finetune.ablation import line_title

    lines = [f"From {result.start}; top-1 on the selection split"]
    for line in result.lines:
        low, high = (100 * edge for edge in line.interval)
        title = line_title(line.left_out)
        text = f"  {title:<24} {100 * line.selection_accuracy:5.1f} % ({low:.1f} … {high:.1f})"
        if line.difference is not None and line.difference_interval and line.p_value is not None:
            low, high = (100 * edge for edge in line.difference_interval)
            text += f"  {100 * line.difference:+5.1f} points ({low:+.1f} … {high:+.1f}), {p_value(line.p_value)}"
        lines.append(text)
    if result.stopped:
        lines.append(f"Stopped ({result.stopped}); the same command resumes")
    return "\n".join([*lines, f"File: {result.path}"])


def errors_text(report: "ErrorReport") -> str:
    """Return the mistakes of a run in a page of text."""
    found = report.found
    sample = found.sample
    low, high = sample.interval
    lines = [
        f"{found.run}: {found.wrong:,} of {found.rows:,} validation images wrong "
        f"({percent(found.top1)} right); of {sample.rows:,} random ones {sample.wrong:,} "
        f"({percent(sample.top1)}, {100 * low:.1f} … {100 * high:.1f})",
        "Worst classes:",
        *(
            f"  {percent(c.accuracy):>7}  {_short(c.class_name)} ({counted(c.rows, 'image')})"
            for c in found.worst_classes[:SHOWN]
        ),
        "Most often confused:",
        *(
            f"  {pair.count:>4} × {_short(pair.true_name)} mistaken for {_short(pair.predicted_name)}"
            for pair in found.confused_pairs[:SHOWN]
        ),
        "Most confident mistakes:",
        *(
            f"  {percent(m.confidence):>7}  {one_line(m.file)}: {_short(m.true_name)} mistaken for {_short(m.predicted_name)}"
            for m in found.mistakes[:SHOWN]
        ),
        *_probe_lines(found.probe),
        *_gap_lines(found),
        f"File: {report.path}",
    ]
    return "\n".join([*lines, f"Contact sheet: {report.sheet}"] if report.sheet else lines)


def _probe_lines(probe: "AgainstProbe | None") -> list[str]:
    if probe is None:
        return []
    lines = [
        f"Against the frozen probe ({percent(probe.top1)}): {counted(probe.gained, 'image')} won, "
        f"{probe.lost:,} lost (mid-p McNemar {p_value(probe.p_value)})"
    ]
    for word, classes in (("helped", probe.helped), ("harmed", probe.harmed)):
        best = [f"{_short(c.class_name)} {100 * (c.difference or 0):+.0f}" for c in classes[:SHOWN]]
        lines += [f"  {word}: {', '.join(best)} points"] if best else []
    return lines


def _gap_lines(found: "RunErrors") -> list[str]:
    if found.final_gap is None:
        return []
    lines = [
        f"  epoch {row.epoch}: training {percent(row.train)}, selection {percent(row.selection)}, "
        f"gap {100 * row.gap:+.1f} points"
        for row in found.epochs
        if row.gap is not None and row.selection is not None
    ]
    last = (
        f"Training accuracy of the last epoch less validation: {100 * found.final_gap:+.1f} points"
    )
    return [*lines, last]


def _short(name: str) -> str:
    """Return the first of a class's names."""
    return one_line(name.split(",")[0])
