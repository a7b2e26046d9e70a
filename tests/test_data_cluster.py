"""Images read and decoded by the workers of a real cluster, started here over loopback from another folder."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image
from test_extract_cluster import Cluster, dask_worker, scheduler, until, wait_for

from onepass.cache.cluster.identity import Identity
from onepass.cache.commandline.command import STOPPED
from onepass.cache.rows import RowFile

pytestmark = pytest.mark.slow
IMAGES, SIDE = 240, 640  # as rows of 320 px, five shards


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, one of which cannot be decoded, and what this machine alone makes of them."""
    place = tmp_path_factory.mktemp("place")
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        folder = place / "pictures" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((SIDE, SIDE)).save(folder / f"{number:03}.jpg")
    (place / "pictures" / "class0" / "broken.jpg").write_bytes(
        (folder / "001.jpg").read_bytes()[:9000]
    )
    done = prepare(place, "alone")
    assert done[0] == 0, done
    return place


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with two_workers(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@contextmanager
def two_workers(folder: Path, **env: str) -> Iterator[Cluster]:
    """A scheduler of Dask and two workers, started from that folder with these environment variables besides."""
    pytest.importorskip("distributed")
    cluster = Cluster("dask", folder)
    cluster.env |= env
    with ExitStack() as stack:
        stack.enter_context(scheduler(cluster))
        started = [stack.enter_context(worker(cluster)) for _ in range(2)]
        wait_for(lambda: cluster.said("Registered to") == 2, *started)
        yield cluster


def worker(cluster: Cluster, first: str = "") -> AbstractContextManager[processes.Process]:
    return dask_worker(cluster, first, "--nthreads", "1")


def start(place: Path, store: str, *words: str) -> processes.Process:
    words = ("--cache-dir", store, "--on-bad", "skip", *words)
    return processes.start("data", "prepare", "pictures", *words, cwd=place)


def prepare(place: Path, store: str, *words: str) -> tuple[int, str, str]:
    process = start(place, store, *words)
    out, err = process.communicate()
    return process.wait(), out, err


def cluster_words(cluster: Cluster) -> tuple[str, ...]:
    return "--executor", cluster.engine, "--address", cluster.address


def digest(place: Path, store: str) -> str:
    file = RowFile.open(place / store / "pictures" / "pixels.h5")
    file.verify()
    return file.digest


def shards(place: Path, store: str) -> int:
    return len(list((place / store).rglob("shard-*.h5")))


def test_the_workers_make_the_file_that_one_machine_makes(dask: Cluster, place: Path) -> None:
    code, out, err = prepare(place, "together", *cluster_words(dask), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["new"] == IMAGES and [bad["name"] for bad in found["skipped"]] == [
        "class0/broken.jpg"
    ]
    assert digest(place, "together") == digest(place, "alone")
    assert "packing: " in err and "2 workers" in err
    code, out, _ = prepare(place, "together", *cluster_words(dask), "--json")
    assert code == 0 and json.loads(out)["carried"] == IMAGES


def test_a_stopped_driver_resumes_and_a_killed_worker_costs_its_shard(
    dask: Cluster, place: Path
) -> None:
    process = start(place, "stopped", *cluster_words(dask))
    until(lambda: shards(place, "stopped"), process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.wait() == STOPPED and shards(place, "stopped")
    with worker(dask) as third:
        wait_for(lambda: dask.said("Registered to") == 3, third)
        process = start(place, "stopped", *cluster_words(dask))
        until(lambda: shards(place, "stopped") > 1, process)
        os.kill(third.pid, signal.SIGKILL)
        _, err = process.communicate()
    assert process.wait() == 0, err
    assert digest(place, "stopped") == digest(place, "alone")


def test_workers_that_see_other_pictures_take_no_part(place: Path) -> None:
    from onepass.data.cluster.messages import Place, identity
    from onepass.data.sources import open_source
    from onepass.data.sources.base import Request

    def seen(folder: Path) -> Identity:
        place = Place("folder", (Request(str(folder), "", folder),))
        with open_source(place.kind, place.requests) as source:
            return identity(source)

    copy = Path(shutil.copytree(place / "pictures", place / "copy"))
    changed = copy / "class0" / "000.jpg"
    changed.write_bytes((copy / "class1" / "001.jpg").read_bytes())
    unlike = seen(copy).unlike(seen(place / "pictures"))
    assert (
        "the list of the images is " in unlike and "what the first images decode to is " in unlike
    )
    assert seen(copy).unlike(seen(copy)) == ""
