"""What the report that Onepass follows found: `references.json`, the only place of its numbers.

By data set: `title`, `source`, `note`, `lines` (its headline numbers: {"stage", "method", "accuracy"}) and
`tables`: `backbones` ({"backbone", "val"}), `heads` ({"head", "epoch", "train", "val"}) and `finetune`
({"backbone", "before", "val", "test"}). All numbers are per cents; null is what is not known.
"""

from pathlib import Path
from typing import Any

from onepass.cache.files import read_json

REFERENCES = Path(__file__).resolve().parent / "references.json"


def report_numbers(kind: str) -> dict[str, Any]:
    """Return the report's numbers on a kind of data set; where it has none, its tables without numbers.

    Args:
        kind: `record["kind"]` of the data set, such as "tiny-imagenet".
    """
    known = read_json(REFERENCES)
    if kind in known:
        return known[kind]
    blank = {
        name: [_without_numbers(row) for row in rows]
        for name, rows in known["tiny-imagenet"]["tables"].items()
    }
    note = f"the report has no numbers on {kind}"
    return {"title": "The report", "source": "", "note": note, "lines": [], "tables": blank}


def _without_numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if name in ("backbone", "head", "epoch") else None
        for name, value in row.items()
    }
