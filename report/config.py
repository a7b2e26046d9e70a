"""The flags of `onepass report`."""

from dataclasses import dataclass

from onepass.cache.commandline.flags import RunsConfig, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig(RunsConfig):
    """Which data set's results to show; each field is the flag of the same name."""

    dataset: str | None = flag(
        None, "name of a prepared data set (default: the only one with results)", metavar="NAME"
    )
    open: bool = flag(False, "open the page in a browser")
