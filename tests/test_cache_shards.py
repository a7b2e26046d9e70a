"""Shards: the fixed map from rows to shards, and what makes a shard trustworthy."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import ROOT
from onepass.cache.artifacts import from_json, to_json
from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.cache.rows import RowWriter
from onepass.cache.shards import (
    Column,
    RowLayout,
    read_shard,
    shard_digest,
    shard_path,
    write_shard,
)

LAYOUT = RowLayout({"a": Column((3,), "float16"), "b": Column((), "int32")}, 10, 4)


def arrays(index: int) -> dict[str, np.ndarray]:
    rows = np.arange(*LAYOUT.shard_range(index))
    return {"a": np.outer(rows, [1, 2, 3]).astype("float16"), "b": rows.astype("int32")}


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
    digest = write_shard(tmp_path, LAYOUT, "plan", 2, arrays(2))
    assert shard_path(tmp_path, 2).name == "shard-000002.h5"
    for name, array in read_shard(tmp_path, LAYOUT, "plan", 2).items():
        np.testing.assert_array_equal(array, arrays(2)[name])
    assert digest == shard_digest(arrays(2))
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000002.h5"]


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
    wide = np.repeat(arrays(0)["a"], 2, axis=1)[:, ::2]
    assert not wide.flags.c_contiguous
    write_shard(tmp_path, LAYOUT, "plan", 0, {**arrays(0), "a": wide})
    assert shard_digest(read_shard(tmp_path, LAYOUT, "plan", 0)) == shard_digest(arrays(0))


@pytest.mark.parametrize("wrong", ["plan", "index", "missing", "length"])
def test_a_shard_of_something_else_is_refused(tmp_path: Path, wrong: str) -> None:
    write_shard(tmp_path, LAYOUT, "plan", 0, arrays(0))
    plan, index, layout = "plan", 0, LAYOUT
    if wrong == "plan":
        plan = "another"
    elif wrong == "index":
        index = 1
        shard_path(tmp_path, 0).rename(shard_path(tmp_path, 1))
    elif wrong == "missing":
        index = 1
    else:
        layout = RowLayout(LAYOUT.columns, 10, 5)
    with pytest.raises(CorruptFileError, match=f"shard-00000{index}.h5"):
        read_shard(tmp_path, layout, plan, index)


def test_a_changed_value_is_found_even_where_hdf5_sees_nothing_wrong(tmp_path: Path) -> None:
    write_shard(tmp_path, LAYOUT, "plan", 1, arrays(1))
    with h5py.File(shard_path(tmp_path, 1), "r+") as file:
        file["b"][0] = 99
    with pytest.raises(CorruptFileError, match="differ from the digest written with them"):
        read_shard(tmp_path, LAYOUT, "plan", 1)


@pytest.mark.parametrize("change", ["dtype", "rows", "column"])
def test_wrong_arrays_are_refused_and_nothing_is_written(tmp_path: Path, change: str) -> None:
    wrong = arrays(0)
    if change == "dtype":
        wrong["a"] = wrong["a"].astype("float32")
    elif change == "rows":
        wrong["b"] = wrong["b"][:-1]
    else:
        del wrong["b"]
    with pytest.raises(InvalidInputError, match="shard 0: expected columns"):
        write_shard(tmp_path, LAYOUT, "plan", 0, wrong)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """A shard computed twice, here and on a cluster, must not differ in a bit."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from pathlib import Path; from test_cache_shards import *\n"
        "write_shard(Path(sys.argv[3]), LAYOUT, 'plan', 0, arrays(0))"
    )
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    subprocess.run([sys.executable, "-c", code, ROOT, ROOT / "tests", tmp_path / "one"], check=True)
    write_shard(tmp_path / "two", LAYOUT, "plan", 0, arrays(0))
    assert shard_path(tmp_path / "one", 0).read_bytes() == shard_path(tmp_path / "two", 0).read_bytes()  # fmt: skip


def test_a_system_that_cannot_reserve_space_makes_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has no posix_fallocate."""

    def make(path: Path) -> bytes:
        with RowWriter(path, LAYOUT, {}) as writer:
            for index in writer.missing:
                writer.write(index, arrays(index))
            writer.finish({"names": [f"{row}" for row in range(10)]}).verify()
        with h5py.File(path) as file:
            return file["a"][()].tobytes() + file["b"][()].tobytes()

    one = make(tmp_path / "one.h5")
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert make(tmp_path / "two.h5") == one
    assert (tmp_path / "one.h5").stat().st_size == (tmp_path / "two.h5").stat().st_size
