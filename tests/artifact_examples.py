"""One example of every artifact, made from the types of its fields, so that a new kind is tested at once."""

import dataclasses
import types
import typing
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from conftest import ROOT
from onepass.cache.artifacts import Artifact
from onepass.cache.made_by import How, MadeBy
from onepass.cache.shards import Column
from onepass.finetune.recipes import RECIPES, Recipe

WORDS = {"id": "ridge-0123", "dataset": "digits"}  # fields whose text has to mean something
FIXED: dict[Any, Any] = {  # what refuses values that mean nothing
    Recipe: RECIPES["de2020"],
    Column: Column((2, 3), "<f4"),
    MadeBy: MadeBy.now(How(batch=64)),  # may hold another of its kind
}


@cache
def kinds() -> list[type[Artifact]]:
    """Return every class of artifact that the code declares, by name."""
    for room in ("cache", "data", "extract", "classify", "finetune", "predict", "report"):
        for path in (ROOT / room).rglob("*.py"):
            if "(Artifact)" in path.read_text(encoding="utf-8"):
                import_module(".".join(("onepass", *path.relative_to(ROOT).with_suffix("").parts)))
    return sorted(_below(Artifact), key=lambda kind: kind.__name__)


def _below(kind: type) -> set[type]:
    """Return a class's subclasses; those that `@record` replaced by a copy with slots are not among them."""
    declared = {sub for sub in kind.__subclasses__() if dataclasses.is_dataclass(sub)}
    return {
        sub for sub in declared if "__slots__" in vars(sub) and sub.__module__[:8] == "onepass."
    }


def example(kind: Any, name: str = "") -> Any:
    """Return a value of a type; lists and objects have two entries."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in FIXED:
        return FIXED[kind]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: example(hints[f.name], f.name) for f in dataclasses.fields(kind)})
    if origin in (types.UnionType, typing.Union):
        return example(inner[0], name)
    if origin is typing.Literal:
        return inner[0]
    if origin in (tuple, list):
        entries = inner if origin is tuple and inner[-1] is not Ellipsis else (inner[0],)
        return origin(example(entry, name) for entry in entries)
    if origin is dict:
        return {"first": example(inner[1]), "second é": example(inner[1])}
    if kind is Any:
        return {"x": [1, 0.1, None, True, "text"]}
    plain = {
        int: 3,
        float: 0.1 + 0.2,
        str: WORDS.get(name, name or "é"),
        bool: True,
        Path: Path("a"),
    }
    return plain[kind]
