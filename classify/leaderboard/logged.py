"""The probes of a leaderboard as runs of TensorBoard and MLflow."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from onepass.cache.tracking import LoggedRun, LogName, Logs, Point
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.result import ProbeResult

log = logging.getLogger(__name__)


def log_board(names: Sequence[LogName], board: Leaderboard, results: Path) -> None:
    """Write what each probe chose and scored; one that is there already stays as it is.

    Args:
        names: Which logs are asked for.
        board: The leaderboard.
        results: Root folder of the results.
    """
    for probe in (*board.ranked, *board.baselines) if names else ():
        with Logs(names, _logged(probe, board, results)) as logs:
            if probe == board.winner:
                log.info(f"the winner is logged to {logs.places}, each other probe likewise")
            when = datetime.fromisoformat(probe.made_by.created).timestamp()
            logs.write([Point(0, _values(probe), when)])
            logs.finished = True


def _logged(probe: ProbeResult, board: Leaderboard, results: Path) -> LoggedRun:
    settings = {
        "features": probe.features_text,
        "head": probe.head_text,
        **probe.params,
        "chosen by": probe.metric,
        "seed": probe.seed,
        "budget": probe.budget,
        "temperature": probe.temperature,
        "baseline": probe.baseline,
    }
    identity = f"{probe.id} {probe.made_by.created}"
    folder = board.head_folder(probe)
    return LoggedRun(board.dataset, probe.id, identity, folder, results, settings)


def _values(probe: ProbeResult) -> dict[str, float]:
    scores = {f"validation/{name}": estimate.value for name, estimate in probe.scores.items()}
    return {
        f"selection/{probe.metric}": probe.value,
        "selection/log-loss": probe.selection_log_loss,
        "validation/top1": probe.val_top1,
        "seconds": probe.seconds,
        **scores,
    }
