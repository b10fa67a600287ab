"""PyTorch files from before the zip format (up to 1.5): pickles in a row, then the numbers of every storage.

`torch.load(weights_only=True)` does not take whole modules from such files, so they are read here. Every name in the
pickle is looked up before anything is made, and stands for an inert stand-in or for a tensor's parts; nothing is
imported and nothing of the file's runs.
"""

import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from yolo_cli.weights.pytorch.stand_ins import Inert, plain, refusal, stand_in

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "BFloat16": torch.bfloat16,
        "Bool": torch.bool,
        "Byte": torch.uint8,
        "Char": torch.int8,
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "Int": torch.int32,
        "Long": torch.int64,
        "Short": torch.int16,
    }.items()
}
_STORAGES |= {name.replace("torch.", "torch.cuda."): dtype for name, dtype in _STORAGES.items()}
MAX_MEMO = 10_000_000  # an index beyond it would only serve to fill memory


def read_legacy(path: Path) -> Any:
    """The content of a file, modules as stubs. Raises UserError for names beyond data and known blocks.

    Anything else that the file provokes (ValueError, EOFError, pickle.UnpicklingError …) is for the caller to report.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        starts = [skim(path, file, size, _is_known) for _ in range(5)]  # magic, version, system, content, storage keys
        file.seek(starts[0])
        reader = _Parts(size)
        if reader.load(file) != _MAGIC:
            raise ValueError("not a PyTorch file")
        for _ in range(2):
            reader.load(file)
        content = reader.load(file)
        keys = reader.load(file)
        reader.fill(file, keys)
    return content


def skim(path: Path, file: BufferedIOBase, size: int, is_known: Callable[[str], bool]) -> int:
    """Check one pickle without making anything of it, and go behind it; returns where it began.

    Raises UserError for a name that is not known, ValueError for lengths beyond `size`.
    """
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", _Within(file, size))):
        name, most = opcode.name, size if opcode.name == "FRAME" else MAX_MEMO
        if name == "GLOBAL":
            full = str(argument).replace(" ", ".", 1)
            if not is_known(full):
                raise refusal(path, full)
        elif name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
            raise refusal(path, str(argument or name).replace(" ", ".", 1))
        elif name.endswith(("PUT", "FRAME")) and int(argument or 0) > most:
            raise ValueError("an absurd pickle")
    return start


def _is_known(name: str) -> bool:
    return name in KNOWN or stand_in(name) is not None


class _Within:
    """A file that is not asked for more bytes than it has: Python takes the memory for them before it reads."""

    def __init__(self, file: BufferedIOBase, size: int) -> None:
        self.size, self.file = size, file
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.size:
            raise ValueError(f"claims {count} bytes, more than the file has")
        return self.file.read(count)


class _Parts:
    """Reads pickles of one file, and keeps its storages until their numbers come."""

    def __init__(self, size: int) -> None:
        self.left = size  # bytes that storages may still claim
        self.storages: dict[str, Tensor] = {}

    def load(self, file: BufferedIOBase) -> Any:
        """The next pickle."""
        unpickler = _Restricted(file)
        unpickler.parts = self
        return unpickler.load()

    def storage(self, given: Any) -> Any:
        """What a reference of the pickle means: a class with its source code (ignored), or a storage."""
        kind, *rest = given
        if kind == "module":
            return rest[0]
        if kind != "storage":
            raise ValueError(f"unknown reference {kind!r}")
        dtype, key, _, count, view = rest
        if key not in self.storages:
            if not isinstance(dtype, torch.dtype) or not isinstance(count, int) or count < 0:
                raise ValueError("a malformed storage")
            self.left -= count * dtype.itemsize
            if self.left < 0:
                raise ValueError("storages larger than the file")
            self.storages[key] = torch.zeros(count, dtype=dtype)
        whole = self.storages[key]
        return whole if view is None else whole[view[1] : view[1] + view[2]]

    def fill(self, file: BufferedIOBase, keys: Any) -> None:
        """The numbers of the storages, in the order of `keys`."""
        for key in keys:
            target = self.storages[key]
            count = int.from_bytes(file.read(8), "little")
            data = file.read(target.numel() * target.dtype.itemsize)
            if count != target.numel() or len(data) != target.numel() * target.dtype.itemsize:
                raise ValueError("ends within its tensors")
            if count:
                target.copy_(torch.frombuffer(bytearray(data), dtype=target.dtype))


class _Restricted(pickle.Unpickler):
    """Gives every name of the file a stand-in; there is no other way from a pickle to a function or class."""

    parts: _Parts

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; `skim` has refused all others before."""
        full = f"{module}.{name}"
        if full in KNOWN:
            return KNOWN[full]()
        found = stand_in(full)
        if found is None:
            raise pickle.UnpicklingError(f"{full} may not be used")
        return found

    def persistent_load(self, given: Any) -> Any:
        """A storage, or a class."""
        return self.parts.storage(given)


def _rebuild_tensor() -> Callable[..., Tensor]:
    # made anew each time: a pickle may write attributes on what it is given
    def rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return storage.as_strided(tuple(size), tuple(stride), offset)

    return rebuild


def _rebuild_parameter() -> Callable[..., Tensor]:
    def rebuild(data: Tensor, *_: Any) -> Tensor:
        return data

    return rebuild


def _rebuild_from_type() -> Callable[..., Any]:
    # of a tensor with attributes: the tensor alone
    def rebuild(function: Any, _: Any, args: tuple[Any, ...], *state: Any) -> Any:
        if getattr(function, "__name__", "") != "rebuild" or not isinstance(args, tuple):
            raise ValueError("a malformed tensor")
        return function(*args)

    return rebuild


class _Ordered(OrderedDict[Any, Any]):
    """Takes pairs in a list alone: a tensor may repeat one number without end."""

    def __init__(self, pairs: Any = ()) -> None:
        super().__init__(plain(pairs))


def _size(numbers: Any = ()) -> tuple[Any, ...]:
    return tuple(plain(numbers))


KNOWN: dict[str, Callable[[], Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda: _size,
    "torch.Tensor": lambda: Inert,
    "torch.nn.parameter.Buffer": lambda: Inert,
    "torch.nn.parameter.Parameter": lambda: Inert,
    "torch.device": lambda: Inert,
    "collections.OrderedDict": lambda: _Ordered,
    **{name: lambda dtype=dtype: dtype for name, dtype in _STORAGES.items()},  # type: ignore[misc]
}
