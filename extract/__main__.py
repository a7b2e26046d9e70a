"""onepass extract: run every frozen backbone once over the pixels."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onepass.cache.commandline.advice import command_of, onepass_command
from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.keras_settings import load_keras
from onepass.cache.progress import counted, human_seconds
from onepass.cache.stopping import StopRequest
from onepass.extract.config import ExtractConfig

if TYPE_CHECKING:
    from onepass.extract.pipeline import ExtractResult


class Backbones(list[dict[str, Any]]):
    """Rows of the table of backbones; none may be left of it."""


def _work(config: ExtractConfig, stop: StopRequest) -> Any:
    if config.list_backbones:
        from onepass.extract.backbones import registry

        return Backbones(registry.backbone_rows(config.offline, config.fits, config.licence))
    if "list" in config.layer:
        load_keras()
        from onepass.extract.network.layers import list_layers

        return list_layers(config)
    from onepass.extract.pipeline import extract_features

    return extract_features(config, stop)


def _made(result: Any) -> Path | None:
    files = [] if isinstance(result, list) else result.files
    return files[0].path.parent if files else None


def _text(result: Any) -> str:
    if isinstance(result, Backbones):
        from onepass.extract.backbones import registry

        return registry.backbone_table(result)
    if isinstance(result, list):
        return "\n".join(f"{layer.name:<40} {layer.shape}" for layer in result)
    return _plan_text(result) if result.plan else _result_text(result)


def _plan_text(result: "ExtractResult") -> str:
    from onepass.extract.estimate import plan_table

    total = human_seconds(result.plan_seconds)
    head = (
        f"{result.dataset}: {counted(result.total_rows, 'image')}; nothing was computed (--dry-run)"
    )
    return f"{head}\n{plan_table(result.plan)}\nAll in about {total}."


def _result_text(result: "ExtractResult") -> str:
    lines = []
    for file in result.files:
        speed = (
            f", {file.computed / max(file.seconds, 1e-9):,.0f} rows/s, bound by {file.bound}"
            if file.computed
            else ""
        )
        counts = {"computed": file.computed, "carried over": file.carried, "equal": file.equal}
        several = file.carried or file.equal
        said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count and several)
        lines.append(
            f"{file.key}: {file.state}, {file.rows:,} of {result.total_rows:,} rows × {file.dim}"
            f"{f' ({said})' if said else ''}{speed}\n  {file.path}"
        )
    if result.stopped:
        left = sum(result.total_rows - file.rows for file in result.files) or result.total_rows
        lines.append(
            f"Stopped cleanly ({result.stopped}); {counted(left, 'row')} left. The same command resumes."
        )
    elif result.labelled:
        lines.append(f"Next: {command_of('classify', result.dataset)}")
    else:
        words = ("next", "--dataset", "LABELLED", "--from", result.dataset)
        lines.append(
            f"Next: {onepass_command('classify', *words)}, where LABELLED has labels and the same features: which "
            "images to label next"
        )
    return "\n".join(lines)


COMMANDS = [
    Command(
        "",
        "Run every frozen backbone once over the pixels of a data set.",
        ExtractConfig,
        _work,
        _text,
        OnSignal.STOP,
        made=_made,
        examples=(
            "onepass extract --dataset digits --backbone efficientnet_lite0",
            "onepass extract --list-backbones --offline --fits 500MB",
        ),
    )
]

if __name__ == "__main__":
    sys.exit(main("extract", COMMANDS))
