"""onepass report: one self-contained HTML page of a data set's results."""

import sys

from onepass.cache.commandline.command import Command, main
from onepass.cache.later import later
from onepass.report.config import ReportConfig

COMMANDS = [
    Command(
        "",
        "Write one self-contained HTML page of a data set's results.",
        ReportConfig,
        later("onepass.report.page:write_page"),
        later("onepass.report.page:page_text"),
        made=lambda result: result.path,
        examples=(
            "onepass report --dataset digits",
            "onepass report --dataset digits --json",
        ),
    )
]

if __name__ == "__main__":
    sys.exit(main("report", COMMANDS))
