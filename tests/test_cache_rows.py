"""The row store: what is committed stays, what is not whole is made again."""

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import ROOT, fields_of
from onepass.cache.errors import CorruptFileError, InvalidInputError, LockedError, OutOfSpaceError
from onepass.cache.rows import (
    Column,
    RowFile,
    RowLayout,
    RowWriter,
    finished,
    parts_folder,
    read_plan,
)
from onepass.cache.shards import shard_path

INPUTS = {"from": "a test"}


def layout(rows: int = 100, shard_rows: int = 16) -> RowLayout:
    columns = {"features": Column((5,), "float16"), "logits": Column((2, 3), "float32")}
    return RowLayout(columns, rows, shard_rows)


def arrays(start: int, stop: int) -> dict[str, np.ndarray]:
    rows = np.arange(start, stop)
    return {
        "features": (rows[:, None] + np.arange(5) / 8).astype("float16"),
        "logits": (rows[:, None, None] * np.ones((2, 3))).astype("float32"),
    }


def fill(writer: RowWriter) -> None:
    for index in writer.missing:
        writer.write(index, arrays(*writer.shard_range(index)))


def make(path: Path, **kwargs: object) -> RowFile:
    with RowWriter(path, layout(), INPUTS, **kwargs) as writer:  # type: ignore[arg-type]
        fill(writer)
        side = {"labels": np.arange(100, dtype="int32"), "names": [f"ä{i}.png" for i in range(100)]}
        return writer.finish(side, {"licence": "none"})


def test_the_plan_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    """Its shards stay good: the digest of a plan is what that version wrote into them."""
    path, how = tmp_path / "a.h5", {"batch": 32}
    with RowWriter(path, layout(), INPUTS, how) as writer:
        writer.write(2, arrays(*writer.shard_range(2)))
        assert (
            writer.plan.digest == "437c4324d7fafaf17f7fef9c3b7a73ba342fbb572bfe449758d1860943dbd1d3"
        )
    plan = parts_folder(path) / "plan.json"
    columns = {"features": [[5], "float16"], "logits": [[2, 3], "float32"]}
    old = {
        "layout": {"columns": columns, "rows": 100, "shard_rows": 16},
        "inputs": INPUTS,
        "how": how,
    }
    plan.write_text(json.dumps(old))
    with RowWriter(path, layout(), INPUTS, how) as writer:
        assert list(writer.digests) == [2] and fields_of(plan) == {"format": 1, **old}


def test_finished_file_is_contiguous_and_reads_without_a_copy(tmp_path: Path) -> None:
    rows = make(tmp_path / "a.h5")
    assert isinstance(rows.columns["features"], np.memmap)
    for name, expected in arrays(0, 100).items():
        np.testing.assert_array_equal(rows.columns[name], expected)
        with h5py.File(rows.path) as file:  # any HDF5 program reads it
            assert file[name].chunks is None
            np.testing.assert_array_equal(file[name][()], expected)
    assert rows.side["names"][7] == "ä7.png"
    assert rows.attributes == {"licence": "none"}
    assert rows.inputs == INPUTS
    assert not parts_folder(rows.path).exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5"]
    with pytest.raises(ValueError, match="read-only"):
        rows.columns["features"][0] = 1
    rows.verify()


def test_pickle_carries_the_path_and_not_the_rows(tmp_path: Path) -> None:
    rows = make(tmp_path / "a.h5")
    data = pickle.dumps(rows)
    assert len(data) < 1000
    assert pickle.loads(data).digest == rows.digest


def test_digest_depends_on_values_only(tmp_path: Path) -> None:
    assert make(tmp_path / "a.h5").digest == make(tmp_path / "b.h5", how={"batch": 4}).digest


