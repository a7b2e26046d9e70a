"""Files of the repository that other programs and people read by convention."""

import datetime
import re
import tomllib

import yaml

from conftest import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
HEADINGS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # Keep a Changelog


def test_the_citation_is_valid_and_of_this_version() -> None:
    """What the schema of CFF 1.2.0 requires, and nothing that it does not know."""
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    known = {"abstract", "type", "version", "date-released", "license", "keywords", "url", "doi"}
    assert found.keys() - {"cff-version", "message", "title", "authors"} <= known
    assert found["cff-version"] == "1.2.0" and found["type"] == "software"
    assert all({"name"} <= author.keys() for author in found["authors"])
    assert isinstance(found["date-released"], datetime.date)
    assert found["version"] == VERSION


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n")
    sections = re.findall(
        r"^## (\d+\.\d+\.\d+)( \(unreleased\)| - \d{4}-\d\d-\d\d)$", text, re.MULTILINE
    )
    assert len(sections) == len(re.findall(r"^## ", text, re.MULTILINE))
    numbers = [tuple(map(int, version.split("."))) for version, _ in sections]
    assert numbers == sorted(set(numbers), reverse=True)
    assert all(when != " (unreleased)" for _, when in sections[1:])
    assert VERSION in [version for version, _ in sections[:2]]
    for part in text.split("\n## ")[1:]:
        headings = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert set(headings) <= HEADINGS and len(headings) == len(set(headings)), headings
