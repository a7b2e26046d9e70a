"""A file that the system refuses to read may be whole: it is never called damaged, and never deleted."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_cache_rows import KIND, fill, writer_of

from onepass.cache.artifacts import Artifact, record
from onepass.cache.commandline.command import main
from onepass.cache.errors import CorruptFileError, MissingFileError, UnreadableFileError
from onepass.cache.files import read_json
from onepass.cache.inventory import KeyConfig, ListConfig, delete_entry, list_entries
from onepass.cache.rows import RowFile, RowWriter, parts_folder
from onepass.cache.shards import read_shard

ROWS, SHARDS = 10, 3
REFUSALS = [
    errno.EACCES,
    errno.EIO,
    errno.EPERM,
    errno.ESTALE,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENOMEM,
]


@record
class Note(Artifact):
    """A small artifact."""

    text: str


def make(path: Path, *, finish: bool = True) -> Path:
    with opened(path) as writer:
        fill(writer, range(ROWS))
        if finish:
            writer.finish()
    return path


def opened(path: Path) -> RowWriter:
    return writer_of(path, range(ROWS), shard_rows=4)


def refuse(patch: pytest.MonkeyPatch, number: int, what: str) -> None:
    """Let the system refuse: opening by HDF5, mapping into memory, or reading JSON."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, f"Unable to open file (errno = {number})")

    patch.setattr(
        {
            "open": "onepass.cache.hdf5.h5py.File",
            "map": "mmap.mmap",
            "json": "onepass.cache.files._open_now",
        }[what],
        refused,
    )


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("what", ["open", "map"])
def test_a_row_file_that_is_refused_says_why_and_opens_later(what, number, tmp_path, monkeypatch):
    path = make(tmp_path / "a.h5")
    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(UnreadableFileError) as caught:
        refuse(patch, number, what)
        RowFile.open(path)
    text = str(caught.value)
    assert not isinstance(caught.value, CorruptFileError) and "\n" not in text
    assert text.startswith(f"{path}: cannot be read now ({os.strerror(number)})")
    assert "elete" not in text and "damaged" not in text
    RowFile.open(path).verify()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("Unable to allocate memory block"), RuntimeError("memory allocation failed for chunk")]
)  # fmt: skip
def test_a_lack_of_memory_is_never_called_damage(error, tmp_path, monkeypatch):
    path = make(tmp_path / "a.h5")

    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("onepass.cache.rowfile.read_json", fails)
    with pytest.raises(
        UnreadableFileError,
        match=r"cannot be read now .Cannot allocate memory.*close other programs",
    ):
        RowFile.open(path)


def test_a_file_system_without_maps_is_refused_too(tmp_path, monkeypatch):
    path = make(tmp_path / "a.h5")
    refuse(monkeypatch, errno.ENODEV, "map")
    with pytest.raises(UnreadableFileError, match="No such device"):
        RowFile.open(path)


def test_no_lock_is_asked_for(tmp_path, monkeypatch):
    """A finished file never changes: file systems without locks, and other readers' locks, do not matter."""
    import h5py

    path, opener = make(tmp_path / "a.h5"), h5py.File

    def without_locks(*arguments: Any, **options: Any) -> Any:
        if options.get("locking") is not False:
            raise OSError(errno.ENOLCK, "unable to lock file")
        return opener(*arguments, **options)

    monkeypatch.setattr("onepass.cache.hdf5.h5py.File", without_locks)
    assert RowFile.open(path).layout.rows == ROWS


def test_a_lock_of_another_process_does_not_matter(tmp_path):
    import subprocess
    import sys

    path = make(tmp_path / "a.h5")
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        RowFile.open(path).verify()
        other.communicate("")


def test_a_file_that_is_open_in_a_notebook_is_read(tmp_path):
    import h5py

    path = make(tmp_path / "a.h5")
    with h5py.File(path) as mine:
        RowFile.open(path).verify()
        assert mine["features"].shape == (ROWS, 5)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_neither_damaged_nor_waited_for(kind, tmp_path):
    path = tmp_path / "a.h5"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(UnreadableFileError, match="expected a file, found a folder, a pipe"):
        RowFile.open(path)


def test_wrong_bytes_are_still_damage_and_nothing_is_still_nothing(tmp_path):
    path = make(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CorruptFileError, match="Delete it"):
        RowFile.open(path)
    path.write_bytes(b"")
    with pytest.raises(CorruptFileError, match="Delete it"):
        RowFile.open(path)
    with pytest.raises(MissingFileError):
        RowFile.open(tmp_path / "b.h5")


