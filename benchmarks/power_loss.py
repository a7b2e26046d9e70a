"""The power goes at every write of a command; the same command again must end as if nothing had been.

    python benchmarks/power_loss.py [--every 1] [--stage NAME]

strace records every system call that changes the folder. After each of them the power may go, and the disk then
holds one of three things: all that was written; all names, but of each file only what it had when it was last
synced; or only what was synced, names by the sync of their folder as well (POSIX promises no more; SQLite's
crash tests are the model). Each such state that is new is put on the disk, and the command is run in it: it must
end as undisturbed, or with one line that names a damaged file.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign import STAGES, Stage, Volatile, contents, ended, finished, onepass, stages
from common import machine

CALLS = (
    "openat,creat,write,pwrite64,writev,ftruncate,truncate,fsync,fdatasync,lseek,rename,renameat,renameat2,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,sendfile,copy_file_range,link,linkat,symlink,symlinkat"
)
CALL = re.compile(r"(?P<time>[\d.]+) (?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)")
HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")
FD = re.compile(r"(\d+)<(.*?)>")
TEXT = re.compile(r'"(.*?)"')
PATH = re.compile(
    r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"(.*?)"'
)  # a path, and the folder that it starts from


@dataclass(eq=False)
class File:
    """A file: what it holds, and what of it is sure to be on the disk."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(eq=False)
class Folder:
    """A folder: the names in it, and those that are sure to be on the disk."""

    names: dict[str, Any] = field(default_factory=dict)
    synced: dict[str, Any] = field(default_factory=dict)

    def sync(self) -> None:
        """Make the names durable."""
        self.synced = dict(self.names)


