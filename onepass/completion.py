"""onepass completion: what a shell needs to complete commands and flags, made from the commands themselves."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepass.cache.commandline.command import Command, parser_of
from onepass.cache.commandline.flags import StoreConfig, flag
from onepass.cache.errors import MissingFileError

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionConfig(StoreConfig):
    """Which shell."""

    shell: str = flag(help="whose completion is printed", choices=SHELLS, positional=True)


def completion(config: CompletionConfig) -> str:
    """Return the script that completes `onepass` in a shell.

    Raises:
        MissingFileError: The library that writes it is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise MissingFileError(
            'onepass completion needs shtab; run: pip install "onepass[completion]"'
        ) from error
    from onepass.__main__ import ROOMS, commands_of

    parser = argparse.ArgumentParser(prog="onepass")
    words = parser.add_subparsers()
    for word, summary in ROOMS.items():
        _add(words, word, summary, commands_of(word))
    return shtab.complete(parser, config.shell)


def _add(words: Any, word: str, summary: str, commands: Sequence[Command]) -> None:
    """Add a word with its own command, if it has one, and those that follow it."""
    own = [_parser(word, command) for command in commands if not command.name]
    parser = words.add_parser(word, help=summary, parents=own, add_help=not own)
    if named := [command for command in commands if command.name]:
        more = parser.add_subparsers()
        for command in named:
            parents = [_parser(word, command)]
            more.add_parser(command.name, help=command.summary, parents=parents, add_help=False)


def _parser(word: str, command: Command) -> argparse.ArgumentParser:
    """Return a command's parser, whose paths are completed as files."""
    import shtab

    parser = parser_of(f"onepass {word}", command)
    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser


COMMANDS = [
    Command(
        "",
        'Print what completes commands and flags in a shell; for bash: eval "$(onepass completion bash)"',
        CompletionConfig,
        completion,
        str,
        examples=("onepass completion bash", "onepass completion zsh"),
    )
]
