"""A command: its flags, its work, its exit code, and what it prints."""

import argparse
import io
import json
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from onepass.cache.artifacts import to_json
from onepass.cache.commandline.advice import places_of, with_advice
from onepass.cache.commandline.config_file import take_flags, write_flags
from onepass.cache.commandline.flags import make_parser
from onepass.cache.commandline.signals import interrupt_on_signals, stop_on_signals
from onepass.cache.commandline.terminal import Terminal, mute, printable, reserve_descriptors
from onepass.cache.errors import OnepassError, UsageError
from onepass.cache.made_by import own_version, recorded_command
from onepass.cache.progress import progress_to
from onepass.cache.stopping import StopRequest

log = logging.getLogger(__name__)

DONE, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3
STOPPED, INTERRUPTED = 75, 130  # 75: EX_TEMPFAIL of sysexits.h


class OnSignal(Enum):
    """What Ctrl-C and SIGTERM do to a command."""

    STOP = "the work is asked to end at its next safe point; a second signal ends it at once"
    RESUME = "it ends at once; what was finished is kept, and the same command resumes"
    END = "it ends at once"


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a package.

    Attributes:
        name: The word after the package's; "" for the package's own command.
        summary: One line for `--help`.
        config: A dataclass whose fields are the flags.
        work: Does it; imports what it needs inside, so that `--help` stays fast. With
            `OnSignal.STOP` it takes the `StopRequest` as its second argument.
        text: Turns the result into what a person reads.
        on_signal: What Ctrl-C and SIGTERM do.
        made: Returns the file or folder that a result says was made, if one was; the command is written
            beside it, to be given again with `--config`.
        examples: Two command lines that run as they stand, for the end of `--help`.
    """

    name: str
    summary: str
    config: type
    work: Callable[..., Any]
    text: Callable[[Any], str]
    on_signal: OnSignal = OnSignal.END
    made: Callable[[Any], Path | None] | None = None
    examples: tuple[str, ...] = ()


def main(
    package: str,
    commands: Sequence[Command],
    argv: Sequence[str] | None = None,
    *,
    moved: Mapping[str, str] | None = None,
) -> int:
    """Run one package's command line and return its exit code.

    `moved` gives the present spelling of commands that the package had before.

    0: done. 1: an error, said in one line. 2: a wrong command line. 3: done, but for inputs that could not
    be read, which the result names. 75: stopped cleanly with work
    left; the same command resumes it. 130: interrupted. A traceback is shown only for a bug of ours.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    now = moved.get(arguments[0]) if moved and arguments else None
    if now:
        print(f"onepass {package} {arguments[0]}: moved; use: {now}", file=sys.stderr)
        return USAGE
    return on_terminal(_run, package, commands, arguments)