class Disk:
    """A folder and all below it, as the calls of a process change them."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, _read(root)
        self.position: dict[tuple[str, str], int] = {}  # by number and path of the descriptor
        self.appends: dict[tuple[str, str], bool] = {}

    def _place(self, path: str) -> tuple[Folder, str] | None:
        """Return the folder and the name of a path, None outside of the root."""
        full = os.path.normpath(self.root / path)
        if not full.startswith(f"{self.root}/"):
            return None
        *above, name = Path(full).relative_to(self.root).parts
        folder = self.top
        for part in above:
            folder = folder.names[part]
        return folder, name

    def _node(self, path: str) -> Any:
        if os.path.normpath(path) == str(self.root):
            return self.top
        folder, name = self._place(path)  # type: ignore[misc]
        return folder.names[name]

    def inside(self, path: str) -> bool:
        """Tell whether a path lies in the folder."""
        full = os.path.normpath(self.root / path)
        return full == str(self.root) or full.startswith(f"{self.root}/")

    def apply(self, name: str, arguments: str, result: int) -> bool:
        """Do what a call did; tell whether it can have changed what a power loss leaves."""
        fds = [(number, plain(path)) for number, path in FD.findall(arguments)]
        if name in ("openat", "creat"):
            return self._open(_paths(arguments)[0], arguments, result)
        if name in ("unlink", "rmdir", "unlinkat", "mkdir", "mkdirat"):
            return self._name(name, _paths(arguments)[0])
        if name.startswith("rename"):
            return self._rename(*_paths(arguments)[:2])
        if (
            not fds
            or not fds[0][1].startswith("/")
            or not self.inside(fds[0][1])
            or fds[0][1].endswith(" (deleted)")
        ):
            unknown = name.startswith(("link", "symlink", "truncate"))
            if unknown and any(map(self.inside, _paths(arguments))):
                raise SystemExit(f"{name}({arguments[:200]}): this replay does not know it")
            return False
        return self._descriptor(name, fds, arguments, result)

    def _open(self, path: str, arguments: str, descriptor: int) -> bool:
        if not (place := self._place(path)):
            return False
        folder, name = place
        full = os.path.normpath(self.root / path)
        self.position[str(descriptor), full] = 0
        self.appends[str(descriptor), full] = "O_APPEND" in arguments
        if "O_CREAT" in arguments and name not in folder.names:
            folder.names[name] = File()
            return True
        if "O_TRUNC" in arguments and folder.names[name].data:
            folder.names[name].data.clear()
            return True
        return False

    def _name(self, call: str, path: str) -> bool:
        if not (place := self._place(path)):
            return False
        folder, name = place
        if call.startswith("mkdir"):
            folder.names[name] = Folder()
        else:
            del folder.names[name]
        return True

    def _rename(self, source: str, target: str) -> bool:
        old, new = self._place(source), self._place(target)
        if not (old and new):
            raise SystemExit(
                f"rename({source}, {target}): this replay knows no rename across its border"
            )
        new[0].names[new[1]] = old[0].names.pop(old[1])
        return True

    def _descriptor(
        self, call: str, fds: list[tuple[str, str]], arguments: str, result: int
    ) -> bool:
        number, path = fds[0]
        node = self._node(path)
        key = (number, path)
        if call in ("fsync", "fdatasync"):
            if isinstance(node, Folder):
                node.sync()
            else:
                node.synced = bytes(node.data)
            return True
        if call == "lseek":
            self.position[key] = result
            return False
        if call == "ftruncate":
            length = int(arguments.rsplit(",", 1)[1])
            node.data[length:] = bytes(max(0, length - len(node.data)))
            return True
        if call in ("sendfile", "copy_file_range"):
            content = (
                Path(fds[1][1]).read_bytes()
                if not self.inside(fds[1][1])
                else bytes(self._node(fds[1][1]).data)
            )
            start = self.position.get(fds[1], 0)
            self.position[fds[1]] = start + result
            return self._write(node, key, content[start : start + result], None)
        data = _bytes("".join(TEXT.findall(arguments)))[:result]
        offset = int(arguments.rsplit(",", 1)[1]) if call == "pwrite64" else None
        return self._write(node, key, data, offset)

    def _write(self, file: File, key: tuple[str, str], data: bytes, offset: int | None) -> bool:
        at = self.position.get(key, 0) if offset is None else offset
        at = len(file.data) if self.appends.get(key) else at
        file.data.extend(bytes(max(0, at - len(file.data))))
        file.data[at : at + len(data)] = data
        if offset is None:
            self.position[key] = at + len(data)
        return True

    def states(self) -> Iterator[tuple[str, dict[str, bytes | None]]]:
        """Yield what a power loss may leave now: files by their path, None for a folder."""
        yield "all", _walk(self.top, names=True, data=True)
        yield "names, synced bytes", _walk(self.top, names=True, data=False)
        yield "synced", _walk(self.top, names=False, data=False)


def _read(path: Path) -> Folder:
    """Return what a folder holds before the command, all of it on the disk."""
    folder = Folder()
    for entry in path.iterdir():
        data = b"" if entry.is_dir() else entry.read_bytes()
        folder.names[entry.name] = _read(entry) if entry.is_dir() else File(bytearray(data), data)
    folder.sync()
    return folder


def _walk(folder: Folder, names: bool, data: bool, at: str = "") -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for name, node in (folder.names if names else folder.synced).items():
        path = f"{at}{name}"
        if isinstance(node, Folder):
            found |= {path: None} | _walk(node, names, data, f"{path}/")
        else:
            found[path] = bytes(node.data) if data else node.synced
    return found


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def plain(text: str) -> str:
    """Return what strace wrote in hexadecimal as text."""
    return HEX.sub(lambda found: os.fsdecode(_bytes(found[0])), text)


def _paths(arguments: str) -> list[str]:
    return [
        f"{plain(start)}/{plain(path)}"
        if start and not plain(path).startswith("/")
        else plain(path)
        for start, path in PATH.findall(arguments)
    ]


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that a command made.

    Attributes:
        name, arguments, result: As strace writes them.
        number: Which of its name it was in its thread, from 1.
    """

    name: str
    arguments: str
    result: int
    number: int

    @property
    def place(self) -> str:
        """The path that it is about, absolute or below the working directory."""
        if self.name in ("write", "pwrite64"):
            return plain(FD.findall(self.arguments)[0][1])
        return _paths(self.arguments)[0]


