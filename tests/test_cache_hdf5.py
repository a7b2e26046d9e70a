"""HDF5 from anywhere: what is not one of our plain files is refused before a value of it is read."""

import errno
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.hdf5 import (
    create_hdf5,
    open_hdf5,
    read_attribute,
    read_json,
    read_texts,
    write_attribute,
    write_json,
    write_texts,
)
from onepass.cache.rowfile import RowFile, write_rows

SECTOR = 512


def make(path: Path) -> Path:
    """Write a row file with more side arrays than HDF5 keeps in one place."""
    side = {name: np.arange(40, dtype="int32") for name in "abcdefgh"}
    side |= {"names": [f"ä{i}.png" for i in range(40)]}
    arrays = {"features": np.ones((40, 64), "float32"), "content": np.zeros((40, 16), "uint8")}
    return write_rows(path, arrays, side, {"kind": "test"}, {"class_ids": ["x"] * 50}).path


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(TEXTS)
def test_texts_read_back(texts: list[str]) -> None:
    buffer = io.BytesIO()
    with create_hdf5(buffer) as file:
        write_texts(file, "names", texts)
    with h5py.File(buffer) as file:
        assert read_texts(file, "names") == texts


def test_a_lone_surrogate_is_refused_in_texts_and_survives_in_json(tmp_path: Path) -> None:
    with create_hdf5(tmp_path / "a.h5") as file:
        with pytest.raises(InvalidInputError, match=r"entry 1 is 'b.udcff'"):
            write_texts(file, "names", ["a", "b\udcff"])
        write_json(file, "made", {"command": "b\udcff ä"})
        write_attribute(file, "digest", "0a")
        write_attribute(file, "index", 7)
    with open_hdf5(tmp_path / "a.h5") as file:
        assert read_json(file, "made") == {"command": "b\udcff ä"}
        assert (read_attribute(file, "digest"), read_attribute(file, "index")) == ("0a", 7)


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 4, 3], [0, -1, 3], [], [0, 1, 3]])
def test_offsets_that_divide_nothing_are_an_error(tmp_path: Path, offsets: list[int]) -> None:
    """The last ones divide ä."""
    with create_hdf5(tmp_path / "a.h5") as file:
        write_texts(file, "names", ["äb"])
        del file["names/offsets"]
        file["names"].create_dataset("offsets", data=np.array(offsets, "int64"))
    with pytest.raises(CorruptFileError), open_hdf5(tmp_path / "a.h5") as file:
        read_texts(file, "names")


def soft(file: h5py.File) -> None:
    file["more"] = h5py.SoftLink("/labels")


def external(file: h5py.File) -> None:
    file["more"] = h5py.ExternalLink("/etc/hostname", "/x")


def external_below(file: h5py.File) -> None:
    file["onepass/more"] = h5py.ExternalLink("/etc/hostname", "/x")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((40,), "int32")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (40,))
    file.create_virtual_dataset("more", layout)


def external_storage(file: h5py.File) -> None:
    file.create_dataset("more", (40,), "int32", external=[("/etc/passwd", 0, 160)])


def objects(file: h5py.File) -> None:
    file.create_dataset("more", (40,), h5py.ref_dtype)


def vlen(file: h5py.File) -> None:
    file.create_dataset("more", (40,), h5py.vlen_dtype(np.int32))


def strings(file: h5py.File) -> None:
    file.create_dataset("more", data=["a"] * 40, dtype=h5py.string_dtype())


def compound(file: h5py.File) -> None:
    file.create_dataset("more", data=np.zeros(40, "i4,f4"))


def flags(file: h5py.File) -> None:
    file.create_dataset("more", data=np.zeros(40, bool))


def chunks(file: h5py.File) -> None:
    file.create_dataset("more", data=np.zeros(40, "i4"), chunks=(8,))


def compressed(file: h5py.File) -> None:
    file.create_dataset("more", (1 << 30,), "u1", chunks=(1 << 20,), compression="gzip")


def huge(file: h5py.File) -> None:
    file.create_dataset("more", (10**10,), "i8")  # 80 GB, none of them there


def vlen_attribute(file: h5py.File) -> None:
    file["onepass"].attrs["more"] = "of variable length"


def large_attribute(file: h5py.File) -> None:
    file.attrs["more"] = np.zeros(1 << 14, "u8")


def many_attributes(file: h5py.File) -> None:
    for i in range(100):
        file.attrs[f"more{i}"] = i


