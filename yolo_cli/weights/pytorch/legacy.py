"""PyTorch files of the format before zip (up to PyTorch 1.5): a sequence of pickles, then the data of every storage.

`torch.load(weights_only=True)` does not read whole modules from such files, so they are read here. Every name in the
pickles is checked before anything is built. It gets an inert stub or a function that rebuilds a tensor; nothing is
imported, and no code of the file runs.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolo_cli.weights.pytorch.allowlist import DiscardedData, checked_list, stub_for
from yolo_cli.weights.pytorch.pickle_scan import scan_pickle

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
REBUILD_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"


def read_legacy(path: Path) -> Any:
    """The content of a file, with stubs for its modules. Raises UserError for names outside the allowlist.

    A damaged file raises ValueError, EOFError, pickle.UnpicklingError or any other exception.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        # The pickles: magic number, version, system, content, storage keys.
        starts = [scan_pickle(path, file, size, _is_allowed) for _ in range(5)]
        file.seek(starts[0])
        reader = _StorageReader(size)
        if reader.load(file) != _MAGIC:
            raise ValueError("not a PyTorch file")
        for _ in range(2):
            reader.load(file)
        content = reader.load(file)
        keys = reader.load(file)
        reader.fill(file, keys)
    return content


def _is_allowed(name: str) -> bool:
    return name in TENSOR_NAMES or stub_for(name) is not None


class _StorageReader:
    """Reads the pickles of one file. Storages are allocated by the pickles and filled from the data that follows."""

    def __init__(self, size: int) -> None:
        self.left = size  # bytes that are left for storages
        self.storages: dict[str, Tensor] = {}

    def load(self, file: BufferedIOBase) -> Any:
        """The next pickle."""
        return _RestrictedUnpickler(file, self).load()

    def storage(self, given: Any) -> Any:
        """The object of a persistent id: a class (its source code is ignored), or a storage."""
        kind, *rest = given
        if kind == "module":
            return rest[0]
        if kind != "storage":
            raise ValueError(f"unknown persistent id {kind!r}")
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
        """Fill the storages with their data, which follows in the order of `keys`."""
        for key in keys:
            target = self.storages[key]
            count = int.from_bytes(file.read(8), "little")
            data = file.read(target.numel() * target.dtype.itemsize)
            if count != target.numel() or len(data) != target.numel() * target.dtype.itemsize:
                raise ValueError("ends within its tensors")
            if count:
                target.copy_(torch.frombuffer(bytearray(data), dtype=target.dtype))


class _RestrictedUnpickler(pickle.Unpickler):
    """Looks up every name in the allowlist; a pickle has no other way to a function or class."""

    def __init__(self, file: BufferedIOBase, storages: _StorageReader) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in TENSOR_NAMES:
            return TENSOR_NAMES[full]()
        stub = stub_for(full)
        if stub is None:
            raise pickle.UnpicklingError(f"{full} is not allowed")
        return stub

    def persistent_load(self, given: Any) -> Any:
        return self._storages.storage(given)


def _rebuild_tensor() -> Callable[..., Tensor]:
    # A new function each time, because a pickle may set attributes on what it gets.
    def rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return storage.as_strided(tuple(size), tuple(stride), offset)

    return rebuild


def _rebuild_parameter() -> Callable[..., Tensor]:
    def rebuild(data: Tensor, *_: Any) -> Tensor:
        return data

    return rebuild


def _rebuild_from_type() -> Callable[..., Any]:
    # Of a tensor with attributes, only the tensor is kept.
    def rebuild(function: Any, _: Any, args: tuple[Any, ...], *state: Any) -> Any:
        if getattr(function, "__name__", "") != "rebuild" or not isinstance(args, tuple):
            raise ValueError("a malformed tensor")
        return function(*args)

    return rebuild


class _Ordered(OrderedDict[Any, Any]):
    """Made from a list of pairs only, because iterating over a tensor may take forever."""

    def __init__(self, pairs: Any = ()) -> None:
        super().__init__(checked_list(pairs))


def _size(numbers: Any = ()) -> tuple[Any, ...]:
    return tuple(checked_list(numbers))


# What torch itself writes for tensors, with a function that returns the stand-in.
TENSOR_NAMES: dict[str, Callable[[], Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    REBUILD_FROM_TYPE: _rebuild_from_type,
    "torch.Size": lambda: _size,
    "torch.Tensor": lambda: DiscardedData,
    "torch.nn.parameter.Buffer": lambda: DiscardedData,
    "torch.nn.parameter.Parameter": lambda: DiscardedData,
    "torch.device": lambda: DiscardedData,
    "collections.OrderedDict": lambda: _Ordered,
    **{name: lambda dtype=dtype: dtype for name, dtype in _STORAGES.items()},  # type: ignore[misc]
}
