"""Suspected labels as a table to be edited and given to `onepass data relabel`, and as pictures to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onepass.cache.content import first_of_each
from onepass.cache.files import atomic_path
from onepass.data.contact_sheet import INK, Cell, contact_sheet
from onepass.data.dataset import EXCLUDED, ImageDataset
from onepass.data.relabel import shown_classes, write_table

if TYPE_CHECKING:
    from onepass.classify.analysis.inspection import LabelIssue

TABLE, SHEET, PREVIOUS = "suspects.csv", "suspects.png", "suspects.previous.csv"
HEADER = ("file", "row", "label", "suggested", "why", "score")
ON_SHEET = 60  # pictures


@dataclass(frozen=True, slots=True)
class Suspects:
    """What was written.

    Attributes:
        table: `suspects.csv`.
        sheet: `suspects.png`; None where nothing is suspected.
        count: How many images are suspected.
        likely: How many of them, the first ones, are likely label errors.
        previous: Where the table of before lies, if it was another.
    """

    table: Path
    sheet: Path | None
    count: int
    likely: int
    previous: Path | None


@dataclass(frozen=True, slots=True)
class _Suspect:
    row: int
    suggested: int
    why: str
    score: float


def write_suspects(
    folder: Path,
    dataset: ImageDataset,
    issues: Sequence["LabelIssue"],
    possible: Sequence["LabelIssue"] = (),
) -> Suspects:
    """Write the table and the contact sheet.

    Args:
        folder: Where they go. A table that is there and says something else may have been edited: it is kept.
        dataset: Gives names, labels and pictures.
        issues: Likely label errors; images that occur under several labels are added to them.
        possible: What is rather hard than wrong; it stands below them.
    """
    suspects = _suspects(dataset, issues)
    known = {suspect.row for suspect in suspects}
    more = [_of(dataset, issue, "possibly: ") for issue in possible if issue.row not in known]
    likely, suspects = len(suspects), [*suspects, *sorted(more, key=lambda s: (s.score, s.row))]
    shown = shown_classes(dataset.class_ids, dataset.class_names)
    rows = (
        (dataset.names[s.row], s.row, shown[dataset.labels[s.row]], shown[s.suggested], s.why, f"{s.score:.4f}")
        for s in suspects
    )  # fmt: skip
    table, previous = folder / TABLE, folder / PREVIOUS
    before = table.read_bytes() if table.exists() else None
    write_table(table, HEADER, rows)
    kept = before is not None and before != table.read_bytes()
    if kept and before is not None:
        with atomic_path(previous) as temporary:
            temporary.write_bytes(before)
    sheet = folder / SHEET
    if suspects:
        contact_sheet(sheet, [_cell(dataset, s, shown) for s in suspects[:ON_SHEET]])
    else:
        sheet.unlink(missing_ok=True)
    return Suspects(
        table, sheet if suspects else None, len(suspects), likely, previous if kept else None
    )


def _suspects(dataset: ImageDataset, issues: Sequence["LabelIssue"]) -> list[_Suspect]:
    """Return all, the likeliest errors first: equal images under two labels, then what a head takes for another."""
    found = {issue.row: _of(dataset, issue) for issue in issues}
    first = first_of_each(dataset.content)
    in_use = (dataset.split != EXCLUDED) & (dataset.labels >= 0)
    labels: dict[int, list[int]] = {}
    for row in np.flatnonzero(in_use).tolist():
        labels.setdefault(int(first[row]), []).append(row)
    for rows in labels.values():
        for row in rows:
            other = next((o for o in rows if dataset.labels[o] != dataset.labels[row]), None)
            if other is not None:
                suggested = found[row].suggested if row in found else int(dataset.labels[other])
                why = f"the same image as {dataset.names[other]}, which is {dataset.class_names[dataset.labels[other]]}"
                found[row] = _Suspect(row, suggested, why, 0.0)
    return sorted(found.values(), key=lambda s: (s.score, s.row))


def _of(dataset: ImageDataset, issue: "LabelIssue", before: str = "") -> _Suspect:
    names = dataset.class_names
    why = (
        f"{before}looks like {names[issue.suggested]} ({issue.suggested_probability:.0%}), "
        f"not like {names[issue.given]} ({issue.given_probability:.0%})"
    )
    return _Suspect(issue.row, issue.suggested, why, issue.score)


def _cell(dataset: ImageDataset, suspect: _Suspect, shown: list[str]) -> Cell:
    given, suggested = shown[dataset.labels[suspect.row]], shown[suspect.suggested]
    name = dataset.names[suspect.row].rpartition("/")[2]  # the folder is the class, most often
    lines = (given, INK), (f"→ {suggested}", INK), (name, INK)
    return Cell(dataset.pixels[suspect.row], lines)
