"""What a person reads at the end of find-lr, errors and tables."""

from typing import TYPE_CHECKING, Any

from onepass.classify.text import p_value

if TYPE_CHECKING:
    from onepass.finetune.errors import AgainstProbe, ErrorReport, RunErrors
    from onepass.finetune.session.run_identity import RateSearch
    from onepass.finetune.tables import Tables

SHOWN = 5
POINTS = 20  # of a curve


def rate_text(found: "RateSearch") -> str:
    """Return the loss at some of the rates, the suggestion, and what to type next."""
    last = len(found.losses) - 1
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
            f"Next: onepass finetune --dataset {found.dataset} --learning-rate {found.suggested:g}, "
            "and the same other flags",
        ]
    )


def errors_text(report: "ErrorReport") -> str:
    """Return the mistakes of a run in a page of text."""
    found = report.found
    sample = found.sample
    low, high = sample.interval
    lines = [
        f"{found.run}: {found.wrong:,} of {found.rows:,} validation images wrong "
        f"({_percent(found.top1)} right); of {sample.rows:,} random ones {sample.wrong:,} "
        f"({_percent(sample.top1)}, {100 * low:.1f} … {100 * high:.1f})",
        "Worst classes:",
        *(
            f"  {_percent(c.accuracy):>7}  {_short(c.class_name)} ({c.rows} images)"
            for c in found.worst_classes[:SHOWN]
        ),
        "Most often confused:",
        *(
            f"  {pair.count:>4} times  {_short(pair.true_name)} taken for {_short(pair.predicted_name)}"
            for pair in found.confused_pairs[:SHOWN]
        ),
        "Most confident mistakes:",
        *(
            f"  {_percent(m.confidence):>7}  {m.file}: {_short(m.true_name)} taken for {_short(m.predicted_name)}"
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
        f"Against the frozen probe ({_percent(probe.top1)}): {probe.gained:,} images won, "
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
        f"  epoch {row.epoch}: training {_percent(row.train)}, selection {_percent(row.selection)}, "
        f"gap {100 * row.gap:+.1f} points"
        for row in found.epochs
        if row.gap is not None and row.selection is not None
    ]
    last = (
        f"Training accuracy of the last epoch less validation: {100 * found.final_gap:+.1f} points"
    )
    return [*lines, last]


COLUMNS = {
    "backbones": ("backbone", "size", "head", "val", "interval", "report_val"),
    "heads": ("head", "features", "epoch", "train", "selection", "report_train", "report_val"),
    "finetune": (
        "run", "backbone", "size", "recipe", "before", "train", "val", "interval",
        "report_before", "report_val", "report_test",
    ),
}  # fmt: skip
TITLES = {
    "backbones": "Table 1: frozen backbones, the best head on each",
    "heads": "Table 2: heads by epoch (ours on the selection split, the report's on val)",
    "finetune": "Table 3: fine-tuning (before: the frozen probe)",
}


def tables_text(tables: "Tables") -> str:
    """Return the three tables, ours beside the report's."""
    lines = []
    for name, columns in COLUMNS.items():
        rows = [[_cell(row.get(column)) for column in columns] for row in getattr(tables, name)]
        heads = [column.replace("_", " ") for column in columns]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines.append(TITLES[name])
        for row in (heads, *rows):
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(padded).rstrip())
        lines.append("")
    lines += [f"{tables.title}: {tables.source or tables.note}"]
    lines += [f"Note: {tables.note}"] if tables.source else []
    return "\n".join([*lines, f"File: {tables.path}"])


def _cell(value: Any) -> str:
    """Return a value of a table: shares as per cents, nothing as a dash."""
    if isinstance(value, float):
        return _percent(value)
    if isinstance(value, list | tuple):
        return " … ".join(f"{100 * bound:.1f}" for bound in value)
    return "-" if value is None else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(name: str) -> str:
    """Return the first of a class's names."""
    return name.split(",")[0]
