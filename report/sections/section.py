"""What a section of the page is."""

from dataclasses import dataclass, field
from typing import Any

from onepass.report.figures.figure import Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under a heading of its own.

    Attributes:
        name: Of its template and of its anchor on the page.
        title: Its heading.
        label: Its entry in the table of contents.
        facts: What its template shows.
        figures: Shown on the page; each is also written as PNG and CSV.
        files: Figures that are written as files only, because the page shows them in another way.
    """

    name: str
    title: str
    label: str
    facts: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    files: list[Figure] = field(default_factory=list)

    @property
    def template(self) -> str:
        """Path of its template."""
        return f"sections/{self.name}.html"
