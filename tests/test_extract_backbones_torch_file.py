"""extract/backbones/torch_file.py: reads PyTorch's old format, runs nothing, trusts nothing."""

import io
import os
import pickle
import sys
import time
import tracemalloc
import types
from collections import OrderedDict

import numpy as np
import pytest

from onepass.cache.errors import CorruptFileError
from onepass.extract.backbones.torch_file import MAGIC, PROTOCOL, read_state_dict

SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}


class _Tensor:
    def __init__(self, key, numbers, offset, shape, strides):
        self.parts = (key, numbers, offset, shape, strides)

    def __reduce__(self):
        key, numbers, offset, shape, strides = self.parts
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (_Storage(key, numbers), offset, shape, strides, False, OrderedDict())


class _Storage:
    def __init__(self, key, numbers):
        self.key, self.numbers = key, numbers


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        storage_type = sys.modules["torch"].FloatStorage
        return ("storage", storage_type, obj.key, "cpu", obj.numbers, None)


@pytest.fixture
def fake_torch(monkeypatch):
    """Modules of PyTorch's names, so that pickle writes the references PyTorch writes."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class FloatStorage:
        __module__, __qualname__ = "torch", "FloatStorage"

    def _rebuild_tensor_v2():
        pass

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    torch.FloatStorage, torch._utils, utils._rebuild_tensor_v2 = (
        FloatStorage,
        utils,
        _rebuild_tensor_v2,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def _file(state, storages, *, magic=MAGIC, tail=b"") -> bytes:
    stream = io.BytesIO()
    for value in (magic, PROTOCOL, SYSTEM):
        pickle.dump(value, stream, protocol=2)
    _Pickler(stream, protocol=2).dump(state)
    pickle.dump(list(storages), stream, protocol=2)
    for numbers in storages.values():
        stream.write(len(numbers).to_bytes(8, "little"))
        stream.write(np.asarray(numbers, "<f4").tobytes())
    return stream.getvalue() + tail


def _good() -> bytes:
    state = OrderedDict(
        plain=_Tensor("a", 6, 0, (2, 3), (3, 1)),
        transposed=_Tensor("a", 6, 0, (3, 2), (1, 3)),
        shifted=_Tensor("b", 4, 1, (3,), (1,)),
        number=_Tensor("b", 4, 3, (), ()),
    )
    return _file(state, {"a": range(6), "b": [10, 11, 12, 13]})


def test_reads_shapes_strides_and_offsets(fake_torch):
    arrays = read_state_dict(_good(), "f.pth")
    plain = np.arange(6, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(arrays["plain"], plain)
    np.testing.assert_array_equal(arrays["transposed"], plain.T)
    np.testing.assert_array_equal(arrays["shifted"], [11, 12, 13])
    assert arrays["number"].shape == () and arrays["number"] == 13


def test_every_truncation_is_one_clear_line(fake_torch):
    content = _good()
    for length in range(len(content)):
        with pytest.raises(CorruptFileError, match=r"^f\.pth: expected a PyTorch") as caught:
            read_state_dict(content[:length], "f.pth")
        assert "\n" not in str(caught.value)


class _Command:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["magic", "state"])
def test_a_hostile_pickle_is_refused_and_never_runs(fake_torch, tmp_path, place):
    mark = tmp_path / "ran"
    hostile = _Command((os.system, (f"touch {mark}",)))
    content = (
        _file({}, {}, magic=hostile) if place == "magic" else _file(OrderedDict(weight=hostile), {})
    )
    with pytest.raises(CorruptFileError, match=r"asks for (posix|nt)\.system"):
        read_state_dict(content, "f.pth")
    assert not mark.exists()


@pytest.mark.parametrize("call", [(eval, ("1",)), (getattr, (1, "real")), (bytes, (3,))])
def test_builtins_are_refused_too(fake_torch, call):
    with pytest.raises(CorruptFileError, match="asks for"):
        read_state_dict(_file(OrderedDict(weight=_Command(call)), {}), "f.pth")


@pytest.mark.parametrize(
    "tensor",
    [
        _Tensor("a", 4, 0, (5,), (1,)),
        _Tensor("a", 4, 2, (3,), (1,)),
        _Tensor("a", 4, 0, (2, 2), (4, 1)),
        _Tensor("a", 4, -1, (2,), (1,)),
        _Tensor("a", 4, 3, (2,), (-1,)),
        _Tensor("a", 9, 0, (2,), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(fake_torch, tensor):
    with pytest.raises(CorruptFileError):
        read_state_dict(_file({"w": tensor}, {"a": [0, 1, 2, 3]}), "f.pth")


def test_another_magic_and_bytes_behind_the_end_are_refused(fake_torch):
    with pytest.raises(CorruptFileError, match="header"):
        read_state_dict(_file({}, {}, magic=1), "f.pth")
    with pytest.raises(CorruptFileError, match="behind"):
        read_state_dict(_file({}, {}, tail=b"x"), "f.pth")


def _tuples(depth: int) -> bytes:
    """A value of two to the power of `depth` parts in a few bytes: each level holds the one before twice."""
    return b")q\x00" + b"h\x00h\x00\x86q\x00" * depth


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr\xff\xff\xff\x1f.",  # nine bytes, a table of 8.3 GB
        b"\x80\x05\x96" + (1 << 33).to_bytes(8, "little") + b".",  # a bytearray of 8 GB
        b"\x80\x02" + _tuples(60) + b"q\x01.",  # never printed, compared or hashed
        b"\x80\x02}" + _tuples(60) + b"Ns.",  # as a key
        b"\x80\x02" + b"]" * 3_000_000 + b".",
        b"\x80\x02N" + b"\x85" * 500_000 + b".",  # a tuple in a tuple in a tuple …
    ],
)
def test_a_bomb_is_refused_at_once(content):
    tracemalloc.start()
    begin = time.process_time()
    try:
        with pytest.raises(CorruptFileError, match=r"^f\.pth: expected a PyTorch"):
            read_state_dict(content * 3, "f.pth")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < 10 and peak < 300_000_000


@pytest.mark.parametrize(
    "tensors",
    [
        {"w": _Tensor("a", 4, 0, (1 << 20, 1 << 20), (0, 0))},
        {"w": _Tensor("a", 4, 0, (4, 2), (1, 0))},
        {
            f"w{i}": _Tensor("a", 4000, 0, (4000,), (1,)) for i in range(1000)
        },  # one storage, many times
    ],
)
def test_tensors_are_no_larger_than_their_file(fake_torch, tensors):
    with pytest.raises(CorruptFileError, match=r"more numbers|more than the file"):
        numbers = next(iter(tensors.values())).parts[1]
        read_state_dict(_file(OrderedDict(tensors), {"a": range(numbers)}), "f.pth")
