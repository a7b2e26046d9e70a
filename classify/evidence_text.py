"""What a person reads at the end of `transfer` and `inspect`."""

from typing import TYPE_CHECKING

from classify.text import percent, table

if TYPE_CHECKING:
    from classify.transfer_records import FeatureScores, TransferResult

NAMES = {
    "logme": "LogME",
    "h_score": "H-score",
    "nce": "NCE",
    "leep": "LEEP",
    "zero_training": "zero-training",
}


def transfer_text(result: "TransferResult") -> str:
    """Return the scores as a table, and how well each agrees with the probes."""
    known = max((one.mapped_classes for one in result.scores), default=0)
    lines = [
        f"{result.dataset}: {result.rows:,} training rows, {result.classes} classes; "
        f"{result.ran} sets of features scored, {len(result.scores) - result.ran} were there",
        "",
        *table([("features", *NAMES.values(), "probe (selection)", "time"), *map(_scores, result.scores)]),
        "",
    ]  # fmt: skip
    if known:
        lines.append(
            f"Zero-training: the backbone's own classes, restricted to the {known} that are ImageNet's."
        )
    if result.agreement:
        lines.append(f"Agreement with the probes of {result.agreement[0].count} sets of features:")
        header = ("score", "sets", "Kendall's tau", "Spearman's rho")
        rows = [
            (NAMES[one.score], str(one.count), f"{one.kendall:+.2f}", f"{one.spearman:+.2f}")
            for one in result.agreement
        ]
        lines += [f"  {line}" for line in table([header, *rows])]
        lines.append("A few sets prove little; the scores advise, the selection split decides.")
    else:
        lines.append("Agreement: it takes three probed sets of features that differ.")
    lines += [f"File: {result.path}", f"Next: python -m classify --dataset {result.dataset}"]
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
