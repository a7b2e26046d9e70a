"""One line that says how far, how fast and how long still; libraries that must keep quiet."""

import logging
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from conftest import ROOT
from onepass.cache.commandline.terminal import Terminal
from onepass.cache.progress import (
    Progress,
    ProgressUpdate,
    counted,
    human_bytes,
    human_seconds,
    progress_to,
)
from onepass.cache.stderr import suppress_stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"), (7500, "2 h 05 min"), (360_000, "100 h 00 min"),
    ],
)  # fmt: skip
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_960, "1.0 MB"),
        (16_000_000, "16.0 MB"), (1_300_000_000, "1.3 GB"), (4_200_000_000_000, "4200.0 GB"),
    ],
)  # fmt: skip
def test_bytes_for_people(count: float, text: str) -> None:
    assert human_bytes(count) == text


def test_what_is_counted_is_plural_unless_it_is_one() -> None:
    assert [counted(n, "image") for n in (0, 1, 2100)] == ["0 images", "1 image", "2,100 images"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_line_counts_this_runs_rows_for_the_rate(clock: list[float]) -> None:
    progress = Progress(10_000, "rows", "lite0@64", done=4000, note=lambda: "bound by device")
    assert str(progress.update()) == "lite0@64: 4,000 / 10,000 rows · 0 rows/s · bound by device"
    clock[0] += 10
    progress.advance(2000)
    assert str(progress.update()) == "lite0@64: 6,000 / 10,000 rows · 200 rows/s · 20 s left · bound by device"  # fmt: skip
    clock[0] += 20
    progress.advance(4000)
    assert str(progress.update()) == "lite0@64: 10,000 / 10,000 rows · 200 rows/s · 30 s · bound by device"  # fmt: skip


def test_a_callback_gets_every_update_and_nothing_is_printed(clock: list[float], capsys) -> None:
    updates: list[ProgressUpdate] = []
    with progress_to(updates.append), Progress(3, "images", "packing") as progress:
        for _ in range(3):
            clock[0] += 1
            progress.advance(1)
    assert [(u.done, u.rate, u.finished) for u in updates] == [
        (1, 1.0, False), (2, 1.0, False), (3, 1.0, False), (3, 1.0, True),
    ]  # fmt: skip
    with Progress(1) as progress:  # nobody listens
        progress.advance(1)
    assert len(updates) == 4 and capsys.readouterr() == ("", "")


def test_work_that_ends_soon_says_nothing(clock: list[float]) -> None:
    updates: list[ProgressUpdate] = []
    for seconds, told in ((1.0, []), (3.0, [(9, False), (9, True)])):
        with progress_to(updates.append), Progress(9, "images", after=5.0) as progress:
            progress.advance(4)
            clock[0] += 2 * seconds
            progress.advance(5)
        assert [(update.done, update.finished) for update in updates] == told


def test_units_of_another_kind_do_not_count_for_the_rate(clock: list[float]) -> None:
    """The first step of an epoch compiles, or is under way and not done."""
    updates: list[ProgressUpdate] = []
    with progress_to(updates.append), Progress(100, "images", "epoch 2") as progress:
        progress.skip(10)
        assert not updates
        clock[0] += 3
        progress.advance(30)
    assert str(updates[0]) == "epoch 2: 40 / 100 images · 10 images/s · 6 s left"


def test_the_last_update_comes_after_an_error_too() -> None:
    updates: list[ProgressUpdate] = []
    with pytest.raises(KeyError), progress_to(updates.append), Progress(10, label="x") as progress:
        progress.advance(4)
        raise KeyError
    assert updates[-1].finished and str(updates[-1]).startswith("x: 4 / 10 rows")


def test_a_callback_is_for_its_own_block_and_thread() -> None:
    outer: list[ProgressUpdate] = []
    with progress_to(outer.append):
        with progress_to(None), Progress(1):
            pass
        thread = threading.Thread(target=lambda: Progress(1).__exit__(None, None, None))
        thread.start()
        thread.join()
    with Progress(1):
        pass
    assert len(outer) == 1


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock: list[float], capsys) -> None:
    with (
        Terminal() as shown,
        progress_to(shown.progress),
        Progress(100, "images", "packing") as progress,
    ):
        for _ in range(100):
            clock[0] += 0.3
            progress.advance(1)
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err
    assert [line.split(" / ")[0] for line in err.splitlines()] == [
        "packing: 34", "packing: 68", "packing: 100",
    ]  # fmt: skip


