"""The sections of the page, in its order. Each says for itself whether it has something to show.

A section is a module with `build(material)` and a template of its name in templates/sections/.
"""

from importlib import import_module

from onepass.report.context import Material
from onepass.report.sections.section import Section

ORDER = (
    "headline", "leaderboard", "tradeoffs", "transfer", "finetuning", "tables", "trust", "mistakes", "data",
    "time", "reproduce",
)  # fmt: skip
OPTIONAL = ("transfer", "finetuning", "tables", "data")


def build_sections(material: Material) -> list[Section]:
    """Return the sections for which there is something to show.

    One whose file lacks a field is left out, with a note: another version may have written it.
    """
    found = []
    for name in ORDER:
        try:
            section = import_module(f"onepass.report.sections.{name}").build(material)
        except (KeyError, TypeError, IndexError) as error:
            if name not in OPTIONAL:
                raise
            material.notes.append(f"{name}: what its command left cannot be read ({error!r})")
            continue
        found += [section] if section else []
    return found
