"""Arrays out of PyTorch's old (pre-zip) weights files, without PyTorch and without running code.

Such a file is five pickles (magic number, protocol, system, the state dict with tensors
that point to storages, the storages' keys) and then each storage: a count and raw numbers.
The unpickler here resolves four names and refuses everything else.
"""

import io
import pickle  # only by way of _StateDictUnpickler, which resolves four harmless names
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from onepass.cache.errors import CorruptFileError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype
    numbers: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers, not bytes


def _rebuild_tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _StateDictUnpickler(pickle.Unpickler):
    """Knows OrderedDict, the tensor rebuild function and two storage types; nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weights file needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, numbers, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        return _Storage(key, dtype, numbers)


def read_state_dict(content: bytes, where: str) -> dict[str, np.ndarray]:
    """Return the tensors of an old-format PyTorch state dict.

    Args:
        content: The whole file.
        where: Its name, for messages.

    Returns:
        Parameter name → array, float32 or int64, in the file's order.

    Raises:
        CorruptFileError: The file is truncated, of another format, or wants to run code.

    Source: `torch/serialization.py`, `_legacy_save`.
    """

    def refuse(reason: object) -> NoReturn:
        raise CorruptFileError(
            f"{where}: expected a PyTorch weights file of the format before 1.6, but {reason}"
        )

    stream = io.BytesIO(content)
    try:
        header = [_StateDictUnpickler(stream).load() for _ in range(3)]
        if header[:2] != [MAGIC, PROTOCOL] or not header[2]["little_endian"]:
            refuse(f"its header is {header}")
        tensors = _StateDictUnpickler(stream).load()
        keys = _StateDictUnpickler(stream).load()
        wanted = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        storages = {key: _read_storage(stream, wanted[key]) for key in keys}
        arrays = {name: _view(tensor, storages) for name, tensor in tensors.items()}
    except CorruptFileError:
        raise
    except Exception as error:  # a hostile pickle can raise anything
        refuse(str(error) or type(error).__name__)
    if stream.read(1):
        refuse("there are bytes behind its last storage")
    return arrays


def _read_storage(stream: io.BytesIO, storage: _Storage) -> np.ndarray:
    count = int.from_bytes(stream.read(8), "little", signed=True)
    if count != storage.numbers:
        raise ValueError(f"storage {storage.key} has {count} numbers in place of {storage.numbers}")
    raw = stream.read(count * storage.dtype.itemsize)
    if len(raw) != count * storage.dtype.itemsize:
        raise ValueError("it is truncated")
    return np.frombuffer(raw, storage.dtype)


def _view(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """Return the tensor's numbers, copied; its strides may not lead outside its storage."""
    numbers = storages[tensor.storage.key]
    steps = list(zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or any(size < 1 or stride < 0 for size, stride in steps):
        raise ValueError("a tensor's shape is invalid")
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if last >= len(numbers):
        raise ValueError("a tensor reaches outside its storage")
    width = numbers.dtype.itemsize
    strides = [stride * width for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view).reshape(tensor.shape)
