"""One writer at a time."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from onepass.cache.errors import LockedError, OnepassError
from onepass.cache.locks import exclusive

HOLD = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from onepass.cache.locks import exclusive
with exclusive(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen:
    """Start a process that holds the lock until its standard input ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, ROOT, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout and holder.stdout.readline() == "held\n"
    return holder


def end(holder: subprocess.Popen) -> None:
    holder.communicate()
    assert holder.returncode in (0, -9)


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.h5"
    holder = hold(path)
    try:
        said = rf"a\.h5: process {holder.pid} is writing it now"
        with pytest.raises(LockedError, match=said), exclusive(path):
            pytest.fail("two writers")
        with exclusive(path.with_name("b.h5")):  # another file is free
            pass
    finally:
        end(holder)
    with exclusive(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    holder = hold(path)
    holder.kill()
    end(holder)
    assert (tmp_path / "a.h5.lock").exists()  # its file stays, its lock does not
    with exclusive(path):
        assert (tmp_path / "a.h5.lock").read_text() == str(os.getpid())
    assert not (tmp_path / "a.h5.lock").exists()


def test_the_lock_is_free_after_an_error_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(KeyError), exclusive(path):
        raise KeyError
    with exclusive(path):
        pass


def test_a_file_whose_name_was_taken_away_meanwhile_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former holder unlinks the name between our opening the file and our locking it."""
    path, lock, real = tmp_path / "a", tmp_path / "a.lock", fcntl.flock

    def late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        lock.unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with exclusive(path):
        assert lock.read_text() == str(os.getpid())
        with pytest.raises(LockedError), exclusive(path):
            pytest.fail("two writers")


def test_a_system_without_locks_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onepass.cache.flock.fcntl", None)
    with pytest.raises(OnepassError, match=r"no POSIX file locks.*WSL"), exclusive(tmp_path / "a"):
        pytest.fail("not locked")


def test_every_command_can_be_asked_for_help_without_fcntl(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from onepass.__main__ import run\n"
        "for room in ('data', 'extract', 'classify', 'finetune', 'predict', 'report', 'cache'):\n"
        "    try: run([room, '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
        "sys.exit(run(['data', 'prepare', 'digits']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 1 and "no POSIX file locks" in found.stderr
    assert "Traceback" not in found.stderr
