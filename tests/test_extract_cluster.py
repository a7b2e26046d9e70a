"""Extraction on real clusters, started here over loopback from other working directories."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import processes
import pytest
from PIL import Image
from test_extract_pipeline import committed, features, with_pixels

from conftest import ROOT
from onepass.cache.artifacts import to_json
from onepass.cache.cluster import crew as crew_module
from onepass.cache.cluster.crew import Crew, Part
from onepass.cache.cluster.identity import Identity
from onepass.cache.cluster.workers import listens
from onepass.cache.commandline.command import STOPPED
from onepass.cache.rows import RowFile
from onepass.cache.stopping import StopRequest

TINY = [
    "--dataset", "digits", "--backbone", "tiny", "--size", "32", "--batch", "16", "--shard-rows", "64",
]  # fmt: skip
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the digits and their vectors, computed by this machine alone."""
    folder = tmp_path_factory.mktemp("store")
    assert processes.run("data", "prepare", "digits", "--cache-dir", str(folder)).returncode == 0
    done = processes.run("extract", *TINY, "--cache-dir", str(folder), TINY_BACKBONE="1")
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def running(*words: str, cwd: Path, **env: str) -> Iterator[subprocess.Popen]:
    """A process of an engine, which ends with the block."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    with (cwd / f"{time.monotonic_ns()}.log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / words[0]), *words[1:]],
            cwd=cwd,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            # Ray's ends what it has started; Dask's have started nothing, and take their time.
            process.send_signal(signal.SIGTERM if words[0] == "ray" else signal.SIGKILL)
            with suppress(
                subprocess.TimeoutExpired
            ):  # a head whose other half was killed may never end
                process.wait(20)
            with suppress(ProcessLookupError):  # what Ray's left behind, or all of it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# Dask's processes look at themselves a hundred times a second, whether they work or not.
IDLE = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}


class Cluster:
    """A running cluster.

    Attributes:
        engine: "dask" or "ray".
        address: Of it.
        folder: Where its processes work, and leave their logs.
        env: Of its workers.
        odd: Number of the process that computes other bits.
        head: Number of the process that started Ray.
        faults: See `cluster_worker`.
    """

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine, self.folder, self.faults = engine, folder, folder / "faults"
        self.faults.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        self.odd = self.head = 0
        self.env = {"FAULTS": str(self.faults), **IDLE}

    def worker(self) -> AbstractContextManager[processes.Process]:
        """Start another worker of Dask."""
        return dask_worker(self, "import cluster_worker; cluster_worker.install()")

    def odd_worker(self) -> AbstractContextManager[subprocess.Popen]:
        """Start one that computes other bits: it imports TensorFlow itself, with another setting."""
        hook = str(ROOT / "tests" / "cluster_worker.py")
        words = (*dask_words(self), "--preload", hook)
        return running("dask", *words, cwd=self.folder, **self.env, TF_ENABLE_ONEDNN_OPTS="0")

    @contextmanager
    def fault(self, **faults: str) -> Iterator[None]:
        for name, value in faults.items():
            (self.faults / name).write_text(value)
        yield
        for name in faults:
            (self.faults / name).unlink()

    def said(self, words: str) -> int:
        """In how many logs some words stand."""
        return sum(words in log.read_text() for log in self.folder.glob("*.log"))

    def pids(self) -> set[int]:
        """Of the workers that have begun a shard."""
        return {int(path.name.removeprefix("pid-")) for path in self.faults.glob("pid-*")}

    def words(self, store: Path, *flags: str) -> list[str]:
        cluster = ["--executor", self.engine, "--address", self.address]
        return ["extract", *TINY, *cluster, "--cache-dir", str(store), *flags]

    def start(self, store: Path, *flags: str) -> processes.Process:
        return processes.start(*self.words(store, *flags), TINY_BACKBONE="1")

    def run(self, store: Path, *flags: str) -> tuple[int, str, str]:
        process = self.start(store, *flags)
        out, err = process.communicate()
        return process.wait(), out, err


WORKER = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.dup2(log, 1), os.dup2(log, 2)
sys.argv = ["dask", *sys.argv[2:]]
{first}
from dask.__main__ import main
main()
"""


