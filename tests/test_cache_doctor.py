"""What killed runs leave goes with the next command on that folder, and the rest with `cache doctor`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from onepass.__main__ import run
from onepass.cache.doctor import SETTLED
from onepass.cache.files import write_atomic
from onepass.cache.locks import exclusive
from onepass.cache.rows import Column, RowWriter, ShardKind, parts_folder
from onepass.classify.leaderboard.board import only_writer

KILLED = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from onepass.cache.files import atomic_path
from onepass.cache.locks import exclusive
with exclusive(Path(sys.argv[2])), atomic_path(Path(sys.argv[3])) as temporary:
    temporary.write_bytes(b"half")
    print("written", flush=True)
    sys.stdin.read()
"""


def kill_a_writer(locked: Path, path: Path) -> Path:
    """Kill a process that holds a lock and writes a file; return the temporary file that it leaves."""
    with begun(locked, path) as process:
        process.kill()
    return temporaries(path)[0]


def begun(locked: Path, path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", KILLED, str(ROOT), str(locked), str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"written\n"
    return process


def temporaries(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f".tmp-*-{path.name}"))


@pytest.mark.parametrize("inside", ["result.json", "epochs/epoch-001.npz"])
def test_the_next_writer_of_a_folder_clears_it(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "run"
    left = kill_a_writer(folder, folder / inside)
    other = kill_a_writer(tmp_path / "elsewhere", tmp_path / "other.json")
    with exclusive(folder):
        assert not left.exists() and other.exists()


def test_the_next_writer_of_a_file_clears_what_is_left_of_it(tmp_path: Path) -> None:
    left = kill_a_writer(tmp_path / "a.json", tmp_path / "a.json")
    other = kill_a_writer(tmp_path / "b.json", tmp_path / "b.json")
    with exclusive(tmp_path / "a.json"):
        assert not left.exists() and other.exists()


def test_a_file_that_is_being_written_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    """`predict` writes its answers beside a run, under a lock of their own."""
    folder = tmp_path / "run"
    with begun(folder / "val.csv", folder / "val.csv") as process:
        with exclusive(folder):
            assert len(temporaries(folder / "val.csv")) == 1
        process.communicate(b"")
    assert (folder / "val.csv").read_bytes() == b"half"


def test_the_next_writer_of_a_leaderboard_clears_heads_and_sweeps(tmp_path: Path) -> None:
    left = [
        kill_a_writer(tmp_path / "leaderboard.json", tmp_path / name)
        for name in ("heads/ridge-1/arrays.npz", "sweeps/dense-1.npz", "leaderboard.json")
    ]
    with only_writer(tmp_path):
        assert not any(path.exists() for path in left)


def aged(path: Path) -> Path:
    os.utime(path, (time.time() - 2 * SETTLED,) * 2)
    return path


def begin_and_finish(path: Path, *, begun: int) -> Path:
    """Finish a file of one row, with the shard of another run beside it; return the shard."""
    kind = ShardKind({"content": Column((16,), "uint8")}, "content", {"from": "a test"})
    for number in (begun, 0):
        content = np.full((1, 16), number, np.uint8)
        with RowWriter(path, kind, content, shard_rows=1) as writer:
            writer.write(np.array([0]), {"content": content})
            shard = next(writer.folder.glob("shard-*.h5"))
            if number == begun:
                kept, plan = shard.read_bytes(), (writer.folder / "plan.json").read_bytes()
            if not number:
                writer.finish()
    write_atomic(parts_folder(path) / "plan.json", plan)
    place = parts_folder(path) / f"shard-{begun:02x}.h5"
    write_atomic(place, kept)
    return place


def test_the_doctor_names_what_is_left_and_removes_it_when_asked(tmp_path: Path, capsys) -> None:
    store, runs = tmp_path / "store", tmp_path / "runs"
    left = [
        aged(kill_a_writer(runs / "d/inspection.json", runs / "d/inspection.json")),
        runs / "d/inspection.json.lock",
        store / "d/features/x.h5.parts",
    ]
    begin_and_finish(store / "d/features/x.h5", begun=0)
    resumes = begin_and_finish(store / "d/features/y.h5", begun=9)
    young = kill_a_writer(runs / "d/young.json", runs / "d/young.json")
    left.append(runs / "d/young.json.lock")
    places = ["--cache-dir", str(store), "--runs-dir", str(runs)]
    with begun(runs / "d/report.html", runs / "d/deep/page.html") as process:
        live = temporaries(runs / "d/deep/page.html")[0]
        aged(live)
        left = [path for path in left if runs not in path.parents or path.suffix == ".lock"]
        assert run(["cache", "doctor", *places]) == 0
        out = capsys.readouterr().out
        named = {line.partition(": ")[0] for line in out.splitlines()[:-2]}
        assert named == set(map(str, left)) and "--clean" in out.splitlines()[-1]
        assert str(runs) in out.splitlines()[-1] and all(path.exists() for path in left)
        assert run(["cache", "doctor", "--clean", *places]) == 0
        assert not any(path.exists() for path in left)
        assert live.exists() and young.exists() and (runs / "d/report.html.lock").exists()
        process.communicate(b"")
    capsys.readouterr()
    assert run(["cache", "doctor", "--clean", *places]) == 0
    assert "temporary file" in capsys.readouterr().out and not aged_left(runs)
    aged(young)
    assert run(["cache", "doctor", "--clean", *places]) == 0
    assert run(["cache", "doctor", *places]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Nothing is left of killed runs."
    assert resumes.exists() and (store / "d/features/x.h5").exists()


def aged_left(folder: Path) -> list[Path]:
    old = time.time() - SETTLED
    return [path for path in folder.rglob(".tmp-*") if path.stat().st_mtime < old]


WORKERS = """
import os, sys, time; sys.path.insert(0, sys.argv[1])
import numpy as np
from onepass.classify.resampling import parallel

def work(views, number):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once: the other one writes as well
    time.sleep(60)

parallel.is_small, parallel.cores, parallel.WORTH = (lambda *sizes: True), (lambda: 2), 0
list(parallel.side_by_side(work, [1, 2], (np.zeros((2, 2), np.float32),), 2, 2))
"""


def test_the_workers_of_a_killed_command_end(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORKERS)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "work.py"), str(ROOT)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    ends = time.monotonic() + 50  # they sleep for 60
    while any(map(is_alive, workers)) and time.monotonic() < ends:
        time.sleep(0.1)
    alive = [pid for pid in workers if is_alive(pid)]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie that nobody waits for has ended as well
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