def test_a_run_goes_on_at_the_missing_shards(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with RowWriter(path, layout(), INPUTS, {"batch": 4}) as writer:
        assert writer.missing == tuple(range(7))
        for index in (0, 3, 6):
            writer.write(index, arrays(*writer.shard_range(index)))
    plan = read_plan(path)
    assert plan and plan.how == {"batch": 4} and plan.layout == layout()
    (parts_folder(path) / ".tmp-left-by-a-kill").write_bytes(b"half")
    with RowWriter(path, layout(), INPUTS, {"batch": 4}) as writer:
        assert writer.missing == (1, 2, 4, 5)
        assert not list(parts_folder(path).glob(".tmp-*"))
        with pytest.raises(InvalidInputError, match=r"missing shards \[1, 2, 4, 5\]"):
            writer.finish()
        fill(writer)
        rows = writer.finish()
    assert rows.digest == make(tmp_path / "b.h5").digest


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign", "empty"])
def test_a_shard_is_trusted_for_its_content_only(tmp_path: Path, damage: str, said) -> None:
    path = tmp_path / "a.h5"
    with RowWriter(path, layout(), INPUTS) as writer:
        fill(writer)
    shard = shard_path(parts_folder(path), 2)
    content = bytearray(shard.read_bytes())
    where = content.find(arrays(32, 48)["features"].tobytes())
    assert where > 0
    content[where] ^= 1
    other = shard_path(parts_folder(path), 3).read_bytes()
    shard.write_bytes(
        {"flip": content, "cut": content[:900], "foreign": other, "empty": b""}[damage]
    )
    with RowWriter(path, layout(), INPUTS) as writer:
        assert writer.missing == (2,)
        fill(writer)
        writer.finish().verify()
    assert "computed again" in said.text


def test_other_inputs_start_anew_and_say_why(tmp_path: Path, said) -> None:
    path = tmp_path / "a.h5"
    with RowWriter(path, layout(), {"size": 96}) as writer:
        fill(writer)
    with RowWriter(path, layout(), {"size": 128}) as writer:
        assert len(writer.missing) == 7
    assert "size: 96, now 128" in said.text


def test_finished_is_by_inputs(tmp_path: Path) -> None:
    rows = make(tmp_path / "a.h5")
    assert finished(rows.path, INPUTS).digest == rows.digest  # type: ignore[union-attr]
    assert finished(rows.path, {"from": "elsewhere"}) is None
    assert finished(tmp_path / "b.h5", INPUTS) is None


@pytest.mark.parametrize("rows_of", [0, 37, 99])
def test_verify_finds_one_flipped_byte_and_names_its_rows(tmp_path: Path, rows_of: int) -> None:
    rows = make(tmp_path / "a.h5")
    with h5py.File(rows.path) as file:
        offset = file["logits"].id.get_offset()
    with rows.path.open("r+b") as file:
        file.seek(offset + rows_of * 24)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 16]))
    start = rows_of // 16 * 16
    with pytest.raises(CorruptFileError, match=f"rows {start} to {min(start + 15, 99)} differ"):
        RowFile.open(rows.path).verify()


def test_verify_finds_changed_labels(tmp_path: Path) -> None:
    rows = make(tmp_path / "a.h5")
    with h5py.File(rows.path, "r+") as file:
        file["labels"][3] = 77
    with pytest.raises(CorruptFileError, match="labels"):
        RowFile.open(rows.path).verify()


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", "cut"])
def test_what_is_no_row_file_is_one_clear_error(tmp_path: Path, content: bytes | str) -> None:
    rows = make(tmp_path / "a.h5")
    whole = rows.path.read_bytes()
    rows.path.write_bytes(whole[: len(whole) // 3] if isinstance(content, str) else content)
    with pytest.raises(CorruptFileError, match=r"a\.h5: expected a finished row file"):
        RowFile.open(rows.path)


def test_links_and_external_storage_are_refused(tmp_path: Path) -> None:
    rows = make(tmp_path / "a.h5")
    with h5py.File(rows.path, "r+") as file:
        file["more"] = h5py.ExternalLink("/etc/hostname", "/x")
    with pytest.raises(CorruptFileError, match="link to another file"):
        RowFile.open(rows.path)
    rows = make(tmp_path / "b.h5")
    with h5py.File(rows.path, "r+") as file:
        del file["features"]
        file.create_dataset("features", (100, 5), "f2", external=[("secret", 0, 1000)])
    with pytest.raises(CorruptFileError, match="contiguous"):
        RowFile.open(rows.path)


def test_wrong_shape_or_dtype_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with RowWriter(path, layout(), INPUTS) as writer:
        wrong = arrays(0, 16)
        wrong["features"] = wrong["features"].astype("float32")
        with pytest.raises(InvalidInputError, match="shard 0: expected columns"):
            writer.write(0, wrong)
        assert not shard_path(parts_folder(path), 0).exists()


def test_one_writer_at_a_time_and_the_lock_dies_with_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from onepass.cache.rows import *\nfrom pathlib import Path\n"
        "w = RowWriter(Path(sys.argv[1]), RowLayout({'x': Column((1,), 'f4')}, 4, 2), {})\n"
        "w.__enter__(); print('locked', flush=True); time.sleep(60)"
    )
    path = tmp_path / "a.h5"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, path, ROOT], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout and holder.stdout.readline() == "locked\n"
        with pytest.raises(LockedError, match=f"process {holder.pid} is writing it"):
            RowWriter(path, layout(), INPUTS).__enter__()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    with RowWriter(path, layout(), INPUTS) as writer:
        fill(writer)
        writer.finish()


