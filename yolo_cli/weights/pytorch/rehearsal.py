"""The pickle of a zip gone through before torch makes anything of it.

torch's restricted unpickler lets a file call what it knows to be data, with any arguments: a tensor of one number,
repeated two thousand million times, given to a dict; a bytearray of a length that the file names. A hundred bytes
could so take all memory. Here each name is an empty stand-in that only looks at its arguments.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from yolo_cli.weights.pytorch.legacy import KNOWN, skim
from yolo_cli.weights.pytorch.stand_ins import Inert, stand_in

MAX_BYTES = 2**26  # of a pickle without its numbers; published ones have 100 kilobytes
_CONSTANTS = (torch.dtype, torch.layout, torch.memory_format)


def rehearse(path: Path) -> None:
    """Raises UserError for names beyond data and known blocks, ValueError and its like for anything without measure."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        names = [name.lower() for name in archive.namelist()]
        if len(set(names)) < len(names):
            raise ValueError("parts of the same name")  # which of them is read would be up to the reader
        for info in archive.infolist():
            if info.filename.lower().endswith("data.pkl"):
                if info.file_size > MAX_BYTES:
                    raise ValueError("a pickle far too large")
                _rehearse(path, archive.read(info), size)


def _rehearse(path: Path, data: bytes, size: int) -> None:
    skim(path, io.BytesIO(data), len(data), _is_known)
    unpickler = _Rehearsal(io.BytesIO(data))
    unpickler.stand_in = _measured(size)
    unpickler.load()


def _is_known(name: str) -> bool:
    """Whether a name is data, a known block, or a constant such as torch.float16."""
    module, _, attribute = name.rpartition(".")
    constant = module == "torch" and isinstance(getattr(torch, attribute, None), _CONSTANTS)
    return name in KNOWN or constant or stand_in(name) is not None


class _Claim(Inert):
    """A tensor or storage, of whatever size a file says."""

    def __setstate__(self, state: Any) -> None:
        _check(state)


def _check(*values: Any) -> None:
    if any(isinstance(value, _Claim) for value in values):
        raise ValueError("a tensor where there should be none")


def _measured(size: int) -> type[Inert]:
    """A stand-in that takes no tensors, and no numbers beyond the file's size, which might be lengths."""

    class Measured(Inert):
        def __new__(cls, *args: Any, **kwargs: Any) -> "Measured":
            _check(*args)
            if any(isinstance(value, int) and abs(value) > size for value in args):
                raise ValueError("a length beyond the file's")
            return object.__new__(cls)

        def __setstate__(self, state: Any) -> None:
            _check(state)

    return Measured


def _claim(*_: Any) -> _Claim:
    return _Claim()


def _claim_from_type(function: Any, _: Any, args: Any, *state: Any) -> Any:
    if not isinstance(args, tuple):
        raise ValueError("a malformed tensor")
    return function(*args)


class _Rehearsal(pickle.Unpickler):
    stand_in: type[Inert]

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in; `skim` has refused unknown names before."""
        full = f"{module}.{name}"
        if not _is_known(full):
            raise pickle.UnpicklingError(f"{full} may not be used")
        if full == "torch._tensor._rebuild_from_type_v2":
            return _claim_from_type
        return _claim if full.startswith("torch._utils._rebuild_") else self.stand_in

    def persistent_load(self, given: Any) -> _Claim:
        """A storage."""
        return _Claim()
