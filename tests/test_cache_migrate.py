"""A store of format 1 becomes one of today's: the same rows, the same digests, nothing computed, nothing lost."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import processes
import pytest

from conftest import ROOT
from onepass.cache import format1
from onepass.cache.__main__ import COMMANDS
from onepass.cache.artifacts import to_json
from onepass.cache.commandline.command import main
from onepass.cache.content import content_of
from onepass.cache.errors import (
    CorruptFileError,
    EarlierFormatError,
    LockedError,
    MissingFileError,
    OnepassError,
    UnreadableFileError,
    UsageError,
)
from onepass.cache.features import check_fresh, key_of_format_1, open_features
from onepass.cache.locks import exclusive
from onepass.cache.made_by import How
from onepass.cache.migrate import MigrateConfig, Migration, migrate_store
from onepass.cache.provenance import digest_bytes
from onepass.cache.rowfile import RowFile
from onepass.cache.rows import Column, RowLayout, RowWriter, ShardKind, parts_folder
from onepass.cache.shards import shard_digest
from onepass.data.dataset import open_dataset

FIXTURE = Path(__file__).parent / "fixtures" / "before_the_package.zip"
KEYS = ["colours/pixels", "colours/tiny@16!float32", "colours/tiny@16+flip", "colours/tiny@16"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store that the commit before Onepass became a package made."""
    with zipfile.ZipFile(FIXTURE) as archive:
        for name in archive.namelist():
            if name.startswith("store/"):
                archive.extract(name, tmp_path)
    return tmp_path / "store"