def dask_words(cluster: Cluster) -> tuple[str, ...]:
    return "worker", cluster.address, "--no-nanny", "--no-dashboard"


@contextmanager
def dask_worker(cluster: Cluster, first: str = "", *more: str) -> Iterator[processes.Process]:
    """A worker of Dask, forked from where everything is imported, which ends with the block."""
    log = str(cluster.folder / f"{time.monotonic_ns()}.log")
    words = ("-c", WORKER.format(first=first), log, *dask_words(cluster), *more)
    process = processes.start(*words, cwd=cluster.folder, PROGRAM="1", **cluster.env)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler, two workers, and one that computes other bits."""
    pytest.importorskip("distributed")
    cluster = Cluster("dask", tmp_path_factory.mktemp("dask"))
    with ExitStack() as stack:
        stack.enter_context(scheduler(cluster))
        workers = (cluster.worker(), cluster.worker(), cluster.odd_worker())
        started = [stack.enter_context(worker) for worker in workers]
        wait_for(lambda: cluster.said("Registered to") == 3, *started)
        cluster.odd = started[-1].pid
        yield cluster


def scheduler(cluster: Cluster) -> AbstractContextManager[subprocess.Popen]:
    host, port = cluster.address.split(":")
    words = ("scheduler", "--host", host, "--port", port, "--no-dashboard")
    return running("dask", *words, cwd=cluster.folder, **IDLE)


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head with one worker."""
    pytest.importorskip("ray")
    cluster = Cluster("ray", tmp_path_factory.mktemp("ray"))
    (cluster.folder / "sitecustomize.py").symlink_to(ROOT / "tests" / "cluster_worker.py")
    host, port = cluster.address.split(":")
    words = [
        "start",
        "--head",
        "--block",
        "--node-ip-address",
        host,
        "--port",
        port,
        "--num-cpus",
        "1",
    ]
    words += ["--include-dashboard", "false", "--disable-usage-stats"]
    path = f"{ROOT}{os.pathsep}{cluster.folder}"
    # Ray would kill a worker for the memory that others take on this machine.
    env = {**cluster.env, "PYTHONPATH": path, "RAY_memory_monitor_refresh_ms": "0"}
    with running("ray", *words, cwd=cluster.folder, **env) as head:
        wait_for(lambda: listens(cluster.address), head)
        cluster.head = head.pid
        yield cluster


def feature_file(store: Path) -> Path:
    return store / "digits" / "features" / "tiny@32.h5"


def check_bits(fresh: Path, store: Path) -> None:
    assert features(fresh, "tiny@32").tobytes() == features(store, "tiny@32").tobytes()
    RowFile.open(feature_file(fresh)).verify()


def wait_for(ready: Callable[[], Any], *started: subprocess.Popen | processes.Process) -> None:
    while not ready():
        assert all(process.poll() is None for process in started)
        time.sleep(0.1)


def until(ready: Callable[[], Any], process: processes.Process) -> None:
    while not ready():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def last_line(err: str) -> str:
    assert "Traceback" not in err, err
    return err.strip().splitlines()[-1]


def signalled(cluster: Cluster, store: Path, number: signal.Signals) -> tuple[int, str]:
    """Send a driver a signal once two more shards are committed; return its exit code and output."""
    before = committed(feature_file(store))
    process = cluster.start(store)
    until(lambda: committed(feature_file(store)) >= before + 2, process)
    begin = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate()
    assert time.monotonic() - begin < 60, err
    return process.wait(), out


def kill_a_worker(cluster: Cluster, process: processes.Process, before: set[int]) -> int:
    """Kill a worker with SIGKILL while it computes; return its number."""
    until(lambda: cluster.pids() - before, process)
    killed = (cluster.pids() - before).pop()
    os.kill(killed, signal.SIGKILL)
    return killed


