"""Small files: a reader sees the old one or the new one, and a failure leaves no trace."""

import errno
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

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
    out_of_space,
    read_json,
    write_atomic,
    write_json,
)


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
    with pytest.raises(OutOfSpaceError, match=said), atomic_path(path):
        raise OSError(code, "from the system")
    assert names(tmp_path) == []
    assert isinstance(out_of_space(path), OSError)


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


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"{'a': 1}"])
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
