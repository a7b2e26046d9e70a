"""Probes, folds and sweeps on the workers of a real cluster, started here over loopback from another folder."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import processes
import pytest
from classify_store import NAME, digits, write_dataset, write_features
from test_data_cluster import cluster_words, two_workers, worker
from test_extract_cluster import Cluster, until, wait_for

from onepass.cache.commandline.command import STOPPED
from onepass.classify.config import ClassifyConfig, SweepConfig
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.pipeline import run_probes
from onepass.classify.resampling.folds import run_folds
from onepass.classify.search.sweep import run_sweeps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
HEADS = ("centroid", "ridge", "logistic")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    data = digits()
    dataset = write_dataset(store, data)
    write_features(store, dataset, data.X)
    write_features(store, dataset, data.X[:, ::2], "half")
    return store


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with two_workers(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


def files(runs: Path) -> dict[str, bytes]:
    """What the probes left, but what says when."""
    found = (runs / NAME / "heads").rglob("*.*")
    return {p.relative_to(runs).as_posix(): p.read_bytes() for p in found if p.name != "command.toml"}  # fmt: skip


def without_times(record: Any) -> Any:
    """A record as it is whenever and wherever it is made."""
    same = {"seconds": 0.0, "made_by": None, "scoring": 0}
    known = {name: value for name, value in same.items() if hasattr(record, name)}
    return replace(record, **known)


def test_the_workers_find_what_one_machine_finds(
    dask: Cluster, store: Path, tmp_path: Path
) -> None:
    found = []
    for place, words in ((tmp_path / "alone", {}), (tmp_path / "together", {"executor": "dask", "address": dask.address})):  # fmt: skip
        common = {"dataset": NAME, "cache_dir": store, "runs_dir": place, **words}
        probes = run_probes(ClassifyConfig(head=HEADS, **common))
        folds = run_folds(ClassifyConfig(head=("centroid", "ridge"), folds=3, **common))
        sweeps = run_sweeps(
            SweepConfig(learning_rate=(1e-3, 4e-3), penalty=("0",), dropout=(0.4,), seeds=(0,), epochs=2, **common)
        )  # fmt: skip
        board = Leaderboard.load(place / NAME, NAME, probes.results[0].dataset_digest)
        found.append((
            [without_times(one) for one in (*board.ranked, *board.baselines)],
            [replace(p, folds=tuple(map(without_times, p.folds))) for p in sorted(folds.found.probes, key=lambda p: p.name)],
            [without_times(one) for one in sweeps.sweeps],
            files(place),
            (probes.ran, folds.ran, sweeps.ran),
        ))  # fmt: skip
    alone, together = found
    assert alone == together
    assert together[-1] == (8, 15, 2)
    again = run_probes(ClassifyConfig(head=HEADS, **common))
    assert (again.ran, again.reused) == (0, 8)


def test_a_stopped_driver_resumes_and_a_killed_worker_costs_its_probe(
    dask: Cluster, store: Path, tmp_path: Path
) -> None:
    words = ("--dataset", NAME, "--cache-dir", str(store), "--runs-dir", "runs", "--head", "centroid", "lda", "ridge")  # fmt: skip

    def start() -> processes.Process:
        return processes.start("classify", *words, *cluster_words(dask), cwd=tmp_path)

    def probes() -> int:
        return len(list((tmp_path / "runs").rglob("head.json")))

    process = start()
    until(probes, process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.wait() == STOPPED and probes() < 8
    with worker(dask) as third:
        wait_for(lambda: dask.said("Registered to") == 3, third)
        process = start()
        until(lambda: probes() > 2, process)
        os.kill(third.pid, signal.SIGKILL)
        _, err = process.communicate()
    assert process.wait() == 0, err
    assert probes() == 8