def test_dask_computes_the_same_bits_by_workers_that_are_alike(
    dask: Cluster, store: Path, tmp_path: Path
) -> None:
    fresh = with_pixels(store, tmp_path)
    code, out, err = dask.run(fresh, "--json")
    assert code == 0, err
    (file,) = json.loads(out)["files"]
    assert file["state"] == "computed" and file["rows"] == 1797
    check_bits(fresh, store)
    assert "2 workers, bound by" in err
    said = next(line for line in err.splitlines() if "takes no part" in line)
    assert f"(process {dask.odd}): takes no part: its vectors differ from those of" in said
    assert "TF_ENABLE_ONEDNN_OPTS is 0 and not unset" in said and dask.odd not in dask.pids()
    devices = RowFile.open(feature_file(fresh)).attributes["extraction"]["devices"]
    assert devices == [f"{socket.gethostname()} cpu:0"] * len(devices) and devices
    code, out, err = dask.run(fresh, "--json")
    assert code == 0 and json.loads(out)["files"][0]["state"] == "cached"


class Willing:
    """Two workers that answer at once; `given` has what each was given."""

    where = start = ""

    def __init__(self, here: Identity) -> None:
        self.here, self.given = here, list[tuple[str, str]]()

    def names(self) -> set[str]:
        return {"a", "b"}

    def submit(self, worker: str, task: str, message: Any) -> Future:
        self.given.append((worker, task.partition(":")[2]))
        done = Future[Any]()
        done.set_result({"by": worker, "result": message or to_json(self.here)})
        return done


def test_what_one_is_asked_the_others_may_do_meanwhile() -> None:
    workers = Willing(Identity.here((), {}))
    crew = Crew(workers, "room", None, workers.here, StopRequest())  # type: ignore[arg-type]
    assert crew.on_one("make jobs", 1) == 1 and crew.on_one("measure", 2, others_too=True) == 2
    asked = sorted(task for _, task in workers.given)
    assert asked == ["look", "look", "make jobs", "measure", "measure"]
    assert {worker for worker, task in workers.given if task == "measure"} == {"a", "b"}


class Thoughtful(Willing):
    """The same, but a part is finished at the sixth look at who is there after it was given."""

    def __init__(self, here: Identity) -> None:
        super().__init__(here)
        self.under_way: list[tuple[int, Future]] = []

    def names(self) -> set[str]:
        self.under_way = [(left - 1, future) for left, future in self.under_way]
        for left, future in self.under_way:
            if left == 0:
                future.set_result({"by": "a", "result": 0})
        return super().names()

    def submit(self, worker: str, task: str, message: Any) -> Future:
        done = super().submit(worker, task, message)
        if not message:
            return done
        self.under_way.append((6, Future()))
        return self.under_way[-1][1]


@pytest.mark.parametrize("silent", [0.0, 60.0])
def test_workers_that_are_long_at_work_are_not_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, silent: float
) -> None:
    monkeypatch.setattr(crew_module, "SILENT", silent)
    monkeypatch.setattr(crew_module, "PERIOD", 0.01)
    here = Identity.here((), {})
    crew = Crew(Thoughtful(here), "room", None, here, StopRequest())  # type: ignore[arg-type]
    parts = [Part(number, f"[{number}/5] ridge") for number in range(1, 6)]
    with caplog.at_level("INFO", logger=crew_module.__name__):
        crew.hand_out("run", parts, lambda what: what, lambda *_: None)
    said = [line for line in caplog.messages if "at work" in line]
    if silent > 1:
        assert not said
    else:
        assert said[0] == "2 workers at work: [1/5] ridge, [2/5] ridge, [3/5] ridge and 1 more"
        assert said[-1] == "1 worker at work: [5/5] ridge"


