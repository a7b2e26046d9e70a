"""Finished row files: what is written whole, and what is found when it is not what was written."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import ROOT
from onepass.cache.artifacts import to_json
from onepass.cache.errors import CorruptFileError, EarlierFormatError, InvalidInputError
from onepass.cache.made_by import MadeBy
from onepass.cache.rowfile import RowFile, seal, write_rows, write_skeleton
from onepass.cache.shards import Column, RowLayout, shard_digest

ROWS = 100
INPUTS = {"from": "a test", "size": 128}


def arrays() -> dict[str, np.ndarray]:
    rows = np.arange(ROWS)
    return {
        "features": (rows[:, None] + np.arange(5) / 8).astype("float16"),
        "logits": (rows[:, None, None] * np.ones((2, 3))).astype("float32"),
    }


def side() -> dict:
    return {
        "labels": np.arange(ROWS, dtype="int32"),
        "names": [f"ä{i}.png" for i in range(ROWS)],
        "empty": [""] * ROWS,
    }


def make(path: Path, **kwargs: object) -> RowFile:
    return write_rows(path, arrays(), side(), INPUTS, {"licence": "none"}, block_rows=16, **kwargs)  # type: ignore[arg-type]


def test_a_file_reads_back_as_it_was_written_without_a_copy(tmp_path: Path) -> None:
    rows = make(tmp_path / "new" / "a.h5")
    for name, expected in arrays().items():
        assert isinstance(rows.columns[name], np.memmap)
        np.testing.assert_array_equal(rows.columns[name], expected)
        with h5py.File(rows.path) as file:  # any HDF5 program reads it
            assert file[name].chunks is None
            np.testing.assert_array_equal(file[name][()], expected)
    np.testing.assert_array_equal(rows.side["labels"], side()["labels"])
    assert (rows.side["names"], rows.side["empty"]) == (side()["names"], side()["empty"])
    assert (rows.inputs, rows.attributes) == (INPUTS, {"licence": "none"})
    assert rows.made_by.versions and rows.layout.shards == len(rows.shard_digests) == 7
    with pytest.raises(ValueError, match="read-only"):
        rows.columns["features"][0] = 1
    assert [path.name for path in rows.path.parent.iterdir()] == ["a.h5"]
    rows.verify()


CUT = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
from onepass.cache.errors import CorruptFileError
from onepass.cache.rowfile import RowFile, write_rows
path = Path(sys.argv[1])
rows = write_rows(path, {"x": np.zeros((5000, 100), np.float32)}, {}, {}, {}).columns["x"]
half = rows[:2500]
write_rows(path, {"x": np.ones((10, 100), np.float32)}, {}, {}, {})
assert rows[4000].sum() == 0  # replaced, not cut: the map keeps what it has
rows = RowFile.open(path).columns["x"]
path.write_bytes(b"")
for part in (rows, half):
    try:
        print(part[-1].sum())
    except CorruptFileError as error:
        print(error)
"""


def test_a_file_that_is_cut_while_it_is_mapped_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    done = subprocess.run([sys.executable, "-c", CUT, path, ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # a map read all the same ends with SIGBUS
    cut, whole = done.stdout.splitlines()
    assert cut.startswith(f"{path}: expected at least ") and "found 0" in cut and whole == "0.0"


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    made_by = MadeBy.now()
    assert make(tmp_path / "a.h5", made_by=made_by).path.read_bytes() == make(tmp_path / "b.h5", made_by=made_by).path.read_bytes()  # fmt: skip


def test_rows_are_read_from_a_map_in_blocks_and_fit_others_by_default(tmp_path: Path) -> None:
    first = make(tmp_path / "a.h5")
    again = write_rows(tmp_path / "b.h5", first.columns, block_rows=16)
    assert again.digest == first.digest and again.side == {}
    assert write_rows(tmp_path / "c.h5", first.columns).layout.shards == 1


def test_a_skeleton_is_no_file_until_it_is_sealed(tmp_path: Path) -> None:
    layout = RowLayout({"x": Column((2,), "float32")}, 5, 2)
    path = tmp_path / "a.h5"
    path.touch()
    meta: dict = {"inputs": {}, "attributes": {}, "made_by": to_json(MadeBy.now())}
    offsets = write_skeleton(path, layout, {}, meta)
    x = np.arange(10, dtype="float32").reshape(5, 2)
    with path.open("r+b") as file:
        file.seek(offsets["x"])
        file.write(x.tobytes())
    with pytest.raises(CorruptFileError, match="list of digests was changed"):
        RowFile.open(path)
    digests = [shard_digest({"x": x[a : a + 2]}) for a in (0, 2, 4)]
    with pytest.raises(InvalidInputError, match="expected 3 digests"):
        seal(path, digests[:2])
    seal(path, digests)
    rows = RowFile.open(path)
    rows.verify()
    np.testing.assert_array_equal(rows.columns["x"], x)
    np.testing.assert_array_equal(rows.check_block(1)["x"], x[2:4])


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 16]))