def test_two_processes_write_different_shards(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    code = (
        "import sys; sys.path[:0] = sys.argv[2:4]\n"
        "from pathlib import Path\nfrom onepass.cache.rows import *\nfrom onepass.cache.shards import write_shard\n"
        "from test_cache_rows import arrays\n"
        "path = Path(sys.argv[1]); plan = read_plan(path)\n"
        "for i in (1, 4): write_shard(parts_folder(path), plan.layout, plan.digest, i, arrays(*plan.layout.shard_range(i)))"
    )
    with RowWriter(path, layout(), INPUTS) as writer:
        other = subprocess.Popen([sys.executable, "-c", code, path, ROOT, ROOT / "tests"])
        for index in (0, 2, 3, 5, 6):
            writer.write(index, arrays(*writer.shard_range(index)))
        assert other.wait() == 0
        assert writer.missing == (1, 4)
        for index in (1, 4):
            writer.adopt(index)
        assert writer.finish().digest == make(tmp_path / "b.h5").digest


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    huge = RowLayout({"x": Column((1 << 30,), "float32")}, 1 << 20, 1)
    with pytest.raises(OutOfSpaceError, match="Nothing was written"):
        RowWriter(tmp_path / "a.h5", huge, INPUTS).__enter__()
    assert list(tmp_path.glob("a.h5*/*")) == []


FILLER = """
import sys; sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
from pathlib import Path
from onepass.cache.errors import OnepassError
from onepass.cache.rows import *
import numpy as np
wide = RowLayout({"x": Column((1 << 16,), "uint8")}, 200, 16)
try:
    with RowWriter(Path(sys.argv[1]), wide, {}) as writer:
        print("start", len(writer.missing), flush=True)
        for i in writer.missing:
            a, b = writer.shard_range(i)
            writer.write(i, {"x": np.random.default_rng(i).integers(0, 256, (b - a, 1 << 16), dtype="uint8")})
            print("committed", i, flush=True)
        print("digest", writer.finish().digest)
except OnepassError as error:
    print(type(error).__name__, error); sys.exit(1)
"""


def run_filler(path: Path, limit: int | None = None) -> subprocess.CompletedProcess:
    def cap() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", FILLER, path, ROOT]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=cap)


def test_a_full_disk_costs_nothing_that_was_committed(tmp_path: Path) -> None:
    """The file size limit makes the write of a shard, then that of the joined file, fail for real."""
    path = tmp_path / "a.h5"
    refused = run_filler(path, limit=1 << 20)  # a shard is a little larger
    assert refused.returncode == 1 and "OutOfSpaceError" in refused.stdout, refused
    refused = run_filler(path, limit=4 << 20)  # the shards fit, the joined file does not
    assert refused.returncode == 1 and "intact" in refused.stdout, refused
    assert refused.stdout.count("\ncommitted") == 13
    assert not path.exists()
    done = run_filler(path)
    assert "start 0" in done.stdout, done
    assert done.stdout.split()[-1] == run_filler(tmp_path / "b.h5").stdout.split()[-1]


@pytest.mark.slow
def test_killed_at_random_moments_the_bits_are_the_same(tmp_path: Path) -> None:
    expected = run_filler(tmp_path / "whole.h5").stdout.split()[-1]
    random = np.random.default_rng(0)
    path, committed = tmp_path / "killed.h5", 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", FILLER, path, ROOT], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        committed += process.stdout.read().count("committed")
        process.stdout.close()
    done = run_filler(path)
    assert done.stdout.split()[-1] == expected
    RowFile.open(path).verify()


RELEASE = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
import numpy as np
from onepass.cache.rowfile import RowFile
from onepass.cache.shards import release
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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_released_rows_take_no_memory_and_stay_readable(tmp_path: Path) -> None:
    path, width = tmp_path / "a.h5", 10_000
    with RowWriter(path, RowLayout({"x": Column((width,), "uint8")}, 3000, 1000), {}) as writer:
        for index in writer.missing:
            writer.write(index, {"x": np.full((1000, width), index + 1, np.uint8)})
        writer.finish()
    grown = {}
    for how in ("keep", "release"):
        command = [sys.executable, "-c", RELEASE, path, ROOT, how]
        total, grown[how], row = map(
            int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        )
        assert total == 6000 * 1000 * 10 and row == width
    assert grown["keep"] > 25_000_000 and grown["release"] < 5_000_000
