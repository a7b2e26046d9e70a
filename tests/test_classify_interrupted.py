"""Sweeps and probes in real processes that are killed: the same command goes on."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import processes
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from conftest import fields_of

SWEEP = "--learning-rate 1e-3 3e-3 --penalty 0 l2:1e-4 --mixup 0.2 --dropout 0.4 --seeds 0 --epochs 24 --keep 2"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("interrupted") / "store"
    write_features(store, write_dataset(store, digits()), digits().X)
    return store


def start(store: Path, runs: Path, *words: str) -> processes.Process:
    folders = ["--dataset", NAME, "--cache-dir", str(store), "--runs-dir", str(runs)]
    return processes.start("classify", *words, *folders)


def wait_for(process: processes.Process, folder: Path, pattern: str) -> Path:
    """Return the first file of the pattern that was written since this was called."""
    began = time.time_ns()
    while process.poll() is None:
        for path in folder.glob(pattern):
            if path.stat().st_mtime_ns > began:
                return path
        time.sleep(0.002)
    raise AssertionError(f"ended before it wrote {pattern}: {process.communicate()}")


def found(runs: Path) -> tuple:
    """Return what a sweep leaves, without the times."""
    folder = runs / NAME
    (record,) = map(fields_of, (folder / "sweeps").glob("*.json"))
    board = fields_of(folder / "leaderboard.json")
    for part in (record, *board["results"]):
        del part["seconds"], part["made_by"]
    files = sorted((folder / "heads").rglob("*.npz"))
    return record, board, [{n: a.tobytes() for n, a in np.load(f).items()} for f in files]


@pytest.mark.slow
def test_a_killed_sweep_ends_with_the_same_bits(store: Path, tmp_path: Path) -> None:
    words = ("sweep", *SWEEP.split())
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(store, whole, *words)
    assert process.communicate()[1] is not None and process.returncode == 0
    for number, pause in ((signal.SIGKILL, 0.0), (signal.SIGTERM, 0.0), (signal.SIGKILL, 0.05)):
        process = start(store, killed, *words)
        state = wait_for(process, killed / NAME / "sweeps", "dense-*.npz")
        time.sleep(pause)
        process.send_signal(number)
        err = process.communicate()[1]
        assert process.returncode == (75 if number == signal.SIGTERM else -number)
        if number == signal.SIGTERM:
            assert (
                err.endswith("classify: interrupted; the same command resumes\n")
                and "Traceback" not in err
            )
        assert state.exists()
    process = start(store, killed, *words)
    err = process.communicate()[1]
    assert process.returncode == 0 and "resuming after epoch" in err
    assert found(killed) == found(whole)
    assert {path.suffix for path in state.parent.iterdir()} == {".json", ".toml"}

    process = start(store, killed, *words)
    assert "the same sweep was run before" in process.communicate()[1]


@pytest.mark.slow
def test_a_state_that_cannot_be_read_is_no_state(store: Path, tmp_path: Path) -> None:
    words = ("sweep", "--learning-rate", "1e-3", "--penalty", "0", "--epochs", "3")
    process = start(store, tmp_path, *words)
    assert process.communicate() and process.returncode == 0
    (record,) = (tmp_path / NAME / "sweeps").glob("*.json")
    state = record.with_suffix(".npz")
    state.write_bytes(b"half")
    process = start(store, tmp_path, *words, "--fresh")
    err = process.communicate()[1]
    assert process.returncode == 0 and "was run before" not in err and not state.exists()
    record.unlink()
    state.write_bytes(b"half")
    err = start(store, tmp_path, *words).communicate()[1]
    assert "it begins anew" in err and record.exists() and not state.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_probe_that_was_done_is_kept(store: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = start(store, tmp_path, "--head", "centroid", "mlp", "dense")
    board = wait_for(process, tmp_path / NAME, "leaderboard.json")
    process.send_signal(number)
    err = process.communicate()[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 75)
    if number != signal.SIGKILL:
        assert (
            err.endswith("classify: interrupted; the same command resumes\n")
            and "Traceback" not in err
        )
    kept = [one["id"] for one in json.loads(board.read_text())["results"]]
    assert kept
    process = start(store, tmp_path, "--head", "centroid")
    err = process.communicate()[1]
    assert process.returncode == 0 and ": cached" in err
    assert set(kept) <= {one["id"] for one in json.loads(board.read_text())["results"]}
