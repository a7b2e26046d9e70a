"""Tables as CSV, with text that a spreadsheet shows and does not run."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what begins one


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, exact: bool = False) -> str:
    """Return a table as CSV (RFC 4180, lines ended by "\\n").

    Text, such as the name of a file, that begins like a formula gets a ' in front, by which spreadsheets
    know plain text; numbers are left alone.

    Args:
        columns: Names of the columns.
        rows: Cells, text or numbers.
        exact: Leave text as it is, where a program compares it, not a spreadsheet.
    """
    cells = rows if exact else ([harmless(cell) for cell in row] for row in rows)
    return "".join(map(_line, [columns, *cells]))


def _line(cells: Sequence[Any]) -> str:
    """Return a row as a line; with another end than this one, the module would not quote a lone CR."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"


def harmless(cell: Any) -> Any:
    """Return a cell with a ' in front where it is text that begins like a formula."""
    return "'" + cell if isinstance(cell, str) and cell.startswith(FORMULA) else cell
