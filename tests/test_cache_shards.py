"""Shards: what each row is known by lies beside it, and a digest says whether they are what was written."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import ROOT
from onepass.cache.artifacts import from_json, to_json
from onepass.cache.content import source_of
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.rows import RowWriter
from onepass.cache.shards import (
    Column,
    RowLayout,
    ShardKind,
    read_shard,
    shard_digest,
    shard_keys,
    shard_path,
    write_shard,
)

LAYOUT = RowLayout({"a": Column((3,), "float16"), "b": Column((), "int32")}, 10, 4)
KIND = ShardKind({**LAYOUT.columns, "content": Column((16,), "uint8")}, "content", {"size": 64})


def arrays(*rows: int) -> dict[str, np.ndarray]:
    """Return rows that tell their numbers."""
    numbers = np.array(rows)
    return {
        "a": np.outer(numbers, [1, 2, 3]).astype("float16"),
        "b": numbers.astype("int32"),
        "content": np.stack([source_of(str(row).encode()) for row in rows]),
    }


@pytest.mark.parametrize(("rows", "each"), [(1, 1), (10, 4), (12, 4), (3, 100)])
def test_shards_cover_every_row_once_and_in_order(rows: int, each: int) -> None:
    layout = RowLayout({"a": Column((), "f4")}, rows, each)
    covered = [row for i in range(layout.shards) for row in range(*layout.shard_range(i))]
    assert covered == list(range(rows))


def test_layout_counts_bytes_and_survives_json() -> None:
    assert LAYOUT.columns["a"].row_bytes == 6 and LAYOUT.columns["b"].row_bytes == 4
    assert LAYOUT.total_bytes == 100
    written = to_json(
        LAYOUT
    )  # part of every shard's digest: another form would make all of them stale
    assert written["columns"] == {n: [list(c.shape), c.dtype] for n, c in LAYOUT.columns.items()}
    assert from_json(RowLayout, written) == LAYOUT
    with pytest.raises(CorruptFileError, match="shard_rows: missing"):
        from_json(RowLayout, {"columns": written["columns"], "rows": 3})
    assert Column((1 << 20, 1 << 20, 4), "float32").row_bytes == 1 << 44  # beyond 32 bits


@pytest.mark.parametrize(("columns", "rows", "each"), [(1, 0, 4), (1, 4, 0), (0, 4, 4), (1, -1, 4)])
def test_an_empty_layout_is_refused(columns: int, rows: int, each: int) -> None:
    with pytest.raises(InvalidInputError, match="at least one column, one row and one row a shard"):
        RowLayout({"a": Column((), "f4")} if columns else {}, rows, each)


def test_a_shard_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = arrays(7, 3, 9)
    path = write_shard(tmp_path, KIND, written)
    assert path == shard_path(tmp_path, written["content"][0])
    assert path.name == f"shard-{source_of(b'7').tobytes().hex()}.h5"
    read = read_shard(path, KIND)
    for name, array in read.items():
        np.testing.assert_array_equal(array, written[name])
        assert isinstance(array, np.memmap)
    assert shard_digest(read) == shard_digest(written)
    np.testing.assert_array_equal(shard_keys(path, "content"), written["content"])
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_any_program_reads_a_shard(tmp_path: Path) -> None:
    with h5py.File(write_shard(tmp_path, KIND, arrays(1, 2))) as file:
        assert file["b"][()].tolist() == [1, 2] and set(file) == {"a", "b", "content"}


@pytest.mark.parametrize(
    "other",
    [
        ShardKind(KIND.columns, "content", {"size": 65}),
        ShardKind({**KIND.columns, "b": Column((), "int64")}, "content", {"size": 64}),
        ShardKind({"a": KIND.columns["a"], "content": KIND.columns["content"]}, "content", {}),
        ShardKind({**KIND.columns, "source": Column((16,), "uint8")}, "source", {"size": 64}),
    ],
)
def test_a_shard_of_another_kind_is_refused(tmp_path: Path, other: ShardKind) -> None:
    path = write_shard(tmp_path, KIND, arrays(1, 2))
    assert other.digest != KIND.digest
    with pytest.raises(CorruptFileError, match=f"{path}.*other columns or another recipe"):
        read_shard(path, other)


def test_a_shard_that_claims_its_kind_is_compared_with_it(tmp_path: Path) -> None:
    path = write_shard(tmp_path, KIND, arrays(1, 2))
    with h5py.File(path, "r+") as file:
        del file["b"]
        file["b"] = np.zeros(3, "int32")
    with pytest.raises(CorruptFileError, match="expected columns"):
        read_shard(path, KIND)


def test_keys_of_what_is_no_shard_are_none(tmp_path: Path) -> None:
    path = write_shard(tmp_path, KIND, arrays(1, 2))
    path.write_bytes(path.read_bytes()[:700])
    assert shard_keys(path, "content").shape == (0, 16)
    assert shard_keys(tmp_path / "none.h5", "content").shape == (0, 16)
    with pytest.raises(MissingFileError):
        read_shard(tmp_path / "none.h5", KIND)


def test_the_digest_knows_names_types_and_shapes_but_no_order() -> None:
    one = {"a": np.zeros(4, "f4"), "b": np.ones(2, "i4")}
    assert shard_digest(one) == shard_digest(dict(reversed(one.items())))
    others = [
        {"a": one["b"], "b": one["a"]},
        {**one, "a": np.zeros((2, 2), "f4")},
        {**one, "a": np.zeros(4, "i4")},
        {**one, "b": np.array([1, 2], "i4")},
    ]
    assert shard_digest(one) not in map(shard_digest, others)


def test_a_view_with_gaps_is_written_as_its_values(tmp_path: Path) -> None:
    wide = np.repeat(arrays(0, 1)["a"], 2, axis=1)[:, ::2]
    assert not wide.flags.c_contiguous
    path = write_shard(tmp_path, KIND, {**arrays(0, 1), "a": wide})
    assert shard_digest(read_shard(path, KIND)) == shard_digest(arrays(0, 1))


@pytest.mark.parametrize("column", ["a", "b", "content"])
def test_a_changed_value_is_found_even_where_hdf5_sees_nothing_wrong(
    tmp_path: Path, column: str
) -> None:
    path = write_shard(tmp_path, KIND, arrays(4, 5))
    with h5py.File(path, "r+") as file:
        file[column][0] = 99
    with pytest.raises(CorruptFileError, match="differ from the digest written with them"):
        read_shard(path, KIND)


@pytest.mark.parametrize("change", ["dtype", "rows", "column", "none"])
def test_wrong_arrays_are_refused_and_nothing_is_written(tmp_path: Path, change: str) -> None:
    wrong = arrays(0, 1)
    if change == "dtype":
        wrong["a"] = wrong["a"].astype("float32")
    elif change == "rows":
        wrong["b"] = wrong["b"][:-1]
    elif change == "none":
        wrong = {name: array[:0] for name, array in wrong.items()}
    else:
        del wrong["content"]
    with pytest.raises(InvalidInputError, match="shard: expected columns"):
        write_shard(tmp_path, KIND, wrong)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """A shard computed twice, here and on a cluster, must not differ in a bit."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from pathlib import Path; from test_cache_shards import *\n"
        "write_shard(Path(sys.argv[3]), KIND, arrays(0, 1))"
    )
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    subprocess.run([sys.executable, "-c", code, ROOT, ROOT / "tests", tmp_path / "one"], check=True)
    two = write_shard(tmp_path / "two", KIND, arrays(0, 1))
    assert (tmp_path / "one" / two.name).read_bytes() == two.read_bytes()


def test_a_system_that_cannot_reserve_space_makes_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has no posix_fallocate."""

    def make(path: Path) -> bytes:
        rows = arrays(*range(10))
        with RowWriter(path, KIND, rows["content"], shard_rows=4) as writer:
            for positions in writer.missing:
                writer.write(positions, {name: array[positions] for name, array in rows.items()})
            writer.finish().verify()
        with h5py.File(path) as file:
            return file["a"][()].tobytes() + file["b"][()].tobytes()

    one = make(tmp_path / "one.h5")
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert make(tmp_path / "two.h5") == one
    assert (tmp_path / "one.h5").stat().st_size == (tmp_path / "two.h5").stat().st_size
