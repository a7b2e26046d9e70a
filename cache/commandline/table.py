"""Rows of text as aligned lines."""

from collections.abc import Collection, Sequence

from onepass.cache.commandline.terminal import one_line


def table(rows: Sequence[tuple[str, ...]], right: Collection[int] = ()) -> list[str]:
    """Return rows of text as aligned lines.

    Args:
        rows: All of one length; the first is usually the header.
        right: Columns that are aligned to the right.
    """
    rows = [tuple(map(one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
