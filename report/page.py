"""The page: artifacts go in, one HTML file comes out."""

import base64
import hashlib
import re
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from onepass.cache.commandline.advice import onepass_command
from onepass.cache.commandline.flags import RunsConfig
from onepass.cache.errors import UsageError
from onepass.cache.files import write_atomic
from onepass.cache.locks import exclusive
from onepass.cache.progress import counted, human_bytes
from onepass.report import numbers
from onepass.report.config import ReportConfig
from onepass.report.context import ReportContext, open_context
from onepass.report.figures.figure import write_figures
from onepass.report.palette import COLOURS
from onepass.report.sections import build_sections
from onepass.report.sections.section import Section

TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True, slots=True)
class PageResult:
    """What `onepass report` wrote.

    Attributes:
        dataset: Name of the data set.
        path: The page.
        bytes: Its size.
        probes: How many probes it shows, without baselines.
        runs: How many fine-tuning runs it shows.
        sections: Names of its sections.
        figures: Folder of the figures as PNG and CSV.
        figure_names: Names of the figures there.
        notes: What was left out, and why.
    """

    dataset: str
    path: Path
    bytes: int
    probes: int
    runs: int
    sections: list[str]
    figures: Path
    figure_names: list[str]
    notes: list[str]


def write_page(config: ReportConfig) -> PageResult:
    """Write `runs/<data set>/report.html` and the figures in `figures/` beside it.

    Raises:
        MissingFileError: The data set is not prepared, or nothing was classified yet.
        StaleError: The leaderboard was made from another state of the data set.
        CorruptFileError: A file that belongs on the page is damaged.
        LockedError: Another process writes the page.
    """
    name = config.dataset or only_dataset(config)
    folder = config.runs / name
    context = open_context(config.store, config.runs, name)
    path = folder / "report.html"
    with exclusive(path):
        sections = build_sections(context)  # may keep what it computed beside the page
        content = render(context, sections).encode()
        figures = [figure for section in sections for figure in [*section.figures, *section.files]]
        write_figures(folder / "figures", figures)
        write_atomic(path, content)
    if config.open:
        webbrowser.open(path.resolve().as_uri())
    return PageResult(
        dataset=name,
        path=path,
        bytes=len(content),
        probes=len(context.board.ranked),
        runs=len(context.runs),
        sections=[section.name for section in sections],
        figures=folder / "figures",
        figure_names=[figure.name for figure in figures],
        notes=context.notes,
    )


def page_text(result: PageResult) -> str:
    """Return what is on the page, what was left out, and where the files are."""
    lines = [
        f"{result.dataset}: {counted(result.probes, 'probe')}, {counted(result.runs, 'fine-tuned run')}"
    ]
    lines += [f"Left out: {note}" for note in result.notes]
    lines.append(f"Figures: {result.figures} (PNG, and their numbers as CSV)")
    lines.append(f"Page: {result.path} ({human_bytes(result.bytes)}, needs no network)")
    command = onepass_command("report", "--dataset", result.dataset, "--open")
    lines.append(f"Next: {command}, or send the file as it is")
    return "\n".join(lines)


def only_dataset(config: RunsConfig) -> str:
    """Return the one data set that has a leaderboard.

    Raises:
        UsageError: There is none, or more than one.
    """
    known = sorted(path.parent.name for path in config.runs.glob("*/leaderboard.json"))
    if len(known) != 1:
        found = ", ".join(known) or f"no results in {config.runs} yet"
        raise UsageError(
            f"expected --dataset NAME, as there is not exactly one data set with results: {found}"
        )
    return known[0]


def render(context: ReportContext, sections: list[Section]) -> str:
    """Return the page. Class and file names are untrusted: everything is escaped, nothing is loaded.

    The Content-Security-Policy allows the page's own style and script, by their digests, and data URIs.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    for name in (
        "percent",
        "interval",
        "points",
        "p_value",
        "number",
        "thousands",
        "rate",
        "duration",
        "published",
    ):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["counted"] = counted
    environment.filters["command"] = _command
    style = environment.get_template("page.css").render(colours=COLOURS).strip()
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8").strip()
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html").render(
        dataset=context.dataset,
        winner=context.winner,
        sections=sections,
        style=Markup(style),  # noqa: S704  our own file
        script=Markup(script),  # noqa: S704  our own file
        policy=policy,
    )


def _command(text: str) -> Markup:
    """Return a command for HTML in which no line ends within a flag: browsers break lines after its hyphens."""
    flag = r'<span class="flag">\1</span>'
    return Markup(re.sub(r"(?<!\S)(--[\w-]+)", flag, str(escape(text))))  # noqa: S704  it is escaped


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
