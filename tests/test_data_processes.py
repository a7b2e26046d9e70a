"""Many images read and decoded by processes of this machine, with the rows of one process; real ones, killed for real."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image
from processes import ROOT
from test_extract_cluster import until, wait_for

from onepass.cache.cluster.processes import Processes
from onepass.cache.commandline.command import STOPPED
from onepass.cache.errors import ClusterError, OnepassError
from onepass.cache.flock import lock_file
from onepass.cache.rowfile import RowFile
from onepass.cache.rows import RowWriter
from onepass.cache.stopping import StopRequest
from onepass.data import images, pack
from onepass.data.cluster import decoders
from onepass.data.config import PrepareConfig
from onepass.data.images import decode_row
from onepass.data.prepare import prepare_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
IMAGES, SIDE = 120, 64


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, one of which cannot be decoded."""
    folder = tmp_path_factory.mktemp("pictures")
    write(folder, IMAGES, SIDE)
    broken = folder / "class1" / "00007.png"
    broken.write_bytes(broken.read_bytes()[:-300])
    return folder


def write(folder: Path, count: int, side: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % 2}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(path)
        os.utime(path, (1e9, 1e9))  # what has just been written may change yet: it has no stamp


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few images be many, a shard hold ten of them, and this machine have two cores."""
    monkeypatch.setattr(decoders, "MANY", 50)
    monkeypatch.setattr(decoders, "LOOKED_AT", 16)
    monkeypatch.setattr(decoders, "cores", lambda: 2)
    monkeypatch.setattr(pack, "SHARD_BYTES", 10 * 3 * SIDE * SIDE)


def config(pictures: Path, store: Path) -> PrepareConfig:
    return PrepareConfig(kind=str(pictures), name="x", cache_dir=store, on_bad="skip")


def pixels(store: Path) -> bytes:
    file = RowFile.open(store / "x" / "pixels.h5")
    file.verify()
    return file.columns["pixels"].tobytes()


def workers(of: int) -> list[int]:
    """Return the processes that decode for a process."""
    found = subprocess.run(
        ["pgrep", "-P", str(of), "-f", "LokyProcess"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def at_first_shard(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Do something once the first shard has been adopted."""
    adopt, done = RowWriter.adopt, []

    def adopted(self: RowWriter, positions: np.ndarray) -> None:
        adopt(self, positions)
        if not done:
            done.append(do())

    monkeypatch.setattr(RowWriter, "adopt", adopted)


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The rows that one process makes."""
    store = tmp_path_factory.mktemp("alone")
    prepare_dataset(config(pictures, store))
    return pixels(store)


def test_the_processes_make_the_rows_of_one(
    few: None, pictures: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    at_first_shard(monkeypatch, lambda: seen.extend(workers(os.getpid())))
    done = prepare_dataset(config(pictures, tmp_path))
    assert pixels(tmp_path) == alone and len(seen) == 2
    assert done.new == IMAGES - 1 and [bad.name for bad in done.skipped] == ["class1/00007.png"]


def test_memory_for_one_process_starts_no_other(
    few: None, pictures: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "hand_out", None)
    prepare_dataset(replace(config(pictures, tmp_path), memory=1e6))
    assert pixels(tmp_path) == alone


def test_a_stop_keeps_what_is_committed(
    few: None, pictures: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopRequest()
    at_first_shard(monkeypatch, lambda: stop.ask("enough"))
    assert prepare_dataset(config(pictures, tmp_path), stop).state == "stopped"
    kept = len(list(tmp_path.rglob("shard-*.h5")))
    assert 0 < kept < IMAGES / 10
    done = prepare_dataset(config(pictures, tmp_path))
    assert pixels(tmp_path) == alone and done.state != "stopped"
    assert not list(tmp_path.rglob("*.parts"))


def test_a_killed_process_is_one_line_and_costs_what_it_was_at(
    few: None, pictures: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_first_shard(
            patch, lambda: [os.kill(pid, signal.SIGKILL) for pid in workers(os.getpid())]
        )
        with pytest.raises(
            ClusterError, match="was killed, perhaps for want of memory; run the same"
        ):
            prepare_dataset(config(pictures, tmp_path))
    assert list(tmp_path.rglob("shard-*.h5"))
    prepare_dataset(config(pictures, tmp_path))
    assert pixels(tmp_path) == alone


def test_a_picture_that_the_system_refuses_is_the_error_of_one_process(
    few: None, pictures: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(pictures, tmp_path / "copy"))
    closed = copy / "class0" / "00010.png"
    closed.unlink()
    closed.symlink_to("/proc/1/mem")  # there, and refused to everybody
    os.utime(closed, (1e9, 1e9), follow_symlinks=False)
    said = []
    for least in (50, 500):
        decoders.MANY = least
        with pytest.raises(OnepassError) as raised:
            prepare_dataset(config(copy, tmp_path / "store"))
        said.append((type(raised.value), str(raised.value)))
    assert said[0] == said[1]


def test_of_several_processes_one_at_a_time_decodes_an_image_that_is_larger_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process holds the turn: ours waits with a large image, and not with a small one."""
    turn, done = tmp_path / "turn", []
    turn.touch()
    files = {side: io.BytesIO() for side in (8, 800)}
    for side, file in files.items():
        Image.new("RGB", (side, side)).save(file, "png")
    monkeypatch.setattr(images, "_memory", images._memory)
    images.share_memory(images.MEMORY // 1_000_000, turn)
    with turn.open("rb") as held:
        lock_file(held.fileno(), wait=True)
        for side in (8, 800):

            def decode(side: int = side) -> None:
                decode_row(files[side].getvalue(), "a.png", 8, 3, "stretch")
                done.append(side)

            large = threading.Thread(target=decode)
            large.start()
            large.join(2)
        assert done == [8]
    large.join()
    assert done == [8, 800]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_ended_command_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    """The real command, with as many pictures as are worth it; Ctrl-C reaches all processes of a terminal."""
    write(tmp_path / "many", decoders.MANY + 100, 8)
    words = ("data", "prepare", "many", "--name", "x", "--cache-dir", "store")
    command = [sys.executable, "-m", "onepass", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        until(lambda: workers(process.pid), process)
        started = workers(process.pid)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, err = process.communicate()
    assert "Traceback" not in err, err
    assert process.returncode == (-number if number == signal.SIGKILL else STOPPED), err
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    done = processes.run(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["new"] == decoders.MANY + 100
