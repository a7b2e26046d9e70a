"""onepass run | data | extract | classify | finetune | predict | report | cache | doctor | completion: the one command."""

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from onepass.cache.commandline.command import (
    Command,
    main,
    on_terminal,
    print_overview,
    print_version,
)

ROOMS = {
    "run": "All stages, from images to a page of results.",
    "data": "Images become rows: prepare, list, show, similar, verify.",
    "extract": "Run every frozen backbone once over the pixels of a data set.",
    "classify": "Try heads on the stored features, rank them, and keep the best.",
    "finetune": "Train the winning backbone end to end, from its probe.",
    "predict": "Use what won: classes of new pictures, predictions of a split, model files.",
    "report": "Write one self-contained HTML page of a data set's results.",
    "cache": "What is stored: list, show, verify, export, delete, doctor.",
    "doctor": "Say what this machine has for the work, and what it lacks.",
    "completion": "Print what completes commands and flags in a shell: bash, zsh, fish.",
}

EXAMPLES = ("onepass run my-images --budget 30m", "onepass doctor")
OWN_WORDS = {
    "run": "onepass.all_stages",
    "doctor": "onepass.doctor",
    "completion": "onepass.completion",
}

# commands that need what lies on a floor above the room whose word they stand under
FROM_ABOVE = {"cache": ("data", "CACHE_COMMANDS"), "data": ("predict", "DATA_COMMANDS")}


def commands_of(word: str) -> list[Command]:
    """Return the commands of one room's word, with those that a room above it adds."""
    found = list(_module(word).COMMANDS)
    if word in FROM_ABOVE:
        room, name = FROM_ABOVE[word]
        found += getattr(import_module(f"onepass.{room}.__main__"), name)
    return found


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command of one room and return its exit code; see `onepass.cache.commandline.command.main`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("--version", "-V"):
        return on_terminal(print_version)
    if not arguments or arguments[0] not in ROOMS:
        return on_terminal(print_overview, "onepass", list(ROOMS.items()), arguments, EXAMPLES)
    word = arguments[0]
    moved = getattr(_module(word), "MOVED", None)
    return main(word, commands_of(word), arguments[1:], moved=moved)


def _module(word: str) -> ModuleType:
    """Import what has the commands of a word: its room, or a module of ours where the word is no room."""
    return import_module(OWN_WORDS.get(word, f"onepass.{word}.__main__"))


if __name__ == "__main__":
    sys.exit(run())
