"""Real processes for real commands, without paying TensorFlow's import for each of them.

One process imports everything and then forks a child for every command of every worker of the tests: a
process of its own, with its own signals, exit code, standard output and error, that can be killed like any
other. Nothing of TensorFlow has run in it before. What a *start* costs or imports is tested with `subprocess`
elsewhere.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("cache", "classify", "data", "extract", "finetune", "predict", "report")
MODULES = (
    "onepass.extract.pipeline", "onepass.finetune.pipeline", "onepass.classify.pipeline", "onepass.predict.runs",
    "onepass.predict.pictures.pipeline", "onepass.report.page", "onepass.classify.heads.linear.logistic",
    "onepass.data.prepare", "onepass.data.relabel", "onepass.data.listing", "onepass.predict.split", "cleanlab.filter",
    "onepass.classify.search.sweep", "onepass.predict.export", "onepass.extract.network.model",
    "hypothesis", "pytest", "pydantic.dataclasses", "pydantic.type_adapter", "sklearn.datasets",
    *(f"onepass.{room}.__main__" for room in ROOMS),
)  # fmt: skip


class Process:
    """A command that runs: the part of `subprocess.Popen` that the tests use."""

    def __init__(self, words: tuple[str, ...], cwd: Path, env: dict[str, str]) -> None:
        self.args, self.returncode = words, None
        self._status = socket.socket(socket.AF_UNIX)
        self._status.connect(begin(env.get("KERAS_BACKEND", "tensorflow")))
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        request = json.dumps({"words": words, "cwd": str(cwd), "env": env}).encode()
        socket.send_fds(self._status, [request], [out_end, err_end])
        for end in (out_end, err_end):
            os.close(end)
        self.stdout: IO[str] = os.fdopen(out, encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(err, encoding="utf-8")
        self.pid = int.from_bytes(self._status.recv(4), "little")

    def poll(self) -> int | None:
        """Return the exit code, minus the signal's number for a killed process; None while it runs."""
        if self.returncode is None:
            self._status.setblocking(False)
            with suppress(BlockingIOError):
                self._receive()
            if self.returncode is None:
                self._status.setblocking(True)
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self._receive()
        assert self.returncode is not None
        return self.returncode

    def _receive(self) -> None:
        answer = self._status.recv(4)
        assert len(answer) == 4, "the process that forks has gone"
        self.returncode = int.from_bytes(answer, "little", signed=True)
        self._status.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended in this moment
                os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        """Return what is left of standard output and error, once both are closed."""
        said: dict[str, str] = {}
        readers = [
            threading.Thread(target=lambda n=n, f=f: said.update({n: f.read()}))
            for n, f in (("out", self.stdout), ("err", self.stderr))
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self.stdout.close()
        self.stderr.close()
        self.wait()
        return said["out"], said["err"]


def start(*words: str, cwd: Path = ROOT, **env: str) -> Process:
    """Start `onepass WORDS` in a process of its own, with these environment variables besides.

    With `TINY_BACKBONE="1"` it knows the backbone `tiny`, with "all" the EfficientNet-Lite ones are as small; with `PLAIN_FIGURES="1"` it draws figures small and
    without their layout, in a fifth of the time; with `STOPPED="1"` it waits for SIGCONT. With
    `CALL="flips:attempts"` it calls a function in `benchmarks/` with the words instead, and with `PROGRAM` it
    is `python WORDS`: a file, or `-c` and a text, and what that finds in `sys.argv`.
    """
    return Process(words, cwd, env)


def run(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    """Run `onepass WORDS` to its end."""
    process = start(*words, cwd=cwd, **env)
    out, err = process.communicate()
    return subprocess.CompletedProcess(words, process.wait(), out, err)


def interrupted(how: str, line: str, *words: str, **env: str) -> tuple[Process, str]:
    """Send `onepass WORDS` a signal once a line of its progress holds some words.

    Returns:
        The process, which has ended, and its standard output.
    """
    process = start(*words, **env)
    while line not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(getattr(signal, how))
    return process, process.communicate()[0]


# The socket of the process that forks, for this process and all it starts; one for each backend of Keras.
ADDRESS = "ONEPASS_TESTS_FORKER_{}"
_lock = threading.Lock()


def begin(backend: str = "tensorflow") -> str:
    """Start the process that forks, unless one that started this process has; it ends when this one does.

    Returns:
        Its address.
    """
    name = ADDRESS.format(backend.upper())
    with _lock:
        if name in os.environ:
            return os.environ[name]
        folder = tempfile.TemporaryDirectory(prefix="onepass-tests-")
        os.environ[name] = address = f"{folder.name}/forker"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(100)
        alive, theirs = os.pipe()  # at its end this process has gone
        command = [sys.executable, __file__, str(listener.fileno()), str(alive)]
        forker = subprocess.Popen(
            command, pass_fds=[listener.fileno(), alive], cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend},
        )  # fmt: skip
        listener.close()
        os.close(alive)
        atexit.register(folder.cleanup)
        atexit.register(forker.wait)
        atexit.register(os.close, theirs)  # called first: the forker ends by it
    return address


def _serve(listener: socket.socket, alive: int) -> None:
    """Fork a child for each request until the tests have gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the children between are not waited for
    while alive not in select.select([listener, alive], [], [])[0]:
        connection, _ = listener.accept()
        request, fds, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if request and not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            os.close(alive)
            _watch(json.loads(request), connection.detach(), *fds)
        connection.close()
        for fd in fds:
            os.close(fd)


def _watch(request: dict, status: int, out: int, err: int) -> None:
    """Run the command in a child, say its number at once and its exit code at its end."""
    child = os.fork()
    if not child:
        os.close(status)
        _command(request, out, err)
    os.close(out)
    os.close(err)
    os.write(status, child.to_bytes(4, "little"))
    _, state = os.waitpid(child, 0)
    os.write(status, os.waitstatus_to_exitcode(state).to_bytes(4, "little", signed=True))
    os._exit(0)


def _command(request: dict, out: int, err: int) -> None:
    code: int | str | None = 1
    try:
        for number, fd in ((1, out), (2, err)):
            os.dup2(fd, number)
            os.close(fd)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
        sys.argv = ["onepass", *request["words"]]
        if "TINY_BACKBONE" in os.environ:
            import tiny_backbone

            from onepass.extract.backbones import lite

            tiny_backbone.install(lite, every=os.environ["TINY_BACKBONE"] == "all")
        if "PLAIN_FIGURES" in os.environ:
            _draw_plainly()
        from onepass.__main__ import run as onepass
        from onepass.classify import config as classify_config

        classify_config.FEW_ROWS = int(os.environ.get("FEW_ROWS", "0"))  # 0: as in conftest.py
        if "STOPPED" in os.environ:
            os.kill(os.getpid(), signal.SIGSTOP)
        if "PROGRAM" in os.environ:
            code = _program(*request["words"])
        else:
            code = _called(*request["words"]) if "CALL" in os.environ else onepass()
    except SystemExit as end:  # argparse
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _draw_plainly() -> None:
    from onepass.report import plot

    def plain(drawing: plot.Drawing, *how: Any) -> bytes:
        drawing.canvas.set_layout_engine("none")
        return saved(drawing, *how)

    saved, plot.DPI = plot.Drawing._saved, 20
    plot.Drawing._saved = plain


def _program(*words: str) -> int:
    del os.environ["PROGRAM"]  # it is not that of the processes that it starts
    sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = list(words)
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")
    return 0


def _called(*words: str) -> int:
    module, function = os.environ["CALL"].split(":")
    sys.path.append(str(ROOT / "benchmarks"))
    return getattr(import_module(module), function)(*words)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings(
        "ignore", r"os\.fork\(\) was called", RuntimeWarning
    )  # JAX: it computes nothing here
    for module in MODULES:
        import_module(module)
    from artifact_examples import kinds

    from onepass.cache.artifacts import _adapter

    for kind in kinds():
        _adapter(kind)
    import_module("onepass.extract.engines.openvino_engine").load_openvino()
    import_module("PIL.Image").init()
    gc.freeze()  # a child that collects garbage would copy all pages of what lies here
    _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
