"""The CSV tables beside this file."""

import csv
import os
from pathlib import Path
from typing import Any

from onepass.extract.backbones.spec import BackboneSpec

FOLDER = Path(__file__).parent


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table, one dict per row, every value as text."""
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spec_of_row(row: dict[str, str], **own: Any) -> BackboneSpec:
    """Return the backbone of a row; `own` is what its family knows of it besides."""
    return BackboneSpec(
        name=row["name"],
        native_size=int(row["native_size"]),
        min_size=int(row["min_size"]),
        feature_dim=int(row["feature_dim"]),
        weights_mb=float(row["weights_mb"]),
        licence=row["licence"],
        top1=float(row["top1"]) if row["top1"] else None,
        **own,
    )


def models_folder(variable: str, default: str) -> Path:
    """Return where a program keeps downloaded models: in the folder that a variable of the environment names."""
    home = os.environ.get(variable)
    return (Path(home) if home else Path.home() / default) / "models"
