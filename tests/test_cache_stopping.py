"""Real signals to a real process: the first asks, the second interrupts."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from conftest import ROOT
from onepass.cache.commandline.signals import interrupt_on_signals, stop_on_signals
from onepass.cache.stopping import StopRequest

WORK = """
import sys, time; sys.path.insert(0, sys.argv[1])
from onepass.cache.commandline.command import Command, OnSignal, main
from onepass.cache.commandline.flags import StoreConfig
from dataclasses import dataclass

@dataclass
class Result:
    stopped: str

def stop_at_a_step(config, stop):
    print("ready", flush=True)
    while not stop.reason:
        time.sleep(0.01)
    print("asked", stop.reason, flush=True)
    if sys.argv[2] == "stubborn":
        time.sleep(60)
    return Result(stop.reason if sys.argv[2] == "willing" else "")

def wait(config):
    print("ready", flush=True)
    time.sleep(60)

how = {"resumes": OnSignal.RESUME, "ends": OnSignal.END}.get(sys.argv[2], OnSignal.STOP)
work = stop_at_a_step if how is OnSignal.STOP else wait
sys.exit(main("work", [Command("", "", StoreConfig, work, lambda result: "clean end", how)], []))
"""


def start(how: str) -> subprocess.Popen:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORK, ROOT, how],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stdout and worker.stdout.readline() == "ready\n"
    return worker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("how", "code"), [("willing", 75), ("almost done", 0)])
def test_a_signal_asks_and_the_work_ends_by_itself(
    number: signal.Signals, how: str, code: int
) -> None:
    """75 says that work is left; who was asked at the very end and is done says 0."""
    worker = start(how)
    worker.send_signal(number)
    out, err = worker.communicate()
    assert out == f"asked {number.name}\nclean end\n"
    assert (
        err == f"{number.name}: stopping at the next safe point; once more to interrupt at once\n"
    )
    assert worker.returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("how", "code", "said"),
    [("resumes", 75, "interrupted; the same command resumes"), ("ends", 130, "interrupted")],
)
def test_work_without_safe_points_is_interrupted_at_once(
    number: signal.Signals, how: str, code: int, said: str
) -> None:
    worker = start(how)
    worker.send_signal(number)
    out, err = worker.communicate()
    assert (out, err, worker.returncode) == ("", f"onepass work: {said}\n", code)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_interrupts_at_once(second: signal.Signals) -> None:
    worker = start("stubborn")
    worker.send_signal(signal.SIGTERM)
    assert worker.stdout and worker.stdout.readline() == "asked SIGTERM\n"
    worker.send_signal(second)
    out, err = worker.communicate()
    assert (
        out == ""
        and err.endswith("onepass work: interrupted; the same command resumes\n")
        and "Traceback" not in err
    )
    assert worker.returncode == 75


def test_a_time_limit_asks_when_it_is_over(clock: list[float]) -> None:
    stop = StopRequest().limit(60)
    assert stop.reason == ""
    clock[0] += 59.9
    assert stop.reason == ""
    clock[0] += 0.1
    assert stop.reason == "time limit"
    assert StopRequest().limit(None).reason == ""


def test_handlers_are_put_back_even_after_an_error() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(KeyError), stop_on_signals(StopRequest()):
        assert [signal.getsignal(number) for number in numbers] != before
        raise KeyError
    with pytest.raises(KeyError), interrupt_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
        raise KeyError
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_request_wins_over_the_time_limit(clock: list[float], capfd) -> None:
    with stop_on_signals(StopRequest().limit(1)) as stop:
        clock[0] += 2
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "SIGTERM"
    assert "SIGTERM" in capfd.readouterr().err


def test_any_thread_may_ask() -> None:
    stop = StopRequest()
    asker = threading.Thread(target=stop.ask, args=("enough",))
    asker.start()
    asker.join()
    assert stop.reason == "enough"
