"""The row store: what is committed stays, what exists anywhere is copied, only the rest is made."""

import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import processes
import pytest

from conftest import ROOT
from onepass.cache.content import contents_digest, source_of
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    LockedError,
    OutOfSpaceError,
    StaleError,
)
from onepass.cache.made_by import How
from onepass.cache.rows import (
    Column,
    RowFile,
    RowWriter,
    ShardKind,
    finished,
    inputs_of,
    parts_folder,
    read_plan,
    recipe_of,
)
from onepass.cache.shards import shard_path, write_shard

RECIPE = {"from": "a test"}
COLUMNS = {
    "features": Column((5,), "float16"),
    "logits": Column((2, 3), "float32"),
    "content": Column((16,), "uint8"),
}
KIND = ShardKind(COLUMNS, "content", RECIPE)


def contents(images: Any) -> np.ndarray:
    """Return the contents of images that are told apart by a number."""
    return np.stack([source_of(str(int(image)).encode()) for image in images])


def arrays(images: Any) -> dict[str, np.ndarray]:
    """Return rows that tell which image they are of."""
    numbers = np.asarray(images)
    return {
        "features": (numbers[:, None] + np.arange(5) / 8).astype("float16"),
        "logits": (numbers[:, None, None] * np.ones((2, 3))).astype("float32"),
        "content": contents(numbers),
    }


def writer_of(path: Path, images: Any = range(100), kind: ShardKind = KIND, shard_rows: int = 16, **more: Any) -> RowWriter:  # fmt: skip
    return RowWriter(path, kind, contents(images), shard_rows=shard_rows, **more)


def fill(writer: RowWriter, images: Any = range(100), shards: slice = slice(None)) -> list[int]:
    """Make the rows that are missing; return of which images."""
    images, made = np.asarray(images), []
    for positions in writer.missing[shards]:
        writer.write(positions, arrays(images[positions]))
        made += images[positions].tolist()
    return made


def make(path: Path, images: Any = range(100), **more: Any) -> RowFile:
    """Write a whole file through the writer, some of its rows perhaps from elsewhere."""
    with writer_of(path, images, **more) as writer:
        fill(writer, images)
        return writer.finish({"licence": "none"})


def same_rows(rows: RowFile, images: Any) -> None:
    """Compare every value, bit by bit, with those of rows made for these images alone."""
    for name, expected in arrays(images).items():
        assert np.asarray(rows.columns[name]).tobytes() == expected.tobytes(), name
    rows.verify()


