"""Zip files as `torch.save` writes them, checked before torch reads them.

torch's restricted unpickler lets a file call the types that torch regards as data, with any arguments: a dict with a
tensor of one number that is repeated two billion times, or a bytearray of any length. A hundred bytes could fill all
memory in this way. So the pickle is executed with stubs first, which only check their arguments.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from yolo_cli.errors import UserError, first_line
from yolo_cli.weights.pytorch.allowlist import DiscardedData, stub_for
from yolo_cli.weights.pytorch.legacy import REBUILD_FROM_TYPE, TENSOR_NAMES
from yolo_cli.weights.pytorch.pickle_scan import scan_pickle

MAX_INFLATION = 4  # torch stores tensors uncompressed; a file that grows more than this is a zip bomb
MAX_PICKLE = 2**26  # bytes, without the tensors; published files take 100 kB
_CONSTANTS = (torch.dtype, torch.layout, torch.memory_format)


def is_archive(path: Path) -> bool:
    """Whether a file ends like a zip file, valid or not."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # raised for an end record that Python does not understand
        return True


def check_archive(path: Path) -> None:
    """Raises UserError for a zip file that is damaged, unpacks to far more than its size, or holds a hostile pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise UserError(f"not a readable checkpoint ({error})", where=path) from None
    if total > MAX_INFLATION * path.stat().st_size:
        raise UserError(f"refused: unpacks to {total:,} bytes, far beyond its own size", where=path)
    try:
        _check_pickles(path)
    except UserError:
        raise
    except Exception as error:  # a damaged or hostile file may raise anything
        raise UserError(f"not a readable checkpoint ({first_line(error)})", where=path) from None


def _check_pickles(path: Path) -> None:
    """Raises UserError for names outside the allowlist, ValueError and others for pickles that would fill memory."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        names = [name.lower() for name in archive.namelist()]
        if len(set(names)) < len(names):
            raise ValueError("two members of the same name")  # readers differ in which of them they take
        for info in archive.infolist():
            if info.filename.lower().endswith("data.pkl"):
                if info.file_size > MAX_PICKLE:
                    raise ValueError("a pickle that is far too large")
                data = archive.read(info)
                scan_pickle(path, io.BytesIO(data), len(data), _is_allowed)
                _DryRunUnpickler(data, size).load()


def _is_allowed(name: str) -> bool:
    """Whether a name is data, a known block, or a constant such as torch.float16."""
    module, _, attribute = name.rpartition(".")
    constant = module == "torch" and isinstance(getattr(torch, attribute, None), _CONSTANTS)
    return name in TENSOR_NAMES or constant or stub_for(name) is not None


class _TensorStub(DiscardedData):
    """Stands for a tensor or storage of any size."""

    def __setstate__(self, state: Any) -> None:
        _refuse_tensors(state)


def _refuse_tensors(*values: Any) -> None:
    if any(isinstance(value, _TensorStub) for value in values):
        raise ValueError("a tensor where there should be none")


def _bounded_stub(size: int) -> type[DiscardedData]:
    """A stub that refuses tensors, and integers beyond the file's size, because these might be lengths."""

    class BoundedStub(DiscardedData):
        def __new__(cls, *args: Any, **kwargs: Any) -> "BoundedStub":
            _refuse_tensors(*args)
            if any(isinstance(value, int) and abs(value) > size for value in args):
                raise ValueError("a length beyond the file's")
            return object.__new__(cls)

        def __setstate__(self, state: Any) -> None:
            _refuse_tensors(state)

    return BoundedStub


def _tensor_stub(*_: Any) -> _TensorStub:
    return _TensorStub()


def _tensor_stub_from_type(function: Any, _: Any, args: Any, *state: Any) -> Any:
    if not isinstance(args, tuple):
        raise ValueError("a malformed tensor")
    return function(*args)


class _DryRunUnpickler(pickle.Unpickler):
    """Executes a pickle with stubs for every name. `size` is the file's, in bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(io.BytesIO(data))
        self._stub = _bounded_stub(size)

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if not _is_allowed(full):
            raise pickle.UnpicklingError(f"{full} is not allowed")
        if full == REBUILD_FROM_TYPE:
            return _tensor_stub_from_type
        return _tensor_stub if full.startswith("torch._utils._rebuild_") else self._stub

    def persistent_load(self, given: Any) -> _TensorStub:
        return _TensorStub()
