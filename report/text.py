"""What the command prints at its end."""

from typing import TYPE_CHECKING

from onepass.cache.commandline.advice import onepass_command
from onepass.cache.progress import counted, human_bytes

if TYPE_CHECKING:
    from onepass.report.page import PageResult


def page_text(result: "PageResult") -> str:
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
