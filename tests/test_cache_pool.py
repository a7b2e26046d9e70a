"""Rows that exist anywhere are found by what they are known by, and given only after they were checked."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cache_rows import COLUMNS, KIND, RECIPE, arrays, contents, flip

from onepass.cache.errors import CorruptFileError, MissingFileError, StaleError
from onepass.cache.pool import RowPool
from onepass.cache.rowfile import RowFile, write_rows
from onepass.cache.shards import ShardKind, write_shard

NAMES = list(COLUMNS)


def stored(path: Path, images: Any, block_rows: int = 4) -> RowFile:
    """Write a finished file of these images."""
    return write_rows(path, arrays(list(images)), inputs=RECIPE, block_rows=block_rows)


def images_of(pool: RowPool, positions: Any) -> list[float]:
    """Return which images the rows of some positions are of, by what lies in all of their columns."""
    rows = pool.gather(np.asarray(positions), NAMES)
    images = rows["features"][:, 0].astype(int)
    for name, expected in arrays(images).items():
        np.testing.assert_array_equal(rows[name], expected)
    return images.tolist()


def test_positions_are_known_or_unknown_and_equal_ones_are_one(tmp_path: Path) -> None:
    pool = RowPool(contents([5, 3, 5, 8, 3, 9]))
    assert pool.distinct == 4 and pool.known.tolist() == []
    assert pool.unknown().tolist() == [0, 1, 3, 5]
    assert pool.unknown(np.array([4, 2, 1])).tolist() == [0, 1]  # of equal ones the first
    pool.add_file(stored(tmp_path / "a.h5", [9, 7, 5]), "content")
    assert pool.known.tolist() == [0, 5] and pool.unknown().tolist() == [1, 3]
    assert images_of(pool, [2, 5, 0]) == [5, 9, 5]


def test_the_first_that_has_a_row_gives_it(tmp_path: Path) -> None:
    pool = RowPool(contents([0, 1, 2]))
    first, second = stored(tmp_path / "a.h5", [1, 1]), stored(tmp_path / "b.h5", [2, 1])
    pool.add_file(first, "content")
    pool.add_file(second, "content")
    assert [pool.file_of(position).name for position in (1, 2)] == ["a.h5", "b.h5"]
    assert images_of(pool, [2, 1]) == [2, 1]


def test_rows_of_shards_and_files_are_gathered_together(tmp_path: Path) -> None:
    wanted = np.random.default_rng(0).permutation(60)
    pool = RowPool(contents(wanted))
    pool.add_file(stored(tmp_path / "a.h5", range(0, 40, 2)), "content")
    (tmp_path / "b.h5.parts").mkdir()
    for start in range(0, 60, 10):
        images = list(range(start + 9, start - 1, -1))
        keys = pool.add_shard(write_shard(tmp_path / "b.h5.parts", KIND, arrays(images)), KIND)
        np.testing.assert_array_equal(keys, contents(images))
    assert not len(pool.unknown())
    positions = np.random.default_rng(1).integers(0, 60, 200)
    assert images_of(pool, positions) == wanted[positions].tolist()
    odd = int(np.flatnonzero(wanted == 1)[0])
    assert pool.file_of(odd) == tmp_path / "b.h5"  # the file to be, whose unfinished run has it


def test_a_file_gives_no_row_of_a_damaged_block(tmp_path: Path, said) -> None:
    path = stored(tmp_path / "a.h5", range(12)).path
    flip(path, "features", 5)
    pool = RowPool(contents(range(12)))
    pool.add_file(RowFile.open(path), "content")
    assert pool.unknown().tolist() == [4, 5, 6, 7]
    assert "rows 4 to 7 differ from what was written" in said.text
    assert images_of(pool, [11, 0]) == [11, 0]


def test_damage_where_no_row_is_wanted_is_not_looked_at(tmp_path: Path, said) -> None:
    path = stored(tmp_path / "a.h5", range(12)).path
    flip(path, "logits", 11)
    pool = RowPool(contents(range(6)))
    pool.add_file(RowFile.open(path), "content")
    assert not len(pool.unknown()) and not said.text


def test_a_content_that_was_changed_is_never_a_match(tmp_path: Path) -> None:
    """Where a damaged digest happens to be one that is wanted, its block is damaged, too."""
    rows = stored(tmp_path / "a.h5", range(4))
    with h5py.File(rows.path) as file:
        offset = file["content"].id.get_offset()
    content = bytearray(rows.path.read_bytes())
    content[offset : offset + 16] = contents([99])[0].tobytes()
    rows.path.write_bytes(content)
    pool = RowPool(contents([99]))
    pool.add_file(RowFile.open(rows.path), "content")
    assert pool.unknown().tolist() == [0]


def test_a_shard_is_checked_before_it_counts(tmp_path: Path) -> None:
    pool = RowPool(contents(range(4)))
    shard = write_shard(tmp_path, KIND, arrays(range(4)))
    with pytest.raises(CorruptFileError):
        pool.add_shard(shard, ShardKind(COLUMNS, "content", {"from": "elsewhere"}))
    flip(shard, "content", 0)
    with pytest.raises(CorruptFileError, match="differ from the digest written with them"):
        pool.add_shard(shard, KIND)
    with pytest.raises(MissingFileError):
        pool.add_shard(tmp_path / "shard-0.h5", KIND)
    assert len(pool.unknown()) == 4


def test_a_shard_that_was_replaced_gives_no_row(tmp_path: Path) -> None:
    pool = RowPool(contents(range(4)))
    shard = write_shard(tmp_path, KIND, arrays(range(4)))
    pool.add_shard(shard, KIND)
    assert images_of(pool, [3]) == [3]
    write_shard(tmp_path, KIND, arrays([0, 9]))  # of the same name
    with pytest.raises(StaleError, match="run the same command again"):
        pool.gather(np.array([3]), NAMES)
    shard.unlink()
    with pytest.raises(StaleError):
        pool.gather(np.array([3]), NAMES)


def test_a_sample_is_of_every_file_and_spread_over_it(tmp_path: Path) -> None:
    """A few rows of another origin among many must not be missed."""
    pool = RowPool(contents(range(1000)))
    assert pool.sample(64).tolist() == []
    pool.add_file(stored(tmp_path / "a.h5", range(980)), "content")
    pool.add_file(stored(tmp_path / "b.h5", range(980, 983)), "content")
    (tmp_path / "c.h5.parts").mkdir()
    for image in (990, 991, 992):
        pool.add_shard(write_shard(tmp_path / "c.h5.parts", KIND, arrays([image])), KIND)
    sample = pool.sample(30).tolist()
    assert {980, 982, 990, 992} <= set(sample) and len(sample) <= 30
    assert sample[0] == 0 and 979 in sample and sample == sorted(set(sample))
    assert len(pool.sample(1)) == 1 and len(pool.sample(10_000)) <= 986


def test_rows_that_are_only_counted_are_known(tmp_path: Path) -> None:
    pool = RowPool(contents(range(4)))
    pool.count(tmp_path / "a.h5", contents([2, 7, 2]))
    assert pool.known.tolist() == [2] and pool.unknown().tolist() == [0, 1, 3]


@settings(deadline=None, max_examples=40)
@given(
    wanted=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    files=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8), max_size=4),
)
def test_whatever_lies_where_every_row_is_of_its_image(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[int], files: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("pool")
    pool = RowPool(contents(wanted))
    for number, images in enumerate(files):
        if number % 2:
            parts = folder / f"{number}.h5.parts"
            parts.mkdir()
            pool.add_shard(write_shard(parts, KIND, arrays(images)), KIND)
        else:
            pool.add_file(stored(folder / f"{number}.h5", images, 3), "content")
    there = {image for images in files for image in images}
    unknown = [wanted[position] for position in pool.unknown()]
    assert len(unknown) == len(set(unknown)) and set(unknown) == set(wanted) - there
    assert len(pool.known) + len(unknown) == pool.distinct == len(set(wanted))
    have = [position for position, image in enumerate(wanted) if image in there]
    if have:
        assert images_of(pool, have) == [wanted[position] for position in have]


class SlowList(list):
    """Another thread always comes between a look at its length and what follows."""

    def __len__(self) -> int:
        length = super().__len__()
        time.sleep(0.001)
        return length


def test_shards_may_be_added_by_several_threads(tmp_path: Path) -> None:
    """As several devices commit theirs: each row is still given from its own shard."""
    images = list(range(40))
    paths = [write_shard(tmp_path / "a.parts", KIND, arrays([image])) for image in images]
    pool = RowPool(contents(images))
    pool._parts = SlowList()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda path: pool.add_shard(path, KIND), paths))
    assert images_of(pool, images) == images