@pytest.mark.parametrize("number", REFUSALS)
def test_a_shard_that_is_refused_is_not_thrown_away(number, tmp_path, monkeypatch):
    path = make(tmp_path / "a.h5", finish=False)
    shards = sorted(parts_folder(path).glob("shard-*.h5"))
    before = [shard.read_bytes() for shard in shards]
    with monkeypatch.context() as patch:
        refuse(patch, number, "open")
        with pytest.raises(UnreadableFileError, match=shards[1].name):
            read_shard(shards[1], KIND)
        with pytest.raises(UnreadableFileError), opened(path):
            pass
    assert [shard.read_bytes() for shard in shards] == before and len(shards) == SHARDS
    with opened(path) as writer:
        assert not writer.missing


@pytest.mark.parametrize("number", REFUSALS)
def test_what_is_refused_of_another_run_is_left_alone(number, tmp_path, monkeypatch):
    """Its rows are made again; whoever wrote it may have them yet."""
    folder = parts_folder(make(tmp_path / "other.h5", finish=False))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        refuse(patch, number, "open")
        with writer_of(tmp_path / "a.h5", range(ROWS), begun=[folder]) as writer:
            assert writer.carried == 0 and len(writer.pool.unknown()) == ROWS
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("number", REFUSALS)
def test_an_artifact_and_a_plan_that_are_refused_are_not_taken_for_missing(
    number, tmp_path, monkeypatch
):
    Note("x").write(tmp_path / "note.json")
    path = make(tmp_path / "a.h5", finish=False)
    refuse(monkeypatch, number, "json")
    for read in (read_json, Note.read, Note.read_optional):
        with pytest.raises(UnreadableFileError, match=r"note\.json: cannot be read now"):
            read(tmp_path / "note.json")
    with pytest.raises(UnreadableFileError), opened(path):
        pass
    assert len(list(parts_folder(path).glob("shard-*.h5"))) == SHARDS


def test_the_inventory_calls_it_unreadable(tmp_path, monkeypatch, capsys):
    from onepass.cache.__main__ import COMMANDS

    make(tmp_path / "birds" / "features" / "good@32.h5")
    (tmp_path / "birds" / "features" / "folder@32.h5").mkdir()
    broken = make(tmp_path / "birds" / "features" / "broken@32.h5")
    broken.write_bytes(b"no HDF5")
    make(tmp_path / "birds" / "pixels.h5", finish=False)
    refuse(monkeypatch, errno.EACCES, "json")
    states = {entry.key: entry.state for entry in list_entries(ListConfig(cache_dir=tmp_path))}
    assert states == {
        "birds/pixels": "unreadable", "birds/broken@32": "damaged",
        "birds/folder@32": "unreadable", "birds/good@32": "finished",
    }  # fmt: skip
    assert main("cache", COMMANDS, ["list", "--cache-dir", str(tmp_path)]) == 0
    assert "unreadable: expected a file, found a folder" in capsys.readouterr().out
    assert main("cache", COMMANDS, ["verify", "--cache-dir", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert (
        "broken@32.h5: expected a finished row file" in err
        and "folder@32.h5: expected a file" in err
    )


def test_deleting_a_data_set_says_which_files_carry_its_vectors(tmp_path, capsys):
    from onepass.cache.__main__ import COMMANDS

    make(tmp_path / "birds" / "pixels.h5")
    for name in ("lite@64", "lite@32"):
        make(tmp_path / "birds" / "features" / f"{name}.h5")
    words = ["delete", "birds/pixels", "--cache-dir", str(tmp_path), "--json"]
    assert main("cache", COMMANDS, words) == 0
    deleted = json.loads(capsys.readouterr().out)
    assert deleted["features"] == ["birds/lite@32", "birds/lite@64"]
    make(tmp_path / "birds" / "pixels.h5")
    assert main("cache", COMMANDS, words[:-1]) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}/birds/pixels.h5: deleted, and with it all of birds: pixels, labels, splits and history\nIts vectors are still in birds/lite@32, birds/lite@64; "
        f"delete one with: onepass cache delete birds/lite@32 --cache-dir {tmp_path}\n"
    )
    deleted_file = delete_entry(KeyConfig(cache_dir=tmp_path, key="birds/lite@32"))
    assert deleted_file.features == []
