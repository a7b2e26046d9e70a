"""onepass report: one self-contained HTML page of a data set's results."""

import sys
from typing import Any

from onepass.cache.commandline.command import Command, main
from onepass.report.config import ReportConfig


def _work(config: ReportConfig) -> Any:
    from onepass.report.page import write_page

    return write_page(config)


def _text(result: Any) -> str:
    from onepass.report.text import page_text

    return page_text(result)


COMMANDS = [
    Command(
        "",
        "Write one self-contained HTML page of a data set's results.",
        ReportConfig,
        _work,
        _text,
        made=lambda result: result.path,
        examples=(
            "onepass report --dataset digits",
            "onepass report --dataset digits --json",
        ),
    )
]

if __name__ == "__main__":
    sys.exit(main("report", COMMANDS))
