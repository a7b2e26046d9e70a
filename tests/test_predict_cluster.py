"""New pictures by the workers of a real cluster, started here over loopback from another folder."""

import os
import signal
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import picture_store
import processes
import pytest
from picture_store import KINDS, picture, suffix
from test_data_cluster import cluster_words, two_workers, worker
from test_extract_cluster import Cluster, last_line, wait_for

from onepass.cache.artifacts import to_json
from onepass.cache.cluster.crew import Crew, Part
from onepass.cache.cluster.identity import Identity
from onepass.cache.commandline.command import INTERRUPTED
from onepass.cache.stopping import StopRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
ODD = """
from onepass.predict.pixel_classifier import PixelClassifier
forward = PixelClassifier.forward
PixelClassifier.forward = lambda self, pixels: [1.01 * array for array in forward(self, pixels)]
"""
HELD = """
import time
from pathlib import Path
from onepass.predict.pixel_classifier import PixelClassifier
forward, calls = PixelClassifier.forward, []
def held(self, pixels):
    calls.append(pixels)
    if len(calls) > 1:  # the first batch is noise, by which workers are compared
        Path("{mark}").touch()
        time.sleep(300)
    return forward(self, pixels)
PixelClassifier.forward = held
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with store, results and 70 new pictures, of which three cannot be read, in `new` and in `new.zip`."""
    with picture_store.opened(tmp_path_factory) as places:
        place = places["cache_dir"].parent
        (place / "new").mkdir()
        for number in range(70):
            kind = KINDS[number % len(KINDS)]
            content = picture(kind, number % 3, 5000 + number)
            content = content[:-300] if number in (3, 4, 41) else content
            (place / "new" / f"{number:02} {kind}{suffix(kind)}").write_bytes(content)
        with zipfile.ZipFile(place / "new.zip", "w") as archive:
            for file in sorted((place / "new").iterdir()):
                archive.write(file, file.name)
        yield place


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with two_workers(tmp_path_factory.mktemp("dask"), TINY_BACKBONE="1") as cluster:
        yield cluster


def start(place: Path, *words: str) -> processes.Process:
    places = ("--cache-dir", "store", "--runs-dir", "runs", "--batch-size", "4")
    return processes.start("predict", *words, *places, cwd=place, TINY_BACKBONE="1")


def predict(place: Path, *words: str) -> tuple[int, str]:
    process = start(place, *words)
    _, err = process.communicate()
    return process.wait(), err


def test_the_workers_give_the_answers_of_one_machine(dask: Cluster, place: Path) -> None:
    def both(*words: str) -> tuple[str, bytes]:
        """Return what was said, and the answers, which are those of this machine alone."""
        given = []
        for out, more in (("alone.jsonl", ()), ("together.jsonl", cluster_words(dask))):
            code, err = predict(place, *words, "--out", out, *more)
            assert code == 3, err
            given.append((place / out).read_bytes())
        assert given[0] == given[1]
        return err, given[0]

    with worker(dask, ODD) as odd:
        wait_for(lambda: dask.said("Registered to") == 3, odd)
        err, answers = both("birds", "new", "--top", "3", "--abstain", "0.1")
    assert f"(process {odd.pid}): takes no part: its vectors differ from those of" in err
    assert "2 workers (tensorflow, cpu: " in err and ", Keras in float32)" in err
    assert len(answers.splitlines()) == 70 and answers.count(b"truncated") == 3
    both("birds/r1", "birds/knn", "new.zip", "new/00 jpeg.jpg", "no.jpg", "--prior", "estimate")
    exported = ("predict", "export", "birds/r1", "--cache-dir", "store", "--runs-dir", "runs")
    done = processes.run(*exported, "--out", "folder", cwd=place, TINY_BACKBONE="1")
    assert done.returncode == 0, done.stderr
    both("folder/birds-r1-folder", "new", "--copy-to", "sorted")
    copied = [path for path in (place / "sorted").rglob("*") if path.is_file()]
    assert len(copied) == 67


