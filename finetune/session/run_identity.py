"""Whose a run's folder is: `config.json` in it, {"identity", "made_by"}.

With `--learning-rate auto` it also has "found": what the search saw, as in `onepass.finetune.finder.Found`; the
identity holds the rate itself, so that the search is done once.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onepass.cache.errors import InvalidInputError
from onepass.cache.files import read_json, write_json
from onepass.cache.provenance import differences, made_by
from onepass.data.dataset import ImageDataset
from onepass.finetune.config import AUTO, FinetuneConfig
from onepass.finetune.session.start import Start

FILE = "config.json"


def identity(config: FinetuneConfig, dataset: ImageDataset, start: Start) -> dict[str, Any]:
    """What the course of the training depends on; a folder holds runs of one identity only."""
    recipe = asdict(config.chosen_recipe)
    if config.learning_rate == AUTO:
        recipe["learning_rate"] = AUTO
    return {
        "dataset": config.dataset,
        "dataset_digest": dataset.digest,
        "probe": start.probe.id,
        "features": start.key.inputs(),
        "recipe": recipe,
        "unfreeze": config.unfreeze,
        "select": config.select,
        "rows": config.rows,
        "weights": config.weights,
        "seed": config.seed,
    }


def recorded_rate(config: FinetuneConfig, folder: Path) -> FinetuneConfig:
    """Return the flags with the rate that this run found before, where they leave it to the search."""
    if config.learning_rate != AUTO or not (folder / FILE).exists():
        return config
    found = read_json(folder / FILE).get("found")
    return replace(config, learning_rate=found["suggested"]) if found else config


def refuse_other(folder: Path, wanted: dict[str, Any]) -> None:
    """Find out that a folder is free, or this run's.

    Raises:
        InvalidInputError: It is another's.
    """
    path = folder / FILE
    recorded = read_json(path)["identity"] if path.exists() else _plain(wanted)
    if recorded != _plain(wanted):
        raise InvalidInputError(
            f"{folder}: holds a run of another configuration ({differences(recorded, _plain(wanted))}); "
            "give this one a name of its own with --run NAME, or delete that folder"
        )


def claim(folder: Path, wanted: dict[str, Any], found: dict[str, Any] | None) -> None:
    """Mark a free folder as this run's, with what the search for its learning rate saw."""
    path = folder / FILE
    if not path.exists():
        searched = {"found": found} if found else {}
        write_json(path, {"identity": _plain(wanted), **searched, "made_by": made_by()})


def _plain(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return it as it is read back: tuples have become lists."""
    value: dict[str, Any] = json.loads(json.dumps(wanted))
    return value
