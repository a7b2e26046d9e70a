"""Small files: a reader sees the old one or the new one, and a failure leaves no trace."""

import errno
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from artifact_examples import example
from test_cache_rows import make

from conftest import ROOT
from onepass.cache.errors import (
    CorruptFileError,
    MissingFileError,
    OutOfSpaceError,
    UnreadableFileError,
)
from onepass.cache.files import (
    TEMPORARY,
    atomic_path,
    leftovers,
    make_folder,
    read_json,
    write_atomic,
    write_json,
)
from onepass.cache.locks import exclusive
from onepass.classify.protocol.scorings import Scoring, record_scoring


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_file_is_there_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent  # a rename works on one file system only
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["a.bin"]
    assert path.stat().st_mode & 0o777 == 0o644  # mkstemp's own 600 would hide it from colleagues


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_an_open_reader_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_its_cure(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.bin"
    said = r"a\.bin: the disk .* is full.*--cache-dir"
    with pytest.raises(OutOfSpaceError, match=said) as caught, atomic_path(path):
        raise OSError(code, "from the system")
    assert names(tmp_path) == []
    assert isinstance(caught.value, OSError)


LIMITED = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from onepass.cache.errors import OutOfSpaceError
from onepass.cache.files import write_atomic
path = Path(sys.argv[2])
write_atomic(path, b"old")
try:
    write_atomic(path, bytes(100_000))
except OutOfSpaceError as error:
    print(error)
write_atomic(path.with_name("small"), b"still works")
"""


def test_a_write_that_the_system_refuses_leaves_the_old_file(tmp_path: Path) -> None:
    """A file size limit makes write() itself fail."""
    path = tmp_path / "a.bin"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, ROOT, path], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )  # fmt: skip
    assert done.returncode == 0 and "what was committed before is intact" in done.stdout, done
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin", "small"]


def test_leftovers_are_those_of_the_same_file_only(tmp_path: Path) -> None:
    path, other = tmp_path / "vgg16@64.h5", tmp_path / "x-vgg16@64.h5"
    kept = []
    for target in (path, other):
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            kept.append(temporary.name)
    for name in [*kept, TEMPORARY + "user-notes.h5"]:  # as a kill would leave them
        (tmp_path / name).write_bytes(b"half")
    assert [found.name for found in leftovers(path)] == kept[:1]
    assert [found.name for found in leftovers(other)] == kept[1:]


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"ä": [1, 2.5, None, True], "nested": {"x": "y"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "ä" in text and text.endswith("}\n")  # for people as well
    assert json.loads(text) == value


def test_what_is_not_json_is_never_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"{'a': 1}", b"[" * 100_000])
def test_damaged_json_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"a\.json: expected a JSON file"):
        read_json(path)


def test_missing_json_is_another(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UnreadableFileError, match="Is a directory"):
        read_json(tmp_path)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the system is asked to do, in order, with paths below the test's folder."""
    done: list[str] = []

    def name(path: object) -> str:
        text = (
            Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else Path(str(path))
        )
        short = os.path.relpath(text, tmp_path)
        return ".tmp" if TEMPORARY in short else short

    for call in ("mkdir", "fsync", "replace", "rename"):
        real = getattr(os, call)

        def noted(first, *rest, real=real, call=call, **named):
            done.append(f"{call} {name(first)}")
            return real(first, *rest, **named)

        monkeypatch.setattr(os, call, noted)
    return done


def test_new_folders_are_durable_from_the_top_down(tmp_path: Path, calls: list[str]) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    assert calls == ["mkdir a", "fsync .", "mkdir a/b", "fsync a", "mkdir a/b/c", "fsync a/b"]
    calls.clear()
    make_folder(tmp_path / "a" / "b" / "c")
    assert calls == []
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


def test_a_file_is_synced_before_its_name_and_its_name_before_we_go_on(
    tmp_path: Path, calls: list[str]
) -> None:
    write_atomic(tmp_path / "a" / "b" / "x.bin", b"new")
    folders = ["mkdir a", "fsync .", "mkdir a/b", "fsync a"]
    assert calls == [*folders, "fsync .tmp", "replace .tmp", "fsync a/b"]


@pytest.mark.parametrize("way", ["rows", "scorings", "lock"])
def test_every_writer_syncs_the_parents_of_its_folders(
    tmp_path: Path, calls: list[str], way: str
) -> None:
    """Whatever was made has its parent synced after it, and before the writer returns."""
    if way == "rows":
        make(tmp_path / "store" / "d" / "features" / "k.h5", range(3))
    elif way == "scorings":
        record_scoring(tmp_path / "runs" / "d", example(Scoring))
    else:
        with exclusive(tmp_path / "runs" / "d" / "finetune" / "r"):
            pass
    made = [i for i, call in enumerate(calls) if call.startswith(("mkdir", "replace"))]
    assert len([i for i in made if calls[i].startswith("mkdir")]) >= 2
    for i in made:
        made_name = calls[i].split(" ", 1)[1]
        if made_name != ".tmp":
            assert f"fsync {Path(made_name).parent}" in calls[i + 1 :], calls


def test_only_one_place_makes_folders() -> None:
    rooms = ("cache", "data", "extract", "classify", "finetune", "predict", "report")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    making = [path for path in files if re.search(r"mkdir\(|makedirs\(", path.read_text())]
    assert [str(path.relative_to(ROOT)) for path in making] == ["cache/files.py"]


def test_the_next_writer_takes_away_what_a_killed_one_left_and_nothing_of_a_living_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    write = "import sys, pathlib, os, signal\nsys.path.insert(0, sys.argv[1])\nfrom onepass.cache.files import atomic_path\nwith atomic_path(pathlib.Path(sys.argv[2])):\n    print('writing', flush=True)\n    sys.stdin.read()\n"  # fmt: skip
    command = [sys.executable, "-c", write, str(ROOT), str(path)]
    killed, living = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    )
    for process in (killed, living):
        assert process.stdout and process.stdout.readline() == b"writing\n"
    killed.kill()
    killed.communicate()
    assert len(leftovers(path)) == 2
    write_atomic(path, b"{}")
    assert len(leftovers(path)) == 1  # the living one's
    living.communicate(b"")
    assert living.returncode == 0 and names(tmp_path) == ["a.json"]
