"""What a person reads at the end of `transfer`, `inspect` and `next`."""

from typing import TYPE_CHECKING

from onepass.cache.commandline.advice import command_of, onepass_command
from onepass.cache.commandline.table import table
from onepass.cache.commandline.terminal import one_line
from onepass.cache.progress import counted
from onepass.classify.text import percent

if TYPE_CHECKING:
    from onepass.classify.analysis.inspection import Inspection, InspectResult
    from onepass.classify.analysis.labelling import NextResult
    from onepass.classify.analysis.transferability import FeatureScores, TransferResult

SHOWN = 5  # lines of each list; the file holds more
NAMES = {
    "logme": "LogME",
    "h_score": "H-score",
    "nce": "NCE",
    "leep": "LEEP",
    "zero_training": "zero-training",
}


def transfer_text(result: "TransferResult") -> str:
    """Return the scores as a table, and how well each agrees with the probes."""
    found = result.found
    known = max((one.mapped_classes for one in found.scores), default=0)
    lines = [
        f"{found.dataset}: {found.rows:,} training rows, {found.classes} classes; "
        f"{counted(result.ran, 'set')} of features scored, {len(found.scores) - result.ran} cached",
        "",
        *table([("features", *NAMES.values(), "probe (selection)", "time"), *map(_scores, found.scores)]),
        "",
    ]  # fmt: skip
    if known:
        lines.append(
            f"Zero-training: the backbone's own classes, restricted to the {known} that are ImageNet's."
        )
    if found.agreement:
        lines.append(f"Agreement with the probes of {found.agreement[0].count} sets of features:")
        header = ("score", "sets", "Kendall's tau", "Spearman's rho")
        rows = [
            (NAMES[one.score], str(one.count), f"{one.kendall:+.2f}", f"{one.spearman:+.2f}")
            for one in found.agreement
        ]
        lines += [f"  {line}" for line in table([header, *rows])]
        lines.append("A few sets prove little; the scores advise, the selection split decides.")
    else:
        lines.append(
            "Agreement: not computed; it needs at least three sets of features that were probed and whose accuracies differ."
        )
    lines += [f"File: {result.path}", f"Next: {command_of('classify', found.dataset)}"]
    return "\n".join(lines)


def _scores(one: "FeatureScores") -> tuple[str, ...]:
    numbers = (one.logme, one.h_score, one.nce, one.leep)
    shown = [
        "-" if number is None else f"{number:.{places}f}"
        for number, places in zip(numbers, (4, 2, 3, 3), strict=True)
    ]
    return (
        " & ".join(one.features),
        *shown,
        "-" if one.zero_training is None else percent(one.zero_training),
        "-" if one.selection_top1 is None else f"{one.head} {percent(one.selection_top1)}",
        f"{one.seconds:.1f} s",
    )


def inspect_text(result: "InspectResult") -> str:
    """Return what was found, a few lines of each kind."""
    found = result.found
    lines = [
        f"{found.dataset}: inspected with {' & '.join(found.features)}, probe {found.probe} "
        f"(val {percent(found.val_top1)}), {found.seconds:.0f} s"
    ]
    for part in (_labels(found), _duplicates(found), _outliers(found), _classes(found)):
        lines += ["", *part]
    lines += ["", f"File: {result.path}", *_suspects(result)]
    return "\n".join([*lines, f"Next: {command_of('report', found.dataset)}"])


def _suspects(result: "InspectResult") -> list[str]:
    written = result.suspects
    if not written.count:
        return []
    command = onepass_command(
        "data", "relabel", result.found.dataset, "--labels", str(written.table)
    )
    lines = [
        f"Suspects: {written.likely:,} likely and {written.count - written.likely:,} possible errors in {written.table}, "
        f"to look at in {written.sheet}. Edit the column label (a class, "
        f"or excluded to take an image out), then {command}"
    ]
    if written.previous:
        lines.append(f"The table that was there is kept as {written.previous}")
    return lines


def _labels(result: "Inspection") -> list[str]:
    lines = ["Likely label errors (suspected, not proved: look at the images)"]
    for part in result.labels:
        share = percent(part.suspected / part.rows)
        lines.append(f"  {part.split}: {part.suspected:,} of {part.rows:,} ({share}), found by {part.judge}, {percent(part.accuracy)} right")  # fmt: skip
        rows = [
            (f"    {one.name}", f"given {result.class_names[one.given]}",
             f"looks like {result.class_names[one.suggested]} ({percent(one.suggested_probability)})")
            for one in part.worst[:SHOWN]
        ]  # fmt: skip
        lines += table(rows) if rows else []
    return lines


def _duplicates(result: "Inspection") -> list[str]:
    found = result.duplicates
    counts = ", ".join(
        f"{count:,} {split} ({found.exact[split]:,} exact)" for split, count in found.counts.items()
    )
    lines = [f"Rows with a near-duplicate among the training rows: {counts}"]
    if found.conflicts:
        lines.append(f"  {found.conflicts:,} of the pairs carry different labels")
    for pair in found.pairs[:SHOWN]:
        kind = "every pixel equal" if pair.exact else f"pixels correlate {pair.correlation:.3f}"
        mirrored = ", mirrored" if pair.mirrored else ""
        lines.append(f"  rows {pair.row} and {pair.other}: {kind}{mirrored}")
    return lines


def _outliers(result: "Inspection") -> list[str]:
    lines = ["Outliers (far from every training image)"]
    rows = [
        (f"  {one.name}", one.split, result.class_names[one.label] if one.label >= 0 else "-", f"distance {one.distance:.2f}")
        for one in result.outliers[:SHOWN]
    ]  # fmt: skip
    return [*lines, *table(rows)]


def _classes(result: "Inspection") -> list[str]:
    names, lines = list(map(one_line, result.class_names)), ["Worst classes on val"]
    worst = [
        (f"  {one.name}", percent(one.val_accuracy or 0.0), "" if one.taken_for is None else f"mostly taken for {names[one.taken_for]}")
        for one in result.classes[:SHOWN]
    ]  # fmt: skip
    lines += table(worst)
    if result.confusions:
        lines.append("Most confused on val")
    lines += [
        f"  {names[one.first]} mistaken for {names[one.second]}: {counted(one.first_as_second, 'row')}; the other way round: "
        f"{one.second_as_first}; together {percent(one.share)} of the rows of both"
        for one in result.confusions[:SHOWN]
    ]
    return lines


def next_text(result: "NextResult") -> str:
    """Return where the images to label next are listed, and what to do with the list."""
    rules = {
        "both": "unsure of them, and no two of a kind",
        "margin": "least sure of them",
        "k-center": "least like what is labelled",
        "typical": "most like others that have no label",
    }
    return "\n".join(
        [
            f"{result.source}: {len(result.rows):,} of {result.unlabelled:,} unlabelled images to label next "
            f"({result.probe}: {rules[result.rule]})",
            f"Files: {result.table} (column label is empty), pictures in {result.sheet}",
            f"Next: fill in the labels, add the rows to the table that {result.dataset} is made from (or move the files "
            "into its folders of classes), and prepare it again; nothing else is decoded or extracted again",
        ]
    )
