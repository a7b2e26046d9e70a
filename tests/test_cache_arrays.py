"""cache/arrays.py: `.npz` files that ask for more than they hold, or are anything else."""

import io
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from onepass.cache import arrays
from onepass.cache.arrays import open_arrays, pack_arrays, unpack_arrays, write_arrays


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """The beginning of an `.npy` member whose header says this."""
    body = text.encode("latin1") + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(body).to_bytes(2, "little") + body


def npz(*members: tuple[str, bytes], way: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", way) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def described(shape: str, dtype: str = "'<f4'") -> bytes:
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}")


def with_text(code: int) -> bytes:
    return npz(("a.npy", described("(1,)", "'<U1'") + code.to_bytes(4, "little")))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["ä", "", "🦜" * 3]),
        np.array([], "<f4"),
        np.float32(3),
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
        np.zeros((0, 5), np.uint8),
    ],
)
def test_what_was_packed_comes_back_writable(array):
    found = unpack_arrays(pack_arrays({"a": array}))["a"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.asarray(array).dtype and found.flags.writeable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npz(("a.npy", described("(1000000000000,)"))), "has 0 bytes in the file"),
        (npz(("a.npy", described("(-1,)"))), "shape"),
        (npz(("a.npy", described("(2.0,)"))), "shape"),
        (npz(("a.npy", described("(1,)", "'|O'") + bytes(8))), "never read"),
        (npz(("a.npy", described("(9,)", "'<U0'"))), "dtype"),
        (npz(("a.npy", described("(1,)", "[('x', '<f4', (9,))]") + bytes(36))), "dtype"),
        (npz(("a.npy", header("{'descr': (" + "(" * 5000))), "not a file of arrays"),
        (npz(("a.npy", header("-" * 9000 + "1"))), "not a file of arrays"),
        (npz(("a.npy", header("{'descr'"))), "not a file of arrays"),
        (npz(("a.npy", header("{}", (9, 9)))), "not a file of arrays"),
        (npz(("a.npy", b"no magic")), "not a file of arrays"),
        (npz(("a.npy", described("(0,)")), ("a.npy", described("(0,)"))), "different names"),
        (npz(("a", described("(0,)"))), "ending with"),
        (npz(("a.npy", bytes(50_000_000)), way=zipfile.ZIP_DEFLATED), "compressed"),
        (npz(("a.npy", bytes(50_000_000)), way=zipfile.ZIP_LZMA), "compressed"),
        (with_text(0x110000), "not Unicode"),
        (with_text(0xD800), "not Unicode"),
        (b"", "not a file of arrays"),
    ],
)
def test_anything_else_is_a_value_error_at_once_and_in_little_memory(content, words):
    tracemalloc.start()
    begin = time.process_time()
    try:
        with pytest.raises(ValueError, match=words):
            unpack_arrays(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < 5 and peak < 20_000_000


def test_members_that_share_their_bytes_are_refused():
    """Many names in the directory for the one member that is there."""
    content = npz(("a0.npy", described("(250000,)") + bytes(1_000_000)))
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry = content[start:end]
    names = b"".join(entry.replace(b"a0.npy", b"a%d.npy" % i) for i in range(10))
    tail = bytearray(content[end:])
    tail[8:12] = (10).to_bytes(2, "little") * 2
    tail[12:16] = len(names).to_bytes(4, "little")
    with pytest.raises(ValueError, match="larger than the file"):
        unpack_arrays(content[:start] + names + bytes(tail))


def test_a_file_of_ours_is_mapped_once_its_bytes_are_those_that_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MOST_UNPACKED", 100)  # what may come of a packed file
    given = {"x": np.arange(600, dtype=np.float16).reshape(200, 3), "none": np.empty((0, 3), "i4")}
    path = tmp_path / "arrays.npz"
    write_arrays(path, given)
    content = path.read_bytes()
    assert content == pack_arrays(given)
    found = open_arrays(path)
    assert isinstance(found["x"], np.memmap) and found["none"].shape == (0, 3)
    np.testing.assert_array_equal(found["x"], given["x"])
    for place in np.linspace(0, len(content) - 1, 60).astype(int):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            np.testing.assert_equal(open_arrays(path), given)
        except ValueError:
            continue
    for damaged in (content[:-30], content[:500], b"", content[:300] + b"?" + content[301:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a file of arrays"):
            open_arrays(path)