def traced(
    work: Path, words: tuple[str, ...], trace: Path, *more: str
) -> tuple[tuple[int, str], list[Call]]:
    """Run a command under strace, with more of its options.

    Returns:
        Its exit code and what it said on standard error; its calls in their order.
    """
    process = onepass(work, *words, STOPPED="1")
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)
    options = ("-ff", "-ttt", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-e", "signal=none")  # fmt: skip
    tracer = subprocess.Popen(
        ["strace", *options, *more, "-o", str(trace), "-p", str(process.pid)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "attached" in (said := tracer.stderr.readline()), said  # type: ignore[union-attr]
    os.kill(process.pid, signal.SIGCONT)
    code, _, err = ended(process)
    tracer.communicate()
    found = []
    for path in trace.parent.glob(f"{trace.name}.*"):
        counts = Counter[str]()
        for line in path.read_text().splitlines():
            if match := CALL.match(line):
                counts[match["name"]] += 1
                call = Call(match["name"], match["arguments"], int(match["result"]), counts[match["name"]])  # fmt: skip
                found.append((float(match["time"]), len(found), call))
        path.unlink()
    return (code, err), [call for _, _, call in sorted(found)]


def calls(work: Path, words: tuple[str, ...], trace: Path) -> list[Call]:
    """Run a command and return the calls that succeeded, in their order."""
    (code, err), found = traced(work, words, trace)
    if code:
        raise SystemExit(f"{' '.join(words)}: exit code {code}: {err[-500:]}")
    return [call for call in found if call.result >= 0]


def write_state(state: dict[str, bytes | None], folder: Path) -> None:
    """Put a state on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in state.items():
        path = folder / name
        if data is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def main() -> int:
    """Parse the flags, replay, return 1 where a command did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="one call of so many")
    parser.add_argument("--stage", action="append", choices=[stage.name for stage in STAGES])
    flags = parser.parse_args()
    failed = 0
    print(
        f"{machine()}\n\n| command | calls that change something | states | resumed | refused by name | failed |\n| --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary).resolve()
        known, volatile = stages(root, flags.stage)
        for stage, before, after, _ in known:
            shutil.rmtree(root / "x")
            shutil.copytree(before, root / "x")
            failed += replay(stage, after, root, volatile, flags.every)
    return int(failed > 0)


def replay(stage: Stage, after: Path, root: Path, volatile: Volatile, every: int) -> int:
    """Let the power go after the writes of a command in `root/x` and print a line; return how often it failed.

    Args:
        stage: The command.
        after: The folder as it is after an undisturbed one.
        root: Of the campaign.
        volatile: What differs between undisturbed runs.
        every: One write of so many.
    """
    expected, work = contents(after), root / "x"
    disk = Disk(work)
    changes, seen, counts = 0, set[int](), Counter[str]()
    for call in calls(work, stage.words, root / "trace"):
        if not disk.apply(call.name, call.arguments, call.result):
            continue
        changes += 1
        if changes % every:
            continue
        for which, state in disk.states():
            key = hash(frozenset(state.items()))
            if key in seen:
                continue
            seen.add(key)
            write_state(state, work)
            end, told = outcome(stage, work, expected, volatile)
            counts[end] += 1
            if end != "resumed":
                place = (
                    f"after change {changes} {call.name}({plain(call.arguments)[:160]}), {which}"
                )
                print(f"{stage.name}, {place}: {told}", file=sys.stderr, flush=True)
    _check_replay(disk, after, volatile, root)
    ends = " | ".join(str(counts[end]) for end in ("resumed", "refused", "failed"))
    print(f"| {stage.name} | {changes} | {len(seen)} | {ends} |", flush=True)
    return counts["failed"]


def outcome(stage: Stage, work: Path, expected: dict, volatile: Volatile) -> tuple[str, str]:
    """Run a command on what a power loss left; return "resumed", "refused" or "failed", and what it said."""
    code, _, err, _ = finished(work, *stage.words)
    last = (err.strip().splitlines() or [""])[-1][:200]
    told = volatile.differences(contents(work), expected) if not code else []
    if "Traceback" in err or code not in (0, 1) or told:
        return "failed", f"{code} {last} {told[:3]}"
    return ("refused" if code else "resumed"), last


def _check_replay(disk: Disk, after: Path, volatile: Volatile, root: Path) -> None:
    """Hold the replay against the disk: the last state is what the command left."""
    (_, state), *_ = disk.states()
    write_state(state, root / "replayed")
    if told := volatile.differences(contents(root / "replayed"), contents(after)):
        raise SystemExit(f"the replay ends with another disk than the command: {told[:3]}")


if __name__ == "__main__":
    sys.exit(main())