def files_of(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def file_of(store: Path, key: str) -> Path:
    dataset, name = key.split("/")
    return store / dataset / ("pixels.h5" if name == "pixels" else f"features/{name}.h5")


def rows_of(path: Path, column: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file[column][()]


def migrate(store: Path, dataset: str = "") -> list[Migration]:
    return migrate_store(MigrateConfig(cache_dir=store, dataset=dataset))


def check_migrated(store: Path, before: dict[str, np.ndarray]) -> None:
    """Check that all is there, bit by bit, and nothing besides."""
    dataset = open_dataset(store, "colours")
    np.testing.assert_array_equal(dataset.pixels, before["colours/pixels"])
    np.testing.assert_array_equal(dataset.content, content_of(before["colours/pixels"]))
    for key in KEYS[1:]:
        features = open_features(file_of(store, key))
        np.testing.assert_array_equal(features.X, before[key])
        check_fresh(features, dataset.contents)
    names = ["manifest.h5", "pixels.h5", *(file_of(store, key).name for key in KEYS[1:])]
    assert sorted(path.name for path in files_of(store)) == sorted(names)
    for path in files_of(store):
        RowFile.open(path).verify()


def test_a_child_that_ends_for_a_reason_of_its_own_says_nothing_of_the_file(store: Path) -> None:
    path = file_of(store, KEYS[0])
    with pytest.raises(UnreadableFileError, match="ended with exit code 1, which says nothing"):
        format1._in_child(sys.exit, path)
    with pytest.raises(CorruptFileError, match="HDF5 ended the process"):
        format1._in_child(aborts, path)


def aborts(path: Path) -> None:
    os.abort()


@pytest.fixture
def before(store: Path) -> dict[str, np.ndarray]:
    columns = {key: "pixels" if key == "colours/pixels" else "features" for key in KEYS}
    return {key: rows_of(file_of(store, key), column) for key, column in columns.items()}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read format 1 in this process, where it is not the reading that is tested."""
    monkeypatch.setattr(format1, "_in_child", lambda read, path: read(path))


def test_rows_labels_and_digests_stay_what_they_were(
    store: Path, before: dict[str, np.ndarray], said: pytest.LogCaptureFixture
) -> None:
    old = {key: format1.read_rows(file_of(store, key)) for key in KEYS}
    assert migrate(store) == [Migration(key, "migrated", 84) for key in KEYS]
    assert "colours/tiny@16+flip: migrated" in said.text
    check_migrated(store, before)
    dataset, pixels = open_dataset(store, "colours"), old["colours/pixels"]
    assert dataset.digest == pixels.attributes["digest"]
    assert dataset.names == pixels.side["names"] and dataset.record.title == "images"
    np.testing.assert_array_equal(dataset.labels, pixels.side["labels"])
    np.testing.assert_array_equal(dataset.split, pixels.side["split"])
    stored = RowFile.open(store / "colours" / "pixels.h5")
    assert stored.inputs["geometry"] == pixels.inputs["geometry"]
    assert not stored.columns["source"].any()
    for key in KEYS[1:]:
        rows = RowFile.open(file_of(store, key))
        earlier = old[key]
        assert open_features(rows.path).digest == digest_bytes(earlier.digest.encode(), earlier.side_digest.encode())  # fmt: skip
        assert rows.attributes["extraction"] == earlier.attributes["extraction"]
        assert rows.made_by.command == earlier.made_by.command and rows.made_by.batch == 64
        assert rows.made_by.migrated.created > rows.made_by.created
        assert "dataset" not in rows.inputs and rows.side == {}


@pytest.mark.usefixtures("in_process")
def test_a_second_migration_changes_nothing(store: Path) -> None:
    migrate(store)
    contents = {path: path.read_bytes() for path in files_of(store)}
    assert migrate(store) == []
    assert {path: path.read_bytes() for path in files_of(store)} == contents


def test_whatever_needs_the_files_names_the_command(
    store: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in files_of(store):
        with pytest.raises(EarlierFormatError):
            RowFile.open(path)
    words = ["--cache-dir", str(store)]
    assert main("cache", COMMANDS, ["verify", "colours/tiny@16", *words]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"bring the store up to date with: onepass cache migrate --cache-dir {store}" in err
    assert main("cache", COMMANDS, ["migrate", "colours", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("colours/pixels: migrated, 84 rows\n") and "4 files migrated" in out
    assert main("cache", COMMANDS, ["migrate", *words]) == 0
    assert capsys.readouterr().out == "Every file of the store is of today's format\n"
    assert main("cache", COMMANDS, ["verify", *words]) == 0


def test_a_store_or_data_set_that_is_not_there_is_an_error(store: Path) -> None:
    with pytest.raises(MissingFileError, match="elsewhere"):
        migrate(store / "elsewhere")
    with pytest.raises(MissingFileError, match="birds"):
        migrate(store, "birds")
    with pytest.raises(UsageError, match="expected a name"):
        migrate(store, "../store/colours")


class Killed(BaseException):
    """Ends a migration where a kill would."""


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("renamed", [False, True])
def test_stopped_before_or_after_any_rename_it_goes_on(
    store: Path, before: dict[str, np.ndarray], step: int, renamed: bool, monkeypatch
) -> None:
    """Six: the next pixels, the manifest, the pixels, three feature files."""
    rename, calls = Path.replace, iter(range(100))

    def killed(path: Path, target: Path) -> None:
        if next(calls) != step:
            rename(path, target)
            return
        if renamed:
            rename(path, target)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            migrate(store)
    if (store / "colours" / "manifest.h5").exists():  # the commit: now it is read
        np.testing.assert_array_equal(open_dataset(store, "colours").pixels, before[KEYS[0]])
    else:
        with pytest.raises(EarlierFormatError):
            open_dataset(store, "colours")
    migrate(store)
    check_migrated(store, before)


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on(store: Path, before: dict[str, np.ndarray]) -> None:
    code = (
        "import os, sys; os.setpgid(0, 0)\n"
        "from pathlib import Path\nfrom onepass.cache.migrate import *\n"
        "if __name__ == '__main__':\n"
        "    print('start', flush=True); migrate_store(MigrateConfig(cache_dir=Path(sys.argv[1])))"
    )
    random = np.random.default_rng(0)
    for _ in range(10):
        process = processes.start("-c", code, str(store), PROGRAM="1")
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    migrate(store)
    check_migrated(store, before)


def rewrite(path: Path, name: str, value: object) -> None:
    """Change a JSON value of a file of format 1."""
    with h5py.File(path, "r+") as file:
        del file["onepass"][name]
        file["onepass"].create_dataset(name, data=json.dumps(value), dtype=h5py.string_dtype())


@pytest.mark.usefixtures("in_process")
def test_vectors_of_another_state_of_the_data_set_are_left(
    store: Path, capsys: pytest.CaptureFixture
) -> None:
    path = file_of(store, "colours/tiny@16")
    inputs = format1.read_rows(path).inputs
    rewrite(path, "inputs", {**inputs, "dataset_digest": "0" * 64})
    content = path.read_bytes()
    assert main("cache", COMMANDS, ["migrate", "--cache-dir", str(store)]) == 0
    out = capsys.readouterr().out
    assert "colours/tiny@16: left, 84 rows; made from another state of the data set" in out
    assert "onepass cache delete colours/tiny@16 " in out and "3 files migrated" in out
    assert path.read_bytes() == content
    assert [m.state for m in migrate(store)] == ["left"]


def flip(path: Path, column: str) -> None:
    with h5py.File(path) as file:
        offset = file[column].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 1000] ^= 1
    path.write_bytes(content)


@pytest.mark.usefixtures("in_process")
def test_a_damaged_file_is_named_and_stays_and_the_others_go_on(store: Path) -> None:
    damaged = file_of(store, "colours/tiny@16+flip")
    flip(damaged, "features")
    content = damaged.read_bytes()
    with pytest.raises(CorruptFileError, match=r"tiny@16\+flip\.h5: rows 0 to 83 differ"):
        migrate(store)
    assert damaged.read_bytes() == content
    for key in set(KEYS) - {"colours/tiny@16+flip"}:
        RowFile.open(file_of(store, key)).verify()


@pytest.mark.parametrize("what", ["pixels", "labels", "classes", "who made it"])
@pytest.mark.usefixtures("in_process")
def test_damaged_pixels_stay_and_so_do_the_vectors_made_from_them(store: Path, what: str) -> None:
    path = file_of(store, "colours/pixels")
    if what == "pixels":
        flip(path, "pixels")
    elif what == "labels":
        with h5py.File(path, "r+") as file:
            file["labels"][3] = 2
    elif what == "who made it":
        rewrite(path, "made_by", {"created": "today"})
    else:
        attributes = format1.read_rows(path).attributes
        rewrite(path, "attributes", {**attributes, "class_ids": ["blue", "green", "rad"]})
    contents = {path: path.read_bytes() for path in files_of(store)}
    with pytest.raises(CorruptFileError, match=r"pixels\.h5: "):
        migrate(store)
    assert {path: path.read_bytes() for path in files_of(store)} == contents


def children_seconds() -> float:
    """Return the time of the processor that processes of this one have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_file_that_hdf5_never_ends_with_is_named_in_ten_seconds_and_the_others_go_on(
    store: Path,
) -> None:
    path = file_of(store, "colours/tiny@16")
    content = path.read_bytes()
    heap = content.index(b"GCOL") // 512 * 512 + 1024
    damaged = content[:heap] + bytes(512) + content[heap + 512 :]
    path.write_bytes(damaged)
    start = children_seconds()
    with pytest.raises(CorruptFileError, match="came to no end with it in 5 s"):
        migrate(store)
    assert children_seconds() - start < 10 + 4 * len(KEYS)  # each file has a process, which begins
    assert path.read_bytes() == damaged
    for key in set(KEYS) - {"colours/tiny@16"}:
        RowFile.open(file_of(store, key)).verify()


def test_no_zeroed_sector_of_format_1_keeps_a_command_from_its_end(store: Path) -> None:
    path = file_of(store, "colours/tiny@16")
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom onepass.cache.errors import OnepassError\n"
        "from onepass.cache.rowfile import RowFile\n"
        "path = Path(sys.argv[1]); whole = path.read_bytes()\n"
        "for at in range(0, len(whole), 512):\n"
        "    path.write_bytes(whole[:at] + bytes(512) + whole[at + 512:])\n"
        "    try: RowFile.open(path); assert False\n"
        "    except OnepassError: pass\n"
        "print('end')"
    )
    done = subprocess.run([sys.executable, "-c", code, path, ROOT], capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.stdout == "end\n", done


@pytest.mark.parametrize("hostile", ["external", "object", "huge"])
@pytest.mark.usefixtures("in_process")
def test_what_no_file_of_ours_holds_is_refused_in_format_1_too(store: Path, hostile: str) -> None:
    path = file_of(store, "colours/tiny@16")
    with h5py.File(path, "r+") as file:
        if hostile == "external":
            file["more"] = h5py.ExternalLink("/etc/hostname", "/x")
        elif hostile == "object":
            file.create_dataset("more", (84,), h5py.ref_dtype)
        else:
            file.create_dataset("more", (10**10,), "i8")
    with pytest.raises(CorruptFileError, match=r"tiny@16\.h5: expected a row file of format 1"):
        migrate(store)


@pytest.mark.usefixtures("in_process")
def test_a_file_that_is_being_written_is_named_and_the_others_go_on(store: Path) -> None:
    with exclusive(file_of(store, "colours/tiny@16")), pytest.raises(LockedError, match="tiny@16"):
        migrate(store)
    RowFile.open(file_of(store, "colours/tiny@16!float32"))
    assert [m.key for m in migrate(store)] == ["colours/tiny@16"]


@pytest.fixture
def unfinished(store: Path) -> Iterator[tuple[Path, dict[str, np.ndarray], dict]]:
    """An extraction of format 1 with two of three shards, the second one damaged."""
    path = file_of(store, "colours/tiny@16")
    old = format1.read_rows(path)
    features, inputs = rows_of(path, "features"), old.inputs
    layout = RowLayout(old.layout.columns, 84, 40)
    plan = format1.EarlierPlan(layout, inputs, {"batch": 8})
    target = file_of(store, "colours/tiny@16~max")
    parts_folder(target).mkdir()
    plan.write(parts_folder(target) / "plan.json")
    for index in (0, 2):
        start, stop = layout.shard_range(index)
        arrays = {"features": features[start:stop]}
        with h5py.File(parts_folder(target) / f"shard-{index:06d}.h5", "w") as file:
            file.create_dataset("features", data=arrays["features"])
            digest = shard_digest(arrays) if index == 0 else "0" * 64
            file.attrs.update({"plan": plan.digest, "index": index, "digest": digest})
    yield target, {"features": features}, inputs


def test_the_shards_of_an_unfinished_extraction_go_on_to_be_used(
    store: Path, unfinished: tuple[Path, dict[str, np.ndarray], dict], said
) -> None:
    target, arrays, inputs = unfinished
    done = migrate(store)
    assert done[-1] == Migration("colours/tiny@16~max", "migrated", 40, "unfinished; extract resumes it")  # fmt: skip
    assert "shard-000002.h5: its rows differ" in said.text
    assert migrate(store) == []
    dataset = open_dataset(store, "colours")
    columns = {"features": Column((16,), "float16"), "content": Column((16,), "uint8")}
    kind = ShardKind(columns, "content", key_of_format_1(inputs))
    with RowWriter(target, kind, dataset.content, shard_rows=40, how=How(batch=8)) as writer:
        assert writer.stored == len(np.unique(dataset.content[:40], axis=0))
        for positions in writer.missing:
            rows = {"features": arrays["features"][positions], "content": dataset.content[positions]}  # fmt: skip
            writer.write(positions, rows)
        finished = writer.finish()
    np.testing.assert_array_equal(finished.columns["features"], arrays["features"])


@pytest.mark.usefixtures("in_process")
def test_unfinished_rows_of_a_random_view_are_dropped(
    store: Path, unfinished: tuple[Path, dict[str, np.ndarray], dict]
) -> None:
    """Their boxes were drawn by row number; now they are drawn by content."""
    parts = parts_folder(unfinished[0])
    plan = format1.EarlierPlan.read(parts / "plan.json")
    replace(plan, inputs={**plan.inputs, "view": "random:3"}).write(parts / "plan.json")
    assert migrate(store)[-1].state == "dropped" and not parts.exists()


@pytest.mark.usefixtures("in_process")
def test_unfinished_pixels_are_dropped(store: Path) -> None:
    parts = parts_folder(file_of(store, "colours/pixels"))
    parts.mkdir()
    (parts / "plan.json").write_text("{}")
    dropped = migrate(store)[1]
    assert (dropped.key, dropped.state) == ("colours/pixels", "dropped")
    assert "decodes them again" in dropped.why and not parts.exists()
    assert to_json(dropped)["rows"] == 0


@pytest.mark.usefixtures("in_process")
def test_vectors_whose_data_set_is_gone_are_left(store: Path) -> None:
    file_of(store, "colours/pixels").unlink()
    assert {m.state for m in migrate(store)} == {"left"}
    with pytest.raises(OnepassError):
        RowFile.open(file_of(store, "colours/tiny@16"))