def test_a_stopped_and_a_killed_driver_resume(dask: Cluster, store: Path, tmp_path: Path) -> None:
    fresh = with_pixels(store, tmp_path)
    with dask.fault(slowly="0.2"):
        code, out = signalled(dask, fresh, signal.SIGINT)
        assert code == STOPPED and "Stopped cleanly (SIGINT)" in out
        assert signalled(dask, fresh, signal.SIGKILL)[0] == -signal.SIGKILL
    there = committed(feature_file(fresh))
    assert 4 <= there < 29
    # The other file has not been begun: its rows are all asked for, of the first only what it misses.
    code, out, err = dask.run(fresh, "--json", "--pooling", "avg", "max")
    assert code == 0, err
    one, other = json.loads(out)["files"]
    assert other["computed"] - one["computed"] >= 64 * there and one["rows"] == other["rows"]
    RowFile.open(Path(other["path"])).verify()
    check_bits(fresh, store)


def test_a_shard_that_raises_is_tried_twice_more_and_named(
    dask: Cluster, store: Path, tmp_path: Path
) -> None:
    with dask.fault(raises="640"):
        code, _, err = dask.run(with_pixels(store, tmp_path))
    assert code == 1
    line = last_line(err)
    assert "tiny@32: rows 640 to 703: failed 3 times, at last on" in line
    assert "ValueError: no such luck" in line and "(process " in line
    assert err.count("no such luck; computed again") == 2


def test_a_store_that_no_worker_sees_is_one_line(
    dask: Cluster, store: Path, tmp_path: Path
) -> None:
    with dask.fault(blind="1"):
        code, _, err = dask.run(with_pixels(store, tmp_path))
    assert code == 1
    line = last_line(err)
    assert "no worker can take part: " in line and f"/elsewhere{tmp_path}" in line


def test_a_killed_worker_costs_its_shard_only(dask: Cluster, store: Path, tmp_path: Path) -> None:
    """The last test of this cluster: one alike worker is left then, beside the odd one."""
    fresh = with_pixels(store, tmp_path)
    for file in dask.faults.glob("pid-*"):
        file.unlink()
    with dask.fault(slowly="3"):
        process = dask.start(fresh)
        killed = kill_a_worker(dask, process, set())
    _, err = process.communicate()
    assert process.wait() == 0, err
    assert "its process has gone; computed again" in err
    assert len(dask.pids()) == 2 and killed in dask.pids() and dask.odd not in dask.pids()
    check_bits(fresh, store)


def test_a_scheduler_without_workers(store: Path, tmp_path: Path) -> None:
    """That is said; a time limit ends the wait, and so does the end of the scheduler."""
    pytest.importorskip("distributed")
    cluster, fresh = Cluster("dask", tmp_path), with_pixels(store, tmp_path / "store")
    with scheduler(cluster) as process:
        wait_for(lambda: listens(cluster.address), process)
        code, out, err = cluster.run(fresh, "--time-limit", "1s")
        assert code == STOPPED and "Stopped cleanly (time limit); 1,797 rows left" in out, err
        driver = cluster.start(fresh)
        line = driver.stderr.readline()
        assert f"no worker yet; start one with: dask worker {cluster.address}" in line
        process.kill()
        _, err = driver.communicate()
    assert driver.wait() == 1
    assert "it has gone; what is committed is kept" in last_line(err)


def test_ray_survives_a_killed_worker_and_a_stopped_driver(
    ray: Cluster, store: Path, tmp_path: Path
) -> None:
    fresh = with_pixels(store, tmp_path)
    with ray.fault(slowly="0.3"):
        process = ray.start(fresh)
        killed = kill_a_worker(ray, process, set())
        until(lambda: ray.pids() - {killed} and committed(feature_file(fresh)) > 2, process)
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        out, err = process.communicate()
        assert time.monotonic() - begin < 60 and process.wait() == STOPPED, err
    assert "Stopped cleanly (SIGTERM)" in out and "its process has gone; computed again" in err
    code, out, err = ray.run(fresh, "--json")
    assert code == 0 and "1 worker, bound by" in err, err
    assert json.loads(out)["files"][0]["computed"] < 1797
    check_bits(fresh, store)


