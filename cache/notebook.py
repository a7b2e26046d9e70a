"""What a notebook shows: a bar for work that takes long, results as they would be printed."""

import html
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from onepass.cache.progress import ProgressCallback, ProgressUpdate, is_told

PERIOD = 0.2  # seconds between two looks of a bar


def as_html(text: str) -> str:
    """Return what a command prints of a result as the `_repr_html_` of that result."""
    return f'<pre style="line-height: 1.3">{html.escape(text)}</pre>'


def table_html(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows of text as an HTML table; the first is the header."""
    head, *body = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
                   for tag, row in zip(["th", *["td"] * len(rows)], rows, strict=False)]  # fmt: skip
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in body)}</table>"


def notebook_bar() -> ProgressCallback | None:
    """Return what draws progress below the cell; None where this is no notebook, or somebody shows it already."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    return None if is_told() or not hasattr(shell, "kernel") else NotebookBar()


class NotebookBar:
    """Draws each piece of work as a bar with its line, updated in place."""

    def __init__(self) -> None:
        self._label, self._last, self._handle = "", 0.0, None

    def __call__(self, update: ProgressUpdate) -> None:
        """Draw an update if the last one is old enough, or if it is the first or last of its kind."""
        ipython = import_module("IPython.display")
        now, new = time.monotonic(), self._handle is None or update.label != self._label
        if not (new or update.finished) and now - self._last < PERIOD:
            return
        bar = f'<progress value="{update.done}" max="{max(update.total, 1)}"></progress>'
        shown: Any = ipython.HTML(f"{bar} {html.escape(str(update))}")
        if new:
            self._label, self._handle = update.label, ipython.display(shown, display_id=True)
        elif self._handle:
            self._handle.update(shown)
        self._last = now
        if update.finished:
            self._handle = None