def place(path: Path, name: str) -> tuple[int, int]:
    with h5py.File(path) as file:
        dataset = file[name]
        return dataset.id.get_offset(), dataset.size * dataset.dtype.itemsize


@pytest.mark.parametrize("row", [0, 37, 99])
def test_a_flipped_row_is_found_by_its_block_only(tmp_path: Path, row: int) -> None:
    rows = make(tmp_path / "a.h5")
    flip(rows.path, place(rows.path, "logits")[0] + row * 24)
    damaged, block = RowFile.open(rows.path), row // 16
    words = f"rows {block * 16} to {min(block * 16 + 15, 99)} differ"
    with pytest.raises(CorruptFileError, match=words):
        damaged.check_block(block)
    with pytest.raises(CorruptFileError, match=words):
        damaged.verify()
    for other in set(range(7)) - {block}:
        damaged.check_block(other)


@pytest.mark.parametrize("part", ["labels", "names/utf8"])
def test_verify_finds_a_changed_side_array(tmp_path: Path, part: str) -> None:
    rows = make(tmp_path / "a.h5")
    flip(rows.path, place(rows.path, part)[0] + 100)
    with pytest.raises(CorruptFileError, match="labels, names"):
        RowFile.open(rows.path).verify()


@pytest.mark.parametrize("part", ["inputs", "attributes", "made_by", "layout", "json_digest", "shard_digests", "digest", "names/offsets"])  # fmt: skip
def test_opening_finds_every_flip_in_what_a_file_says_of_itself(tmp_path: Path, part: str) -> None:
    path = make(tmp_path / "a.h5").path
    begin, length = place(path, part if "/" in part else f"onepass/{part}")
    whole = path.read_bytes()
    for offset in range(begin, begin + length, 1 if length < 100 else 7):
        path.write_bytes(whole)
        flip(path, offset)
        with pytest.raises(CorruptFileError):
            RowFile.open(path)


@pytest.mark.parametrize("wrong", ["lengths", "side", "type", "flags", "name", "clash"])
def test_what_cannot_be_stored_is_refused_and_nothing_is_written(
    tmp_path: Path, wrong: str
) -> None:
    columns, beside = arrays(), side()
    if wrong == "lengths":
        columns["features"] = columns["features"][1:]
    elif wrong == "side":
        beside["names"].pop()
    elif wrong == "type":
        columns["features"] = columns["features"].astype("complex64")
    elif wrong == "flags":
        beside["labels"] = beside["labels"] > 3
    elif wrong == "name":
        beside["onepass"] = beside["labels"]
    else:
        beside["logits"] = beside["labels"]
    with pytest.raises(InvalidInputError):
        write_rows(tmp_path / "a.h5", columns, beside)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_replaced_while_it_is_opened_gives_no_rows_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a.h5").path
    other = write_rows(
        tmp_path / "b.h5",
        {n: np.roll(a, 3, axis=0)[::-1] for n, a in arrays().items()},
        block_rows=16,
    ).path
    read = RowFile._read.__func__  # type: ignore[attr-defined]

    def replaced(cls: type, path: Path, file: h5py.File) -> RowFile:
        if other.exists():
            other.replace(path)
        return read(cls, path, file)

    monkeypatch.setattr(RowFile, "_read", classmethod(replaced))
    rows = RowFile.open(path)
    rows.verify()
    np.testing.assert_array_equal(rows.columns["features"], arrays()["features"])


def test_a_file_of_format_1_is_named_and_its_strings_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": 1, "digest": "x"})
        file.create_dataset("names", data=["a"], dtype=h5py.string_dtype())
    with pytest.raises(EarlierFormatError, match=r"a\.h5: expected format 2, found format 1"):
        RowFile.open(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = 3
    with pytest.raises(CorruptFileError, match="format 3 of a later Onepass"):
        RowFile.open(path)
    assert path.exists()
