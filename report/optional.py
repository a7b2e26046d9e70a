"""What commands beside the main ones may have left under `runs/<data set>`; none of it has to be there."""

from pathlib import Path
from typing import Any

from onepass.cache.errors import OnepassError
from onepass.cache.files import read_json

Record = dict[str, Any]


def read_optional(path: Path, dataset_digest: str, notes: list[str]) -> Record | None:
    """Return the JSON object of a file; None, with a note, where it is damaged or of another state.

    Args:
        path: Of the file; None is returned without a note where there is none.
        dataset_digest: The data set's, today.
        notes: Grows by what was left out and why.
    """
    if not path.exists():
        return None
    try:
        value = read_json(path)
    except OnepassError as error:
        notes.append(str(error))
        return None
    if not isinstance(value, dict):
        notes.append(f"{path}: expected a JSON object, found {type(value).__name__}")
        return None
    if value.get("dataset_digest", dataset_digest) != dataset_digest:
        notes.append(f"{path}: made from another state of the data set.")
        return None
    return value


def read_ensembles(folder: Path, dataset_digest: str, notes: list[str]) -> list[Record]:
    """Return the scored predictions by several runs or views, in the order they were made.

    They are what `onepass finetune predict --split val` writes beside its predictions.

    Args:
        folder: `runs/<data set>`.
        dataset_digest: The data set's, today.
        notes: Grows by what was left out and why.
    """
    paths = [*folder.glob("predictions/*.json"), *folder.glob("finetune/*/val*.json")]
    found = [read_optional(path, dataset_digest, notes) for path in sorted(paths)]
    scored = [
        one for one in found if one and one.get("val_top1") is not None and one.get("members")
    ]
    several = [one for one in scored if len(one["members"]) > 1 or any(one["members"][0]["views"])]
    return sorted(several, key=lambda one: str(one.get("made_by", {}).get("created", "")))