def test_a_killed_worker_costs_its_pictures_and_a_stopped_driver_leaves_none(
    dask: Cluster, place: Path
) -> None:
    names = [f"new/{path.name}" for path in sorted((place / "new").iterdir())]
    (place / "many.csv").write_text("file\n" + "\n".join(names * 20) + "\n")
    words = ("birds", "many.csv", "--out")
    assert predict(place, *words, "alone.csv")[0] == 3

    process = start(place, *words, "stopped.csv", *cluster_words(dask))
    while "2 workers (" not in process.stderr.readline():
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.wait() == INTERRUPTED and not list(place.glob("*stopped*"))
    before = dask.said("Registered to")
    mark = place / "held"
    with worker(dask, HELD.format(mark=mark)) as third:
        wait_for(lambda: dask.said("Registered to") == before + 1, third)
        process = start(place, *words, "together.csv", *cluster_words(dask))
        wait_for(mark.exists, third)
        os.kill(third.pid, signal.SIGKILL)
        _, err = process.communicate()
    assert process.wait() == 3 and "its process has gone; computed again" in err, err
    assert (place / "together.csv").read_bytes() == (place / "alone.csv").read_bytes()


def test_pictures_that_no_worker_sees_are_one_line(dask: Cluster, place: Path) -> None:
    hidden = "/proc/self/cwd/new/05 deep.png"  # the workers' working directory is another
    code, err = predict(place, "birds", hidden, *cluster_words(dask))
    assert code == 1
    assert f"no worker can take part: {os.uname().nodename}" in (line := last_line(err))
    assert f"the file {hidden} is not there and not " in line
    code, err = predict(place, "birds", "new", hidden, *cluster_words(dask))
    assert code == 1
    assert "6 pictures from new/65" in (line := last_line(err)) or "7 pictures from new/64" in line
    assert f"failed 3 times, at last on {os.uname().nodename}" in line
    assert f"{hidden}: No such file or directory, but it can be read here; expected a file" in line


class OneSlow:
    """Two workers, of which one does not finish part 0 before nobody has been given anything for ten turns."""

    where = start = ""

    def __init__(self, here: Identity) -> None:
        self.here, self.turns, self.busy, self.slow = here, 0, 0, Future[Any]()

    def names(self) -> set[str]:
        self.turns += 1
        if self.turns > self.busy + 10 and not self.slow.done():
            self.slow.set_result({"by": "a", "result": 0})
        return {"a", "b"}

    def submit(self, worker: str, task: str, message: Any) -> Future:
        self.busy = self.turns
        if message == 0:
            return self.slow
        done = Future[Any]()
        done.set_result({"by": worker, "result": message or to_json(self.here)})
        return done


def test_answers_that_wait_for_a_slow_worker_are_bounded() -> None:
    here = Identity.here((), {})
    crew = Crew(OneSlow(here), "room", None, here, StopRequest())  # type: ignore[arg-type]
    waiting, most, order = set[int](), 0, list[int]()
    parts = (Part(number, str(number)) for number in range(100))

    def accept(what: int, _: Any) -> None:
        waiting.add(what)

    def full() -> bool:
        return len(waiting) >= 5

    for _ in crew.accepted("compute", parts, lambda what: what, accept, full):
        most = max(most, len(waiting))
        while len(order) in waiting:
            waiting.remove(len(order))
            order.append(len(order))
    assert order == list(range(100)) and 5 <= most < 5 + 2 * 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("http://localhost/a.png",), "expected files and archives, which the workers of a cluster read"),
        (("--split", "val"), "expected new pictures after the model; a split is predicted here"),
        (("new", "--explain", "why"), "--explain: expected --executor local"),
    ],
)  # fmt: skip
def test_what_a_cluster_does_not_do_is_one_line(
    place: Path, words: tuple[str, ...], why: str
) -> None:
    code, err = predict(place, "birds", *words, "--executor", "dask", "--address", "127.0.0.1:9")
    assert code == 2 and why in last_line(err)
