"""Arrays out of PyTorch's old (pre-zip) weights files, without PyTorch and without running code.

Such a file is five pickles (magic number, protocol, system, the state dict with tensors
that point to storages, the storages' keys) and then each storage: a count and raw numbers.

The pickles are not given to `pickle`, which allocates and computes what nine bytes ask for: the few
instructions that PyTorch writes are carried out here, on text, numbers, lists and tensors. Any other is refused.
"""

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from onepass.cache.errors import CorruptFileError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES: dict[str, np.dtype] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}
ORDERED_DICT, REBUILD_TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
MAX_INSTRUCTIONS = 1_000_000  # of all five pickles; EfficientNet-Lite 0 has 12,000
MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class _Global:
    """A function or class that a pickle names, of which only the name is ever used."""

    name: str


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


@dataclass(slots=True)
class _Unpickler:
    """Carries out the instructions of the pickles in a stream."""

    stream: io.BytesIO
    instructions: int = 0  # that were carried out
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """Return what the next pickle holds."""
        self.stack, self.marks, self.memo = [], [], {}
        for instruction, argument, _ in pickletools.genops(self.stream):
            self.instructions += 1
            if self.instructions > MAX_INSTRUCTIONS:
                raise ValueError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            if instruction.name == "STOP":
                break
            if instruction.name in CONSTANTS:
                self.stack.append(CONSTANTS[instruction.name](argument))
            elif instruction.name in CHANGES:
                CHANGES[instruction.name](self, argument)
            else:
                raise ValueError(f"it holds the instruction {instruction.name}")
        return self.stack.pop()

    def above_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def pack(self, count: int) -> None:
        """Join the last `count` values to a tuple."""
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(target) is not dict or type(key) is not str:
                raise ValueError("an entry has no name")
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("values have no list")
        self.stack[-1].extend(items)

    def call(self) -> None:
        """Make what PyTorch's two functions make; all others are refused."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if function == _Global(ORDERED_DICT) and arguments == ():
            self.stack.append({})
        elif function == _Global(REBUILD_TENSOR):
            storage, offset, shape, strides, *_ = arguments
            self.stack.append(_tensor(storage, offset, shape, strides))
        else:
            raise ValueError("it calls what no weights file needs")

    def find_storage(self) -> None:
        kind, dtype, key, _location, numbers, view = self.stack.pop()
        known = type(dtype) is _Global and dtype.name in STORAGES
        if kind != "storage" or not known or view is not None or not _is_count(numbers):
            raise ValueError("it holds an unknown kind of storage")
        if type(key) is not str:
            raise ValueError("a storage has no name")
        self.stack.append(_Storage(key, STORAGES[dtype.name], numbers))


def _name(argument: str) -> _Global:
    if argument not in (ORDERED_DICT, REBUILD_TENSOR, *STORAGES):
        raise ValueError(
            f"it asks for {argument.replace(' ', '.')[:80]}, which no weights file needs"
        )
    return _Global(argument)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None, "NEWTRUE": lambda _: True, "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {}, "EMPTY_LIST": lambda _: [], "EMPTY_TUPLE": lambda _: (),
    "GLOBAL": _name,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), lambda value: value),
}  # fmt: skip
CHANGES: dict[str, Callable[[_Unpickler, Any], Any]] = {
    "PROTO": lambda self, _: None,
    "MARK": lambda self, _: self.marks.append(len(self.stack)),
    "TUPLE": lambda self, _: self.stack.append(tuple(self.above_mark())),
    "TUPLE1": lambda self, _: self.pack(1),
    "TUPLE2": lambda self, _: self.pack(2),
    "TUPLE3": lambda self, _: self.pack(3),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda self, place: self.put(place)),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda self, place: self.stack.append(self.memo[place])
    ),
    "SETITEM": lambda self, _: self.set_items([self.stack.pop(), self.stack.pop()][::-1]),
    "SETITEMS": lambda self, _: self.set_items(self.above_mark()),
    "APPEND": lambda self, _: self.extend([self.stack.pop()]),
    "APPENDS": lambda self, _: self.extend(self.above_mark()),
    "REDUCE": lambda self, _: self.call(),
    "BINPERSID": lambda self, _: self.find_storage(),
    "BUILD": lambda self, _: self.stack.pop(),  # a state dict's `_metadata`
}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    """Return a tensor whose numbers, without overlap, can lie inside its storage."""
    counts = [offset, *shape, *strides]
    if (
        type(storage) is not _Storage
        or len(shape) > MAX_DIMENSIONS
        or not all(map(_is_count, counts))
    ):
        raise ValueError("a tensor's shape is invalid")
    last = offset + sum((size - 1) * s for size, s in zip(shape, strides, strict=True))
    if 0 in shape or last >= storage.numbers:
        raise ValueError("a tensor reaches outside its storage")
    if math.prod(shape) > storage.numbers:
        raise ValueError("a tensor has more numbers than its storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def read_state_dict(content: bytes, where: str) -> dict[str, np.ndarray]:
    """Return the tensors of an old-format PyTorch state dict.

    Args:
        content: The whole file.
        where: Its name, for messages.

    Returns:
        Parameter name → array, float32 or int64, in the file's order; together they are no larger
        than the file.

    Raises:
        CorruptFileError: The file is truncated, of another format, or asks for anything else.

    Source: `torch/serialization.py`, `_legacy_save`.
    """

    def refuse(reason: object) -> NoReturn:
        raise CorruptFileError(
            f"{where}: expected a PyTorch weights file of the format before 1.6, but {reason}"
        )

    stream = io.BytesIO(content)
    pickles = _Unpickler(stream)
    try:
        magic, protocol, system = (pickles.load() for _ in range(3))
        if (type(magic), type(protocol)) != (int, int) or (magic, protocol) != (MAGIC, PROTOCOL):
            refuse("its header is another")
        if system["little_endian"] is not True:
            refuse("its numbers are big-endian")
        tensors, keys = pickles.load(), pickles.load()
        if any(type(tensor) is not _Tensor for tensor in tensors.values()):
            refuse("it holds more than tensors")
        size = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors.values())
        if size > len(content):
            refuse(f"its tensors have {size:,} bytes, more than the file")
        wanted = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        storages = {key: _read_storage(content, stream, wanted[key]) for key in keys}
        arrays = {name: _view(tensor, storages) for name, tensor in tensors.items()}
    except CorruptFileError:
        raise
    except Exception as error:  # wrong types, wrong sizes, instructions cut short: anything
        refuse(str(error)[:200] or type(error).__name__)
    if stream.read(1):
        refuse("there are bytes behind its last storage")
    return arrays


def _read_storage(content: bytes, stream: io.BytesIO, storage: _Storage) -> np.ndarray:
    """Return the numbers of the next storage, where they lie in the file."""
    count = int.from_bytes(stream.read(8), "little", signed=True)
    if count != storage.numbers:
        raise ValueError(
            f"storage {storage.key[:40]} has {count} numbers in place of {storage.numbers}"
        )
    start = stream.tell()
    stream.seek(start + count * storage.dtype.itemsize)
    if stream.tell() > len(content):
        raise ValueError("it is truncated")
    return np.frombuffer(content, storage.dtype, count, start)


def _view(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """Return the tensor's numbers, copied."""
    numbers = storages[tensor.storage.key]
    if len(numbers) != tensor.storage.numbers or numbers.dtype != tensor.storage.dtype:
        raise ValueError("a storage is described in two ways")
    strides = [stride * numbers.dtype.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return np.array(view, order="C")