def flip(path: Path, column: str, row: int) -> None:
    """Flip one bit of a row in a finished file or a shard."""
    with h5py.File(path) as file:
        dataset = file[column]
        place = dataset.id.get_offset() + row * (dataset.nbytes // len(dataset))
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def test_finished_file_is_contiguous_and_reads_without_a_copy(tmp_path: Path) -> None:
    rows = make(tmp_path / "a.h5")
    assert isinstance(rows.columns["features"], np.memmap)
    for name, expected in arrays(range(100)).items():
        with h5py.File(rows.path) as file:  # any HDF5 program reads it
            assert file[name].chunks is None
            np.testing.assert_array_equal(file[name][()], expected)
    same_rows(rows, range(100))
    assert rows.attributes == {"licence": "none"}
    assert rows.inputs == {**RECIPE, "contents": contents_digest(contents(range(100)))}
    assert rows.inputs == inputs_of(RECIPE, contents(range(100))) and recipe_of(rows) == RECIPE
    assert not parts_folder(rows.path).exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5"]
    with pytest.raises(ValueError, match="read-only"):
        rows.columns["features"][0] = 1


def test_pickle_carries_the_path_and_not_the_rows(tmp_path: Path) -> None:
    rows = make(tmp_path / "a.h5")
    data = pickle.dumps(rows)
    assert len(data) < 1000
    assert pickle.loads(data).digest == rows.digest


def test_digest_depends_on_values_only(tmp_path: Path) -> None:
    assert make(tmp_path / "a.h5").digest == make(tmp_path / "b.h5", how=How(batch=4)).digest


def test_a_run_goes_on_with_the_missing_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with writer_of(path, how=How(batch=4)) as writer:
        shards = writer.missing
        assert [len(shard) for shard in shards] == [16] * 6 + [4]
        assert np.concatenate(shards).tolist() == list(range(100))
        for index in (0, 3, 6):
            writer.write(shards[index], arrays(shards[index]))
    plan = read_plan(path)
    assert plan and plan.how == How(batch=4) and plan.kind == KIND and plan.rows == 100
    (parts_folder(path) / ".tmp-left-by-a-kill").write_bytes(b"half")
    with writer_of(path, how=How(batch=4)) as writer:
        assert (writer.stored, writer.carried) == (36, 0)
        missing = np.concatenate(writer.missing).tolist()
        assert missing == [*range(16, 48), *range(64, 96)]
        assert not list(parts_folder(path).glob(".tmp-*"))
        with pytest.raises(InvalidInputError, match=r"missing rows \[16, 17, "):
            writer.finish()
        fill(writer)
        same_rows(writer.finish(), range(100))


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign", "empty"])
def test_a_shard_is_trusted_for_its_content_only(tmp_path: Path, damage: str, said) -> None:
    path = tmp_path / "a.h5"
    with writer_of(path) as writer:
        fill(writer)
    shard = shard_path(parts_folder(path), contents([32])[0])
    if damage == "flip":
        flip(shard, "features", 3)
    elif damage == "foreign":
        other = ShardKind(COLUMNS, "content", {"from": "elsewhere"})
        shard.unlink()
        write_shard(shard.parent, other, arrays(range(32, 48)))
    else:
        shard.write_bytes(b"" if damage == "empty" else shard.read_bytes()[:900])
    with writer_of(path) as writer:
        assert fill(writer) == list(range(32, 48))
        same_rows(writer.finish(), range(100))
    assert "computed again" in said.text


def test_a_shard_of_other_columns_is_not_read_at_the_wrong_places(tmp_path: Path) -> None:
    """A shard that is replaced while it is held is noticed, though its name is the same."""
    with writer_of(tmp_path / "a.h5") as writer:
        fill(writer)
        shard = shard_path(writer.folder, contents([0])[0])
        shard.unlink()
        write_shard(writer.folder, KIND, arrays([0, 5, 9]))
        with pytest.raises(StaleError, match="another process replaced it or took it away"):
            writer.finish()
        shard.unlink()
        with pytest.raises(StaleError, match="took it away"):
            writer.finish()
        assert not writer.path.exists()
    with writer_of(tmp_path / "a.h5") as writer:
        assert fill(writer) == list(range(16))
        same_rows(writer.finish(), range(100))


def test_another_recipe_starts_anew_and_says_why(tmp_path: Path, said) -> None:
    path = tmp_path / "a.h5"
    with writer_of(path, kind=ShardKind(COLUMNS, "content", {"size": 96})) as writer:
        fill(writer)
    with writer_of(path, kind=ShardKind(COLUMNS, "content", {"size": 128})) as writer:
        assert len(writer.missing) == 7
        assert [p.name for p in parts_folder(path).iterdir()] == ["plan.json"]
    assert list(tmp_path.iterdir()) == []  # a plan without shards does not stay
    assert "size: 96, now 128" in said.text and "starting anew" in said.text


def test_a_lost_plan_costs_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with writer_of(path) as writer:
        fill(writer)
    (parts_folder(path) / "plan.json").write_text("{")
    with writer_of(path) as writer:
        assert writer.stored == 100 and not writer.missing


@pytest.mark.parametrize("shard_rows", [1, 7, 100])
def test_shards_of_another_order_and_plan_are_reused(tmp_path: Path, shard_rows: int) -> None:
    """Images were added, removed and reordered between two runs; what was made is not made again."""
    path, before = tmp_path / "a.h5", np.random.default_rng(0).permutation(100)
    with writer_of(path, before) as writer:
        made = fill(writer, before, slice(0, 4))
    now = np.random.default_rng(1).permutation(120)[:90]
    with writer_of(path, now, shard_rows=shard_rows) as writer:
        assert writer.stored == len(set(made) & set(now.tolist()))
        assert set(fill(writer, now)) == set(now.tolist()) - set(made)
        same_rows(writer.finish(), now)


def test_equal_images_are_made_once(tmp_path: Path) -> None:
    images = [3, 1, 3, 2, 1, 3]
    with writer_of(tmp_path / "a.h5", images) as writer:
        assert fill(writer, images) == [3, 1, 2] and writer.pool.distinct == 3
        same_rows(writer.finish(), images)


def test_rows_of_other_files_are_copied_bit_by_bit(tmp_path: Path) -> None:
    """From another data set's file, from the same path's old file, and from another's unfinished run."""
    donor = make(tmp_path / "other.h5", range(40, 60))
    path = tmp_path / "a.h5"
    old = make(path, range(10))
    with writer_of(tmp_path / "third.h5", range(70, 90)) as third:
        fill(third, range(70, 90), slice(0, 1))
    images = [*range(99, -1, -1), 45, 5, 75]
    begun = [parts_folder(tmp_path / "third.h5"), parts_folder(path)]
    with writer_of(path, images, donors=[donor, old], begun=begun) as writer:
        assert writer.carried == 20 + 10 + 16 and writer.stored == 0
        made = fill(writer, images)
        assert sorted(made) == [*range(10, 40), *range(60, 70), *range(86, 100)]
        same_rows(writer.finish(), images)
    assert donor.columns["features"][0, 0] == 40 and parts_folder(tmp_path / "third.h5").exists()


def test_what_is_copied_is_what_the_donor_holds(tmp_path: Path) -> None:
    """Not what would be made now: values that only the donor has."""
    kind = ShardKind({"x": Column((1,), "float32"), "content": COLUMNS["content"]}, "content", {})
    own = {"x": np.full((4, 1), np.pi, np.float32), "content": contents(range(4))}
    with writer_of(tmp_path / "d.h5", range(4), kind) as writer:
        writer.write(np.arange(4), own)
        donor = writer.finish()
    with writer_of(tmp_path / "a.h5", range(6), kind, donors=[donor]) as writer:
        (missing,) = writer.missing
        writer.write(missing, {"x": np.zeros((2, 1), np.float32), "content": contents([4, 5])})
        assert writer.finish().columns["x"][:, 0].tolist() == [np.float32(np.pi)] * 4 + [0, 0]


def test_a_damaged_block_of_a_donor_is_left_out_and_said(tmp_path: Path, said) -> None:
    donor = make(tmp_path / "d.h5")
    flip(donor.path, "logits", 37)
    donor = RowFile.open(donor.path)
    with writer_of(tmp_path / "a.h5", donors=[donor]) as writer:
        assert writer.carried == 84
        assert fill(writer) == list(range(32, 48))
        same_rows(writer.finish(), range(100))
    assert "d.h5: rows 32 to 47 differ from what was written" in said.text
    assert "nothing is copied from them" in said.text


def test_a_donor_that_is_damaged_while_rows_are_made_is_never_copied(tmp_path: Path) -> None:
    donor = make(tmp_path / "d.h5", range(50))
    with writer_of(tmp_path / "a.h5", donors=[donor]) as writer:
        fill(writer)
        with donor.path.open("r+b") as file:  # the same file: it is mapped
            file.seek(donor.columns["features"].offset)
            file.write(b"\xff")
        with pytest.raises(CorruptFileError, match=r"d\.h5: rows 0 to 15 differ"):
            writer.finish()
        assert not writer.path.exists()
    with writer_of(tmp_path / "a.h5", donors=[donor]) as writer:
        assert fill(writer) == list(range(16))
        same_rows(writer.finish(), range(100))


def test_rows_of_other_images_are_refused(tmp_path: Path) -> None:
    """The data set was replaced while its rows were made: none is taken for one of the images asked for."""
    with writer_of(tmp_path / "a.h5") as writer:
        with pytest.raises(StaleError, match="the images changed while their rows were made"):
            writer.write(writer.missing[0], arrays(range(200, 216)))
        shuffled = arrays([1, 0, *range(2, 16)])
        with pytest.raises(StaleError):
            writer.write(writer.missing[0], shuffled)
        write_shard(writer.folder, KIND, arrays(range(200, 216)))  # by another process
        with pytest.raises(StaleError):
            writer.adopt(writer.missing[0])
        assert len(writer.missing) == 7


def test_a_file_is_never_made_of_rows_that_were_mixed_up(tmp_path: Path) -> None:
    """Whatever mistake is made with their places: two threads once gave two shards one number."""
    with writer_of(tmp_path / "a.h5") as writer:
        fill(writer)
        writer.pool._part[16:32] = writer.pool._part[0]
        with pytest.raises(RuntimeError, match="not those of the images asked for"):
            writer.finish()
        assert not writer.path.exists() and len(list(writer.folder.glob("shard-*.h5"))) == 7


def test_a_chosen_order_and_a_key_that_is_not_the_content(tmp_path: Path) -> None:
    """Pixels are known by their encoded files until they are decoded; only then equal images show."""
    kind = ShardKind(
        {"content": COLUMNS["content"], "source": COLUMNS["content"]}, "source", RECIPE
    )
    files, images = [10, 11, 12, 13], [0, 1, 0, 2]  # files 10 and 12 hold the same pixels
    with RowWriter(tmp_path / "p.h5", kind, contents(files), shard_rows=2) as writer:
        for positions in writer.missing:
            picked = np.asarray(files)[positions], np.asarray(images)[positions]
            writer.write(positions, {"source": contents(picked[0]), "content": contents(picked[1])})
        np.testing.assert_array_equal(writer.column("content"), contents(images))
        rows = writer.finish(order=np.array([3, 0, 1]))
    np.testing.assert_array_equal(rows.columns["source"], contents([13, 10, 11]))
    assert rows.inputs["contents"] == contents_digest(contents([2, 0, 1]))


def test_finished_is_by_inputs(tmp_path: Path) -> None:
    rows = make(tmp_path / "a.h5")
    inputs = inputs_of(RECIPE, contents(range(100)))
    assert finished(rows.path, inputs).digest == rows.digest  # type: ignore[union-attr]
    assert finished(rows.path, inputs_of({"from": "elsewhere"}, contents(range(100)))) is None
    assert finished(rows.path, inputs_of(RECIPE, contents(range(1, 101)))) is None
    assert finished(tmp_path / "b.h5", inputs) is None


def test_wrong_shape_or_dtype_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with writer_of(tmp_path / "a.h5") as writer:
        wrong = arrays(range(16))
        wrong["features"] = wrong["features"].astype("float32")
        with pytest.raises(InvalidInputError, match="shard: expected columns"):
            writer.write(np.arange(16), wrong)
        assert not list(writer.folder.glob("shard-*"))


HOLDER = """
import sys, time; sys.path[:0] = sys.argv[2:4]
from pathlib import Path
from test_cache_rows import writer_of
writer = writer_of(Path(sys.argv[1])); writer.__enter__(); print("locked", flush=True); time.sleep(60)
"""


def test_one_writer_at_a_time_and_the_lock_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    command = [sys.executable, "-c", HOLDER, path, ROOT, ROOT / "tests"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout and holder.stdout.readline() == "locked\n"
        with pytest.raises(LockedError, match=f"process {holder.pid} is writing it"):
            writer_of(path).__enter__()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    make(path)


ANOTHER = """
import sys; sys.path[:0] = sys.argv[2:4]
from pathlib import Path
from onepass.cache.rows import parts_folder, read_plan
from onepass.cache.shards import write_shard
from test_cache_rows import arrays
path = Path(sys.argv[1])
for start in (16, 64): write_shard(parts_folder(path), read_plan(path).kind, arrays(range(start, start + 16)))
"""


def test_two_processes_write_different_shards(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with writer_of(path) as writer:
        other = subprocess.Popen([sys.executable, "-c", ANOTHER, path, ROOT, ROOT / "tests"])
        shards = writer.missing
        for index in (0, 2, 3, 5, 6):
            writer.write(shards[index], arrays(shards[index]))
        assert other.wait() == 0
        left = writer.missing
        assert np.concatenate(left).tolist() == [*range(16, 32), *range(64, 80)]
        for index in (1, 4):
            writer.adopt(shards[index])
        same_rows(writer.finish(), range(100))


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    kind = ShardKind({"x": Column((1 << 30,), "float32"), "content": COLUMNS["content"]}, "content", {})  # fmt: skip
    with pytest.raises(OutOfSpaceError, match="Nothing was written"):
        writer_of(tmp_path / "a.h5", range(1 << 10), kind).__enter__()
    assert list(tmp_path.iterdir()) == []


# Half of the rows come from a donor, which `whole.h5` has besides.
FILLER = """
import resource, sys
from pathlib import Path
import numpy as np
from onepass.cache.errors import OnepassError
from onepass.cache.rows import Column, RowFile, RowWriter, ShardKind
from test_cache_rows import contents
path, donor = Path(sys.argv[1]), Path(sys.argv[1]).with_name("donor.h5")
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
kind = ShardKind({"x": Column((1 << 16,), "uint8"), "content": Column((16,), "uint8")}, "content", {})
def fill(path, images, donors=()):
    wanted = contents(images)
    with RowWriter(path, kind, wanted, shard_rows=16, donors=donors) as writer:
        print("start", len(writer.missing), flush=True)
        for positions in writer.missing:
            x = [np.random.default_rng(images[p]).integers(0, 256, 1 << 16, dtype="uint8") for p in positions]
            writer.write(positions, {"x": np.stack(x), "content": wanted[positions]})
            print("committed", flush=True)
        return writer.finish()
try:
    if path.name == "donor.h5":
        fill(path, range(0, 400, 2))
    else:
        donors = [RowFile.open(donor)] if donor.exists() else []
        print("digest", fill(path, range(200), donors).digest)
except OnepassError as error:
    print(type(error).__name__, error); sys.exit(1)
"""


def start_filler(path: Path, *limit: int) -> processes.Process:
    return processes.start("-c", FILLER, str(path), *map(str, limit), PROGRAM="1")


def run_filler(path: Path, *limit: int) -> subprocess.CompletedProcess:
    process = start_filler(path, *limit)
    out, err = process.communicate()
    return subprocess.CompletedProcess((), process.wait(), out, err)


def test_a_full_disk_costs_nothing_that_was_committed(tmp_path: Path) -> None:
    """The file size limit makes the write of a shard, then that of the joined file, fail for real."""
    path = tmp_path / "a.h5"
    refused = run_filler(path, 1 << 20)  # a shard is a little larger
    assert refused.returncode == 1 and "OutOfSpaceError" in refused.stdout, refused
    refused = run_filler(path, 4 << 20)  # the shards fit, the joined file does not
    assert refused.returncode == 1 and "intact" in refused.stdout, refused
    assert refused.stdout.count("\ncommitted") == 13
    assert not path.exists()
    done = run_filler(path)
    assert "start 0" in done.stdout, done
    assert done.stdout.split()[-1] == run_filler(tmp_path / "b.h5").stdout.split()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("carry_over", [False, True])
def test_killed_at_random_moments_the_bits_are_the_same(tmp_path: Path, carry_over: bool) -> None:
    """With and without rows that are copied: those of the whole file, which is made without a donor."""
    expected = run_filler(tmp_path / "whole.h5").stdout.split()[-1]
    if carry_over:
        assert run_filler(tmp_path / "donor.h5").returncode == 0
    random = np.random.default_rng(0)
    path, committed, ended = tmp_path / "killed.h5", 0, 0
    for number in range(8):
        process = start_filler(path)
        process.stdout.readline()
        # The rows are few; every other kill falls into the gathering at the end.
        time.sleep(random.uniform(0, 0.02 if number % 2 else 0.15))
        process.send_signal(signal.SIGKILL)
        committed += process.communicate()[0].count("committed")
        ended += path.exists()
    done = run_filler(path)
    assert done.stdout.split()[-1] == expected
    RowFile.open(path).verify()
    assert ended or committed <= 13  # of 13 shards none was made twice


RELEASE = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
import numpy as np
from onepass.cache.rowfile import RowFile
from onepass.cache.memory_map import release
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
rows = RowFile.open(Path(sys.argv[1])).columns["x"]
before, total = resident(), 0
for start in range(0, len(rows), 100):
    total += int(rows[start:start + 100].sum())
    if sys.argv[3] == "release":
        release(rows[start:start + 100])
print(total, resident() - before, int(rows[7].sum()))
"""
WIDE = ShardKind({"x": Column((10_000,), "uint8"), "content": COLUMNS["content"]}, "content", {})


def wide(path: Path, images: Any, **more: Any) -> RowFile:
    """Write a file of 10 kB a row."""
    images = np.asarray(images)
    with writer_of(path, images, WIDE, shard_rows=1000, **more) as writer:
        for positions in writer.missing:
            x = np.repeat(images[positions, None] // 1000 + 1, 10_000, axis=1).astype(np.uint8)
            writer.write(positions, {"x": x, "content": contents(images[positions])})
        return writer.finish()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_released_rows_take_no_memory_and_stay_readable(tmp_path: Path) -> None:
    path, width = tmp_path / "a.h5", 10_000
    wide(path, range(3000))
    grown = {}
    for how in ("keep", "release"):
        command = [sys.executable, "-c", RELEASE, path, ROOT, how]
        total, grown[how], row = map(
            int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        )
        assert total == 6000 * 1000 * 10 and row == width
    assert grown["keep"] > 25_000_000 and grown["release"] < 5_000_000


GATHER = """
import sys; sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
from pathlib import Path
from onepass.cache.rowfile import RowFile
from test_cache_rows import WIDE, writer_of
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
folder = Path(sys.argv[1])
donor = RowFile.open(folder / "donor.h5")
writer = writer_of(folder / "a.h5", range(16_000), WIDE, shard_rows=200, donors=[donor])
Path("/proc/self/clear_refs").write_text("5")
before = peak()
with writer:
    assert not writer.missing
    writer.finish()
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_gathering_takes_the_memory_of_a_few_blocks(tmp_path: Path) -> None:
    """160 MB, half from a donor of 10 MB blocks and half from shards: neither is ever held as a whole."""
    wide(tmp_path / "donor.h5", range(0, 16_000, 2))
    images = np.arange(1, 16_000, 2)
    with writer_of(tmp_path / "a.h5", images, WIDE, shard_rows=1000) as writer:
        for positions in writer.missing:
            x = np.zeros((len(positions), 10_000), np.uint8)
            writer.write(positions, {"x": x, "content": contents(images[positions])})
    command = [sys.executable, "-c", GATHER, tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60_000_000


def test_many_shards_cost_time_in_proportion_and_few_open_files(tmp_path: Path) -> None:
    """200,000 rows in 500 shards, wanted in another order, by a process that may open 200 files."""
    kind = ShardKind({"content": COLUMNS["content"]}, "content", {})
    random = np.random.default_rng(0)
    wanted = random.integers(0, 256, (200_000, 16), np.uint8)
    path, soft = tmp_path / "a.h5", resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 50
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 150, soft[1]))
    try:
        with RowWriter(path, kind, wanted, shard_rows=400) as writer:
            for positions in writer.missing:
                write_shard(writer.folder, kind, {"content": wanted[positions]})
        order = random.permutation(200_000)
        with RowWriter(path, kind, wanted[order], shard_rows=20_000) as writer:
            assert writer.stored == 200_000
            begin = time.process_time()
            rows = writer.finish()
        took = time.process_time() - begin
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, soft)
    np.testing.assert_array_equal(rows.columns["content"], wanted[order])
    assert took < 5, took