def test_a_log_does_not_say_its_end_twice(clock: list[float], capsys) -> None:
    with Terminal() as terminal, progress_to(terminal.progress), Progress(2, label="x") as progress:
        for _ in range(2):
            clock[0] += 20
            progress.advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "x: 1 / 2 rows · 0.1 rows/s · 20 s left", "x: 2 / 2 rows · 0.1 rows/s · 40 s",
    ]  # fmt: skip


def test_a_terminal_gets_one_line_that_is_rewritten_below_what_is_logged(
    clock: list[float], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Terminal() as terminal, progress_to(terminal.progress), Progress(3, label="x") as progress:
        for number in range(3):
            clock[0] += 1
            progress.advance(1)
            if number == 1:
                logging.getLogger("onepass.somewhere").info("a note")
    err = capsys.readouterr().err
    assert err.count("\n") == 2 and err.endswith("\n")
    bars = re.findall(r"\r\x1b\[2K\[([#.]{20})\] x: (\d)", err)
    assert [number for _, number in bars] == ["1", "2", "3", "3"]
    assert [bar.count("#") for bar, _ in bars] == [6, 13, 20, 20]
    assert "\x1b[3" not in err and "\x1b[m" not in err  # no colours, whatever NO_COLOR says
    assert "\r\x1b[2Ka note\n" in err


def test_a_line_is_no_wider_than_the_terminal(
    clock: list[float], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    with Terminal() as terminal, progress_to(terminal.progress), Progress(1, label="x" * 99):
        pass
    assert len(capsys.readouterr().err) == len("\r\x1b[2K") + 39 + len("\n")


def test_a_terminal_that_can_do_nothing_gets_lines(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with Terminal() as terminal, progress_to(terminal.progress), Progress(1, label="x"):
        pass
    assert capsys.readouterr().err.startswith("x: 0 / 1 rows")


def test_quiet_shows_no_progress_and_what_went_wrong_verbose_when_and_where(capsys) -> None:
    log = logging.getLogger("onepass.somewhere")
    for flags in ({"quiet": True}, {}, {"verbose": True}):
        with Terminal(**flags) as terminal, progress_to(terminal.progress), Progress(1, label="x"):
            for say in (log.debug, log.info, log.warning):
                say("a note")
    quiet, *plain, debug, info, warning, last = capsys.readouterr().err.splitlines()
    assert [quiet, *plain[:2]] == ["a note"] * 3 and plain[2:] == [last]
    assert all(
        re.fullmatch(r"\d\d:\d\d:\d\d onepass.somewhere: a note", one)
        for one in (debug, info, warning)
    )


def test_nothing_to_do_is_no_division_by_zero() -> None:
    assert "0 / 0 rows" in str(Progress(0).update())


def test_the_library_is_silent_without_a_command_line(capsys) -> None:
    logging.getLogger("onepass.cache").info("hello")
    with Terminal():
        logging.getLogger("onepass.cache").info("hello, you")
    assert capsys.readouterr() == ("", "hello, you\n")


def run_quietly(body: str) -> subprocess.CompletedProcess:
    """Run lines inside `suppress_stderr` in a process of their own, then say "after"."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from onepass.cache.stderr import suppress_stderr\n"
        "try:\n    with suppress_stderr():\n"
        + "".join(f"        {line}\n" for line in body.splitlines())
        + "except ImportError: pass\nprint('after', file=sys.stderr)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", code, ROOT]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


CHATTER = "os.write(2, b'from C\\n'); print('from Python', file=sys.stderr)"


def test_chatter_of_a_library_is_held_back() -> None:
    done = run_quietly(CHATTER + "\nprint(os.environ['TF_CPP_MIN_LOG_LEVEL'], 'a result')")
    assert (done.stdout, done.stderr) == ("3 a result\n", "after\n")


def test_chatter_is_shown_when_the_block_fails() -> None:
    done = run_quietly(CHATTER + "\nraise ImportError")
    assert (done.stdout, done.stderr) == ("", "from C\nfrom Python\nafter\n")


def test_the_users_own_log_level_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with suppress_stderr():
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_nothing_of_a_start_is_left_open() -> None:
    """Each use borrows two descriptors and gives them back."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from onepass.cache.stderr import suppress_stderr\n"
        "count = lambda: len(os.listdir('/dev/fd'))\n"
        "before = count()\n"
        "for _ in range(3):\n    with suppress_stderr(): pass\n"
        "print(count() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