def deep(file: h5py.File) -> None:
    file.create_group("x/y/z")


def circle(file: h5py.File) -> None:
    file["onepass/more"] = file["/"]


def many(file: h5py.File) -> None:
    for i in range(1100):
        file.create_group(f"x{i}")


def committed(file: h5py.File) -> None:
    file["more"] = np.dtype("i4")


def null(file: h5py.File) -> None:
    file["more"] = h5py.Empty("f4")


HOSTILE = [
    soft, external, external_below, virtual, external_storage, objects, vlen, strings, compound, flags, chunks,
    compressed, huge, vlen_attribute, large_attribute, many_attributes, deep, circle, many,
    committed, null,
]  # fmt: skip


@pytest.mark.parametrize("add", HOSTILE, ids=lambda add: add.__name__)
def test_what_no_file_of_ours_holds_is_refused(
    tmp_path: Path, add: Callable[[h5py.File], None]
) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+", libver=("v108", "latest")) as file:
        add(file)
    with pytest.raises(CorruptFileError, match=r"a\.h5: expected .* cannot be read \("):
        open_hdf5(path).__enter__()
    with pytest.raises(CorruptFileError, match=r"a\.h5: expected a finished row file"):
        RowFile.open(path)


def test_arrays_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Otherwise a small file could declare a thousand arrays, each as large as itself."""
    path, length = tmp_path / "a.h5", 100_000
    with h5py.File(path, "w") as file:  # of the earliest form, which has no checksums
        file.create_dataset("x", data=np.ones(length, "u1"))
        file.create_dataset("y", (length,), "u1")  # nowhere yet
        address = file["x"].id.get_offset().to_bytes(8, "little")
    content, size = path.read_bytes(), length.to_bytes(8, "little")
    assert content.count(b"\xff" * 8 + size) == 1
    path.write_bytes(content.replace(b"\xff" * 8 + size, address + size))
    with h5py.File(path) as file:
        assert file["y"][7] == 1
    with pytest.raises(CorruptFileError, match="would hold more than"), open_hdf5(path):
        pass


def test_a_file_cut_short_never_reaches_a_map(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.h5").read_bytes()
    for length in (0, 8, 96, 600, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b.h5").write_bytes(whole[:length])
        with pytest.raises(CorruptFileError):
            RowFile.open(tmp_path / "b.h5")
    with pytest.raises(MissingFileError), open_hdf5(tmp_path / "c.h5"):
        pass


DAMAGED = """
import json, sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from onepass.cache.errors import OnepassError
from onepass.cache.rowfile import RowFile
whole, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for offset, length in json.loads(sys.argv[4]):
    damaged = bytes(length) if length > 1 else bytes([whole[offset] ^ 2])
    path.write_bytes(whole[:offset] + damaged + whole[offset + length :])
    print(offset, flush=True)
    try:
        RowFile.open(path).verify()
    except OnepassError:
        pass
print("end")
"""
SIGNATURES = (b"\x89HDF", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF", b"FSHD", b"FSSE")


def test_no_zeroed_sector_and_no_flip_hangs_or_crashes(tmp_path: Path) -> None:
    """Of format 1 every second sector did, in HDF5's heap of strings, which nothing could interrupt.

    The flipped signature of a heap of names ended the process while HDF5 sorted them.
    """
    path = make(tmp_path / "a.h5")
    whole = path.read_bytes()
    damages = [
        (at, SECTOR) for at in range(0, len(whole), SECTOR) if whole[at : at + SECTOR].strip(b"\0")
    ]
    for signature in SIGNATURES:
        at = whole.find(signature)
        assert at >= 0, signature
        while at >= 0:
            damages.append((at, 1))
            at = whole.find(signature, at + 1)
    command = [sys.executable, "-c", DAMAGED, path, tmp_path / "b.h5", ROOT, json.dumps(damages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and done.stdout.endswith("end\n"), done
    assert len(damages) > 50


REFUSED = """
import resource, sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
from onepass.cache.hdf5 import create_hdf5
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    with create_hdf5(Path(sys.argv[2])) as file:
        for number in range(5):
            file.create_dataset(str(number), data=np.arange(2000))
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.parametrize("room", [0, 100, 3000, 30_000, 79_000])
def test_a_refused_write_is_said_and_does_not_crash_the_process(tmp_path: Path, room: int) -> None:
    command = [sys.executable, "-c", REFUSED, str(ROOT), str(tmp_path / "a.h5"), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"OSError {errno.EFBIG}\n"), done.stderr
