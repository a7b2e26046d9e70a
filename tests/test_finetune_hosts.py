"""Several processes, as on several hosts, train one network together by JAX."""

import json
import os
import signal
import socket
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import processes
import pytest
from tiny_backbone import unpack_colours

from onepass.cache.arrays import unpack_arrays
from onepass.cache.commandline.command import FAILED, STOPPED
from onepass.cache.errors import UsageError
from onepass.finetune.config import AblateConfig, FinetuneConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]
TRAIN = ("finetune", "--dataset", "colours", "--batch", "16", "--set", "mixup=0.2", "batchnorm=train")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_colours(tmp_path_factory.mktemp("hosts"))


def start(place: Path, *words: str, backend: str = "jax") -> processes.Process:
    places = {"ONEPASS_CACHE": "store", "ONEPASS_RUNS": "runs"}
    how = {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return processes.start(*words, cwd=place, TINY_BACKBONE="1", **places, **how)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start_two(place: Path, *words: str) -> list[processes.Process]:
    where = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2")
    return [start(place, *TRAIN, *words, *where, "--process", i) for i in "01"]


def ended(both: list[processes.Process]) -> list[tuple[int, str, str]]:
    said = [process.communicate() for process in both]
    return [(process.returncode, *words) for process, words in zip(both, said, strict=True)]


def arrays(place: Path, run: str, name: str) -> dict[str, np.ndarray]:
    found = unpack_arrays((place / "runs/colours/finetune" / run / name).read_bytes())
    found.pop("state")
    return found


def test_two_processes_end_with_the_weights_of_one(place: Path) -> None:
    one, two = start(place, *TRAIN, "--epochs", "2", "--run", "one"), start_two(place, "--epochs", "2", "--run", "two", "--json")  # fmt: skip
    assert one.communicate()[1] is not None and one.returncode == 0
    (code, said, errors), (other, same, quiet) = ended(two)
    assert (code, other) == (0, 0), errors + quiet
    ours, theirs = json.loads(said), json.loads(same)
    assert len(ours["devices"]) == 2
    for name in ("loss", "accuracy", "selection_loss"):
        assert [e[name] for e in ours["history"]] == [e[name] for e in theirs["history"]]
    assert "epoch 2 of 2" in errors and "epoch" not in quiet
    for name in ("weights.npz", "checkpoint.npz"):
        expected, found = arrays(place, "one", name), arrays(place, "two", name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-6, err_msg=key)
    folders = [sorted(p.name for p in (place / "runs/colours/finetune" / n).iterdir()) for n in ("one", "two")]  # fmt: skip
    assert folders[0] == folders[1]


def test_killed_stopped_and_resumed(place: Path) -> None:
    words = ("--epochs", "100000", "--checkpoint-every", "0.1s", "--run", "killed", "--no-select")
    checkpoint = place / "runs/colours/finetune/killed/checkpoint.npz"
    for victim in (1, 0):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        both = start_two(place, *words)
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert all(process.poll() is None for process in both), ended(both)
            time.sleep(0.05)
        both[victim].send_signal(signal.SIGKILL)
        found = ended(both)
        code, said, errors = found[1 - victim]
        assert (code, said) == (FAILED, "") and "another one has gone" in errors.splitlines()[-1]
        assert found[victim][0] == -signal.SIGKILL and "Traceback" not in errors
    both = start_two(place, *words)
    while "resuming after epoch" not in (line := both[0].stderr.readline()):
        assert line
    while "epoch" not in both[0].stderr.readline():
        pass
    both[1].send_signal(signal.SIGTERM)
    first, second = ended(both)
    assert first[0] == second[0] == STOPPED
    assert (
        "(another process stops); the same command resumes" in first[1] and "(SIGTERM)" in second[1]
    )


def test_processes_that_cannot_meet(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        words = "--coordinator", where, "--processes", "2", "--process", "0"
        ((code, _, errors),) = ended([start(place, *TRAIN, *words)])
    assert code == FAILED and f"--coordinator {where}: the processes cannot meet there" in errors
    ((code, _, errors),) = ended([start(place, *TRAIN, "--coordinator", "auto")])
    assert code == FAILED and "no Slurm or Open MPI says which processes there are" in errors
    both = start_two(place, "--batch", "15", "--run", "odd")
    for code, _, errors in ended(both):
        assert code == FAILED
        assert "15 images at once cannot be divided by the 2 devices of 2 processes" in errors
    words = "--coordinator", "auto"
    ((code, _, errors),) = ended([start(place, *TRAIN, *words, backend="tensorflow")])
    assert code == FAILED and "with KERAS_BACKEND=jax only, received tensorflow" in errors


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"processes": 2}, "expected --coordinator HOST:PORT with them"),
        ({"coordinator": "auto", "process": 0}, "expected --coordinator HOST:PORT with them"),
        ({"coordinator": "here", "processes": 2, "process": 0}, "expected HOST:PORT"),
        ({"coordinator": "here:1", "processes": 2, "process": 2}, "from 0 to N - 1"),
        ({"coordinator": "here:1", "processes": 2}, "from 0 to N - 1"),
    ],
)
def test_flags_that_do_not_fit_together(flags: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        FinetuneConfig(dataset="colours", **flags)


def test_short_runs_train_on_one_host() -> None:
    with pytest.raises(UsageError, match="expected no --coordinator"):
        AblateConfig(dataset="colours", coordinator="auto")