def on_terminal(program: Callable[..., int], *arguments: Any) -> int:
    """Return the exit code of a program that prints, whatever the terminal can show and a pipe takes."""
    reserve_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without × or … shows an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return program(*arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe (`| head`) has seen enough
        mute("stdout")
        return DONE
    except OSError as error:  # of printing: the errors of the work have been said
        mute("stdout")
        Terminal().line(f"onepass: what it prints cannot be written ({error.strerror})")
        return FAILED
    finally:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            mute("stderr")


def _run(package: str, commands: Sequence[Command], arguments: list[str]) -> int:
    """Parse the arguments, do the work, print the result; return the exit code."""
    program = f"onepass {package}"
    command = _choose(commands, arguments)
    if command is None:
        return _overview(program, commands, arguments)
    more = [(f"{program} {c.name}", c.summary) for c in commands if c.name and not command.name]
    parsed = _parsed(program, command, arguments, more)
    return _answered(program, command, parsed, arguments)[0]


def _parsed(
    program: str, command: Command, arguments: Sequence[str], more: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Return the flags of a command: what the command line says, else the file that it names with `--config`."""
    parser = parser_of(program, command, more)
    words = list(arguments)[1:] if command.name else list(arguments)
    reader = argparse.ArgumentParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    reader.add_argument("--config", type=Path)
    if file := reader.parse_known_args(words)[0].config:
        try:
            take_flags(parser, file, _name(program, command))
        except UsageError as error:
            parser.error(str(error))
    return vars(parser.parse_args(words))


def _name(program: str, command: Command) -> str:
    """Return the words that follow `onepass`."""
    return f"{program.removeprefix('onepass ')} {command.name}".strip()


def parser_of(
    program: str, command: Command, more: Sequence[tuple[str, str]] = ()
) -> argparse.ArgumentParser:
    """Return the parser of a command of `program`; `more` is what else stands under that word."""
    name = f"{program} {command.name}".strip()
    end = "\n\n".join(
        filter(None, [listed("more commands:", more), examples_text(command.examples)])
    )
    return make_parser(name, command.summary, command.config, end)


def give(word: str, commands: Sequence[Command], arguments: Sequence[str]) -> tuple[int, Any]:
    """Give a command within another one: what it prints is printed.

    Args:
        word: Of its room.
        commands: Of that room.
        arguments: What follows the word; a command of another name than the room's comes first.

    Returns:
        Its exit code, and its result; None where it has none.
    """
    command = _choose(commands, list(arguments))
    if command is None:
        raise UsageError(f"onepass {word}: expected a command")
    program = f"onepass {word}"
    parsed = _parsed(program, command, arguments)
    return _answered(program, command, parsed, arguments)


def _answered(
    program: str, command: Command, parsed: dict[str, Any], arguments: Sequence[str]
) -> tuple[int, Any]:
    """Do the work and print what there is to be said; return exit code and result."""
    as_json, quiet, verbose = (parsed.pop(name) for name in ("json", "quiet", "verbose"))
    parsed.pop("config")
    outer = Terminal.in_use()  # of a command that gives this one
    with ExitStack() as stack:
        terminal = outer or stack.enter_context(Terminal(quiet=quiet, verbose=verbose))
        stack.enter_context(progress_to(terminal.progress))
        stack.enter_context(places_of(parsed))
        stack.enter_context(recorded_command(f"{program} {shlex.join(arguments)}".strip()))
        try:
            settings = {k: tuple(v) if isinstance(v, list) else v for k, v in parsed.items()}
            config = command.config(**settings)
            result = _work(command, config)
            _keep_flags(command, _name(program, command), config, result)
            text = _json_object(result) if as_json else command.text(result)
        except OnepassError as error:
            terminal.line(f"{program}: {with_advice(str(error), error.remedy)}")
            return error.exit_code, None
        except OSError as error:  # a folder that cannot be written, a disk that is gone
            where = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            terminal.line(f"{program}: {with_advice(where, None)}")
            return FAILED, None
        except MemoryError:
            less = "; --memory SIZE lets it take less" if "memory" in parsed else ""
            terminal.line(
                f"{program}: not enough memory: close other programs or raise the limit of memory{less}"
            )
            return FAILED, None
        except KeyboardInterrupt:
            resumes = command.on_signal is not OnSignal.END
            anew = (
                ", without --fresh," if parsed.get("fresh") else ""
            )  # which would delete what is kept
            more_words = f"; the same command{anew} resumes" if resumes else ""
            terminal.line(f"{program}: interrupted{more_words}")
            return STOPPED if resumes else INTERRUPTED, None
    if not (outer and outer.quiet):
        print(text if as_json else printable(text))
    if getattr(result, "stopped", ""):
        return STOPPED, result
    return INCOMPLETE if getattr(result, "incomplete", False) else DONE, result


def _keep_flags(command: Command, name: str, config: Any, result: Any) -> None:
    """Write the command beside what it made, if that is not in a store that is only read."""
    made = command.made(result) if command.made else None
    if made is None or any(made.is_relative_to(store) for store in config.store.read_from):
        return
    try:
        write_flags(made, name, config)
    except (OSError, OnepassError) as error:  # the work itself is done
        log.warning(f"the command cannot be written beside {made}: {error}")


def _work(command: Command, config: Any) -> Any:
    """Do the work with the command's own answer to signals."""
    if command.on_signal is OnSignal.STOP:
        with stop_on_signals(StopRequest()) as stop:
            return command.work(config, stop)
    with interrupt_on_signals():
        return command.work(config)


def _json_object(result: Any) -> str:
    """Return a result as one JSON object, whatever it is, in plain ASCII."""
    value = to_json(result)
    return json.dumps(value if isinstance(value, dict) else {"result": value}, allow_nan=False)


def _choose(commands: Sequence[Command], arguments: list[str]) -> Command | None:
    """Return the command that the first word names, else the package's own command."""
    by_name = {command.name: command for command in commands}
    if arguments and arguments[0] in by_name:
        return by_name[arguments[0]]
    return by_name.get("")


def _overview(program: str, commands: Sequence[Command], arguments: list[str]) -> int:
    """Print what a package without a command of its own can do; a wrong word is a usage error."""
    names = [(command.name, command.summary) for command in commands]
    examples = [command.examples[0] for command in commands if command.examples]
    return print_overview(program, names, arguments, examples[:2])


def print_overview(
    program: str,
    words: Sequence[tuple[str, str]],
    arguments: Sequence[str],
    examples: Sequence[str] = (),
) -> int:
    """Print the words that may follow `program`; without `--help` that is a usage error."""
    lines = [listed(f"usage: {program} {{{','.join(word for word, _ in words)}}} …\n", words)]
    lines += ["", examples_text(examples)] if examples else []
    asked = bool(arguments) and arguments[0] in ("-h", "--help")
    wrong = bool(arguments) and not asked
    first = [f"{program}: expected a command, received {arguments[0]!r}"] if wrong else []
    print("\n".join(first + lines), file=sys.stdout if asked else sys.stderr)
    return DONE if asked else USAGE


def print_version() -> int:
    """Print which version this is."""
    print(f"onepass {own_version()}")
    return DONE


def listed(head: str, words: Sequence[tuple[str, str]]) -> str:
    """Return words, each with what it does, below a line; "" where there are none."""
    width = max((len(word) for word, _ in words), default=0)
    lines = [f"  {word:<{width}}  {summary}" for word, summary in words]
    return "\n".join([head, *lines]) if lines else ""


def examples_text(examples: Sequence[str]) -> str:
    """Return command lines as the end of `--help`; "" where there are none."""
    return "\n".join(["examples:", *(f"  {line}" for line in examples)]) if examples else ""