def test_ray_fits_heads_and_predicts_pictures(ray: Cluster, store: Path, tmp_path: Path) -> None:
    for number, image in enumerate(
        RowFile.open(store / "digits" / "pixels.h5").columns["pixels"][:40]
    ):
        Image.fromarray(image[:, :, 0]).save(tmp_path / f"{number:02}.png")
    (tmp_path / "07.png").write_bytes(b"cut short")
    found = []
    for runs, words in (
        ("alone", ()),
        ("together", ("--executor", "ray", "--address", ray.address)),
    ):
        common = ("--cache-dir", str(store), "--runs-dir", runs, *words)
        heads = (
            "classify",
            "--dataset",
            "digits",
            "--features",
            "tiny@32",
            "--head",
            "centroid",
            "ridge",
        )
        done = processes.run(*heads, *common, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        pictures = (
            "predict",
            "digits/ridge",
            "*.png",
            "--out",
            f"{runs}.jsonl",
            "--batch-size",
            "8",
        )
        done = processes.run(*pictures, *common, cwd=tmp_path, TINY_BACKBONE="1")
        assert done.returncode == 3, done.stderr
        learnt = (tmp_path / runs / "digits" / "heads").rglob("*.npz")
        files = {path.relative_to(tmp_path / runs): path.read_bytes() for path in learnt}
        found.append((files, (tmp_path / f"{runs}.jsonl").read_bytes()))
    assert found[0] == found[1] and len(found[0][0]) > 2
    assert "1 worker (tensorflow, cpu: " in done.stderr and found[0][1].count(b"not an image") == 1


def test_a_ray_head_that_dies_is_one_line(ray: Cluster, store: Path, tmp_path: Path) -> None:
    """Ray itself would wait a minute and end the process. The last test of this cluster."""
    there = set(ray.faults.glob("look-*"))
    process = ray.start(with_pixels(store, tmp_path))
    until(lambda: set(ray.faults.glob("look-*")) - there, process)
    for child in Path(f"/proc/{ray.head}/task/{ray.head}/children").read_text().split():
        if "gcs_server" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), signal.SIGKILL)
    _, err = process.communicate()
    assert process.wait() == 1
    assert "it has gone; what is committed is kept" in last_line(err)


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_wrong_address_is_one_line(engine: str, store: Path) -> None:
    pytest.importorskip("distributed" if engine == "dask" else "ray")
    words = ["--executor", engine, "--address", f"127.0.0.1:{free_port()}"]
    done = processes.run("extract", *TINY, *words, "--cache-dir", str(store), TINY_BACKBONE="1")
    assert done.returncode == 1
    assert "nobody answers there; start it with: " in last_line(done.stderr)


@pytest.mark.parametrize("engine", ["dask", "ray"])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_scheduler_is_one_line(engine: str, said: bytes, store: Path) -> None:
    """Dask's own client waits for ever where nothing comes, and runs out of memory where anything does; Ray's for minutes."""
    pytest.importorskip("distributed" if engine == "dask" else "ray")
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):  # closed
                while True:
                    taken.append(server.accept()[0])
                    taken[-1].sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        words = ["--executor", engine, "--address", f"127.0.0.1:{server.getsockname()[1]}"]
        done = processes.run("extract", *TINY, *words, "--cache-dir", str(store), TINY_BACKBONE="1")
    assert done.returncode == 1 and taken
    assert "Traceback" not in done.stderr
    assert "nobody answers there; start it with: " in last_line(done.stderr)


@pytest.mark.parametrize("words", [["--executor", "dask"], ["--address", "127.0.0.1:8786"]])
def test_a_cluster_has_an_address_and_nothing_else_has(words: list[str], store: Path) -> None:
    done = processes.run("extract", *TINY, *words, "--cache-dir", str(store))
    assert done.returncode == 2 and "a cluster needs its address" in last_line(done.stderr)


def test_a_machine_without_onepass_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from onepass.cache.cluster.call import call

    monkeypatch.setitem(sys.modules, "onepass.extract.cluster.tasks", None)
    answer = call("onepass.extract.cluster.tasks:look", "")
    assert answer["kind"] == "ImportError"
    assert "cluster.tasks" in answer["error"] and "onepass[cluster]" in answer["error"]
