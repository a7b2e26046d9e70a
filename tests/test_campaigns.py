"""The long campaigns against kills, flipped bits and power cuts, in a short form."""

import shutil

import processes
import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow


def campaign(name: str, *flags: str) -> list[list[str]]:
    """Run a campaign; return the cells of its table."""
    done = processes.run(str(ROOT / "benchmarks" / name), *flags, PROGRAM="1")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line[:1] == "|"]
    return rows[2:]


def test_killed_commands_end_as_if_nothing_had_been() -> None:
    rows = campaign("kills.py", "--kills", "2", "--stage", "extract")
    assert [(name, bad) for name, _, _, bad in rows] == [("extract", "0")]


def test_a_turned_bit_is_refused_or_without_effect() -> None:
    rows = campaign("flips.py", "--flips", "3", "--kind", "pixels.h5", "--kind", "manifest.h5")
    assert [(row[0], row[6]) for row in rows] == [("pixels.h5", "0"), ("manifest.h5", "0")]


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_a_power_cut_costs_no_more_than_what_was_not_synced() -> None:
    (row,) = campaign("power_loss.py", "--every", "9", "--stage", "prepare")
    name, changes, states, resumed, refused, failed = row
    assert (name, refused, failed) == ("prepare", "0", "0")
    assert 2 < int(states) == int(resumed) and int(changes) > 50


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_a_full_disk_is_said_and_the_same_command_again_ends_as_undisturbed() -> None:
    (row,) = campaign("full_disk.py", "--every", "20", "--stage", "prepare")
    name, _, tried, said, without, missed, failed = row
    assert (name, missed, failed) == ("prepare", "0", "0")
    assert int(tried) == int(said) + int(without) > 3
