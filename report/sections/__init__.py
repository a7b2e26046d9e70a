"""The sections of the page, in its order. Each says for itself whether it has something to show.

A section is a module with `build(material)` and a template of its name in templates/sections/.
"""

from importlib import import_module

from report.material import Material
from report.sections.section import Section

ORDER = ("headline", "leaderboard", "choices", "finetuning", "trust", "mistakes", "time", "again")


def build_sections(material: Material) -> list[Section]:
    """Return the sections for which there is something to show."""
    found = [import_module(f"report.sections.{name}").build(material) for name in ORDER]
    return [section for section in found if section is not None]
