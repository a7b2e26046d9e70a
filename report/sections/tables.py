"""The report's three tables, its numbers and ours side by side."""

from typing import Any

from onepass.report.context import Material
from onepass.report.sections.section import Section

# Table: its heading, and the field and heading of each column; shares are those that are told so.
LAYOUT: dict[str, tuple[str, dict[str, str]]] = {
    "backbones": (
        "Frozen backbones",
        {"backbone": "backbone", "size": "px", "head": "head", "val": "validation", "report_val": "the report"},
    ),
    "heads": (
        "Heads by epoch",
        {
            "head": "head", "features": "features", "epoch": "epoch", "train": "training", "selection": "selection",
            "report_train": "the report, training", "report_val": "the report, validation",
        },
    ),
    "finetune": (
        "Fine-tuned networks",
        {
            "backbone": "backbone", "size": "px", "run": "run", "recipe": "recipe", "before": "frozen",
            "train": "training", "val": "validation", "report_before": "the report, frozen",
            "report_val": "the report, validation", "report_test": "the report, test",
        },
    ),
}  # fmt: skip
WORDS = ("backbone", "size", "head", "features", "epoch", "run", "recipe")


def build(material: Material) -> Section | None:
    """Return what `onepass finetune tables` left; nothing where it was not run."""
    record = material.records.get("tables")
    if record is None:
        return None
    tables = []
    for name, (title, columns) in LAYOUT.items():
        rows = [row for row in record[name] if _says_something(row)]
        if rows:
            shown = [c for c in columns if any(row.get(c) is not None for row in rows)]
            tables.append((title, {c: columns[c] for c in shown}, rows))
    facts = {"tables": tables, "note": record.get("note", ""), "source": record.get("source", ""), "words": WORDS}  # fmt: skip
    return Section("tables", "The report’s tables", "Tables", facts) if tables else None


def _says_something(row: dict[str, Any]) -> bool:
    """Say whether a row has any number of ours or of the report's."""
    return any(value is not None for name, value in row.items() if name not in WORDS)
