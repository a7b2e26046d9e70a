"""onepass cache list | show | verify | delete, as processes on real files."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import ROOT
from onepass.cache.commandline.command import main
from onepass.cache.features import FeatureKey
from onepass.cache.files import TEMPORARY
from onepass.cache.inventory import (
    Entry,
    KeyConfig,
    ListConfig,
    delete_entry,
    entries_table,
    list_entries,
)
from onepass.cache.locks import exclusive
from onepass.cache.rowfile import write_rows
from onepass.cache.rows import Column, RowWriter, ShardKind, parts_folder

KEY = FeatureKey("vgg16", "keras:imagenet", 64)
OTHER = replace(KEY, size=80, view="flip")
CONTENT = np.arange(160, dtype="uint8").reshape(10, 16)


def make(store: Path, key: FeatureKey = KEY, dataset: str = "digits") -> Path:
    """Write a finished feature file of ten rows in three blocks; return its path."""
    arrays = {"features": np.ones((10, 4), key.dtype), "content": CONTENT}
    return write_rows(
        key.file(store, dataset),
        arrays,
        inputs=key.recipe(),
        attributes={"digest": "x"},
        block_rows=4,
    ).path


def make_dataset(store: Path, name: str = "digits") -> list[Path]:
    """Write pixels and manifest of ten images; return their paths."""
    pixels = {"pixels": np.ones((10, 2, 2, 3), "uint8"), "content": CONTENT}
    names = [f"{i}.png" for i in range(10)]
    return [
        write_rows(store / name / "pixels.h5", pixels).path,
        write_rows(store / name / "manifest.h5", {"content": CONTENT}, {"names": names}).path,
    ]


def cache(store: Path, *words: str) -> subprocess.CompletedProcess:
    """Run `onepass cache …` as a user does."""
    command = [sys.executable, "-m", "cache", *words, "--cache-dir", store]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def result(store: Path, *words: str) -> dict:
    """Return what `--json` prints; nothing else may be on standard output."""
    done = cache(store, *words, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def begin(store: Path, name: str = "digits", file: str = "pixels.h5") -> Path:
    """Leave an unfinished pixel file: two of three shards."""
    path = store / name / file
    columns = {"pixels": Column((2, 2, 3), "uint8"), "content": Column((16,), "uint8")}
    with RowWriter(path, ShardKind(columns, "content", {}), CONTENT, shard_rows=4) as writer:
        for rows in writer.missing[:2]:
            pixels = np.zeros((4, 2, 2, 3), "uint8")
            writer.write(rows, {"pixels": pixels, "content": CONTENT[rows]})
    return path


def damage(path: Path, column: str = "features") -> None:
    """Flip one bit of the last row."""
    with h5py.File(path) as file:
        dataset = file[column]
        last = dataset.id.get_offset() + dataset.nbytes - 1
    with path.open("r+b") as file:
        file.seek(last)
        byte = file.read(1)[0]
        file.seek(last)
        file.write(bytes([byte ^ 1]))


def test_list_shows_finished_unfinished_and_damaged_files(tmp_path: Path) -> None:
    good, bad = make(tmp_path), make(tmp_path, OTHER)
    bad.write_bytes(bad.read_bytes()[:3000])
    begin(tmp_path)
    for stray in (good.with_name(TEMPORARY + "abcdefgh-" + good.name), good.with_name("a.h5.lock")):
        stray.write_bytes(b"left by a kill")
    entries = {entry["key"]: entry for entry in result(tmp_path, "list")["result"]}
    assert list(entries) == ["digits/pixels", "digits/vgg16@64", "digits/vgg16@80+flip"]
    finished = entries["digits/vgg16@64"]
    assert (finished["state"], finished["rows"], finished["shape"]) == ("finished", 10, {"content": [16], "features": [4]})  # fmt: skip
    assert finished["bytes"] == good.stat().st_size and finished["path"] == str(good)
    unfinished = entries["digits/pixels"]
    assert (unfinished["state"], unfinished["rows"]) == ("unfinished", 8)
    assert unfinished["made"].startswith("2 of 3 shards; the same command resumes")
    assert entries["digits/vgg16@80+flip"]["state"] == "damaged"
    table = cache(tmp_path, "list").stdout.splitlines()
    assert table[0].split() == ["key", "rows", "each", "row", "size", "age", "made", "by"]
    assert table[1].split()[:3] == ["digits/pixels", "8", "2×2×3"]
    assert "damaged: expected a finished row file" in table[3]


def test_list_of_one_data_set_and_of_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, KEY, "cells")
    one = list_entries(ListConfig(cache_dir=tmp_path, dataset="cells"))
    assert [entry.key for entry in one] == ["cells/vgg16@64"]
    done = cache(tmp_path / "nothing", "list")
    assert done.stdout == (
        f"The store is empty. Next: onepass data prepare solar-cells --cache-dir {tmp_path / 'nothing'}\n"
    )


def test_an_old_file_is_days_old() -> None:
    entry = Entry("a/b@1", Path("x"), "finished", 1_000, {"f": [4, 5]}, 16_000_000, 90.0, "cmd")
    cells = re.split(" {2,}", entries_table([entry]).splitlines()[1])
    assert cells == ["a/b@1", "1,000", "4×5", "16.0 MB", "1 min 30 s", "cmd"]
    assert " 3 days  cmd" in entries_table([replace(entry, age=3 * 86_400.0)])


def test_show_says_all_and_is_json_either_way(tmp_path: Path) -> None:
    make(tmp_path)
    shown = json.loads(cache(tmp_path, "show", "digits/vgg16@64").stdout)
    assert shown == result(tmp_path, "show", "digits/vgg16@64")
    assert shown["columns"]["features"] == {"shape": [10, 4], "dtype": "float16"}
    assert shown["inputs"]["weights"] == "keras:imagenet"
    assert shown["made_by"]["versions"]["h5py"] == h5py.__version__
    assert shown["attributes"] == {"digest": "x"}
    make_dataset(tmp_path)
    assert result(tmp_path, "show", "digits/manifest")["side"] == {"names": 10}


def test_verify_reads_every_byte(tmp_path: Path) -> None:
    make(tmp_path)
    bad = make(tmp_path, OTHER)
    done = cache(tmp_path, "verify")
    assert done.returncode == 0 and done.stdout.splitlines() == [
        "digits/vgg16@64: as written", "digits/vgg16@80+flip: as written", "2 files verified",
    ]  # fmt: skip
    damage(bad)
    done = cache(tmp_path, "verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"onepass cache: {bad}: rows 8 to 9 differ from what was written; make the file again\n"  # fmt: skip
    assert result(tmp_path, "verify", "digits/vgg16@64") == {"result": ["digits/vgg16@64"]}


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    paths = [make(tmp_path), make(tmp_path, OTHER)]
    for path in paths:
        damage(path)
    said = cache(tmp_path, "verify").stderr
    assert said.count("\n") == 1 and all(str(path) in said for path in paths)


def test_delete_takes_the_file_and_all_that_is_unfinished_of_it(tmp_path: Path) -> None:
    good, other = make(tmp_path), make(tmp_path, OTHER)
    left = other.with_name(TEMPORARY + "abcdefgh-" + other.name)
    left.write_bytes(b"left by a kill")
    other.write_bytes(b"damaged")
    done = cache(tmp_path, "delete", "digits/vgg16@80+flip")
    assert (done.returncode, done.stdout) == (0, f"{other}: deleted\n")
    assert [path.name for path in good.parent.iterdir()] == ["vgg16@64.h5"]
    pixels = begin(tmp_path)
    delete_entry(KeyConfig(cache_dir=tmp_path, key="digits/pixels"))
    assert not parts_folder(pixels).exists()


def test_pixels_and_manifest_are_verified_each_and_deleted_together(tmp_path: Path) -> None:
    pixels, manifest = make_dataset(tmp_path)
    begin(tmp_path, file="pixels.next.h5")
    features = make(tmp_path)
    done = cache(tmp_path, "verify").stdout.splitlines()
    assert done[:2] == ["digits/pixels: as written", "digits/manifest: as written"]
    damage(manifest, "names/utf8")
    assert f"{manifest}: labels, names or other side arrays" in cache(tmp_path, "verify").stderr
    states = {entry.key: entry.state for entry in list_entries(ListConfig(cache_dir=tmp_path))}
    assert states["digits/pixels.next"] == "unfinished" and states["digits/manifest"] == "finished"
    deleted = result(tmp_path, "delete", "digits/pixels")
    assert deleted == {"path": str(pixels), "features": ["digits/vgg16@64"]}
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == [features]


def test_files_of_the_format_before_are_listed_as_such(tmp_path: Path) -> None:
    old = make(tmp_path)
    with h5py.File(old, "r+") as file:
        file.attrs["format"] = 1
    (entry,) = list_entries(ListConfig(cache_dir=tmp_path))
    assert entry.state == "earlier format" and "found format 1" in entry.made
    damage(make(tmp_path, OTHER))
    done = cache(tmp_path, "verify")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "found format 1" in done.stderr and "rows 8 to 9 differ" in done.stderr
    assert "onepass cache migrate" in done.stderr


def test_a_file_that_is_being_written_is_not_deleted(tmp_path: Path) -> None:
    path = begin(tmp_path)
    with exclusive(path.with_name("manifest.h5")):
        done = cache(tmp_path, "delete", "digits/pixels")
    assert done.returncode == 1 and f"process {os.getpid()} is writing it now" in done.stderr
    assert parts_folder(path).exists()


@pytest.mark.parametrize("word", ["show", "verify", "delete"])
def test_wrong_keys_are_one_line(tmp_path: Path, word: str, capsys) -> None:
    from onepass.cache.__main__ import COMMANDS

    def said(*words: str) -> str:
        assert main("cache", COMMANDS, [*words, "--cache-dir", str(tmp_path)]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        return err

    assert "the store is empty; make it with: onepass data prepare" in said(word, "digits/pixels")
    make(tmp_path)
    assert "'digits/vgg16@46' is unknown; did you mean digits/vgg16@64?" in said(word, "digits/vgg16@46")  # fmt: skip
    begin(tmp_path)
    if word != "delete":
        assert "digits/pixels: not finished yet" in said(word, "digits/pixels")


def test_an_unfinished_file_without_a_plan_is_shown(tmp_path: Path) -> None:
    path = begin(tmp_path)
    (parts_folder(path) / "plan.json").write_text("{")
    (entry,) = list_entries(ListConfig(cache_dir=tmp_path))
    assert entry.made == "no plan; the next run starts anew" and entry.rows == 0


def test_age_is_of_the_last_write(tmp_path: Path) -> None:
    path = make(tmp_path)
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    (entry,) = list_entries(ListConfig(cache_dir=tmp_path))
    assert 3599 < entry.age < 3700
