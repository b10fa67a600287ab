"""Darknet's .weights: a header, then the float32 parameters of every convolution, in the order of the .cfg."""

import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolo_cli.errors import UserError
from yolo_cli.model.architecture import Architecture, plan_layers

CONVOLUTIONS = ("DarknetConv", "DarknetOutput")
_NORM = ("bn.bias", "bn.weight", "bn.running_mean", "bn.running_var")  # in the order of the file
_PREFIX_NAME = re.compile(r"\.conv\.\d+$")


@dataclass(frozen=True, slots=True)
class Header:
    """Version of the format, and the number of training images that the network has seen."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def is_wide(self) -> bool:
        """Whether `seen` takes eight bytes: from version 0.2 on, but not in transposed files (version 1000 and up)."""
        return self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000

    def pack(self) -> bytes:
        return struct.pack("<3i" + ("q" if self.is_wide else "i"), self.major, self.minor, self.revision, self.seen)


@dataclass(frozen=True, slots=True)
class DarknetWeights:
    """The contents of a file: tensors by their state-dict names, the number of convolutions, and warnings."""

    header: Header
    state: dict[str, Tensor]
    convolutions: int  # in the file
    total: int  # in the network
    warnings: tuple[str, ...]


def is_darknet(path: Path) -> bool:
    """Whether a file's name is that of Darknet weights: NAME.weights, or NAME.conv.NUMBER for a backbone."""
    return path.suffix == ".weights" or is_prefix(path)


def is_prefix(path: Path) -> bool:
    """Whether a file's name is that of the first layers of a network, such as darknet53.conv.74."""
    return _PREFIX_NAME.search(path.name) is not None


def tensors_in_order(architecture: Architecture) -> list[list[tuple[str, tuple[int, ...]]]]:
    """Names and shapes of every convolution's tensors, in the order of the file.

    Raises UserError for a layer that Darknet does not have.
    """
    result = []
    for index, planned in enumerate(plan_layers(architecture)):
        block = planned.layer.block
        if block not in CONVOLUTIONS:
            if not (block.startswith("Darknet") or block == "Upsample"):
                raise not_in_darknet(architecture, index)
            continue
        c1, filters, (size, _, _, groups, norm, _) = planned.plan.args[0], planned.plan.channels, planned.plan.args[-6:]
        leaves = _NORM if norm else ("conv.bias",)
        tensors = [(f"model.{index}.{leaf}", (filters,)) for leaf in leaves]
        result.append([*tensors, (f"model.{index}.conv.weight", (filters, c1 // groups, size, size))])
    return result


def read_weights(path: Path, architecture: Architecture) -> DarknetWeights:
    """The weights of a file for a network.

    A file with the name of a backbone may hold the first convolutions only; any other file must hold all of them.
    Raises UserError with the expected and the actual number of parameters.
    """
    order = tensors_in_order(architecture)
    sizes = [sum(int(np.prod(shape)) for _, shape in tensors) for tensors in order]
    ends = np.cumsum(sizes).tolist()
    expected = ends[-1]
    header, values, found, rest = _read(path, expected)
    count = sum(end <= found for end in ends)
    whole = not rest and count and ends[count - 1] == found
    if found != expected or rest:
        partial = f" and {rest} bytes" if rest else ""
        what = f"{expected:,} numbers expected for {architecture.name}, {found:,}{partial} found"
        if not (whole and is_prefix(path)):
            raise UserError(what, where=path, fix=_length_advice(count, len(order), bool(whole), found > expected))
    state: dict[str, Tensor] = {}
    flat, start = torch.from_numpy(values), 0
    for name, shape in (tensor for tensors in order[:count] for tensor in tensors):
        size = int(np.prod(shape))
        state[name] = flat[start : start + size].reshape(shape)
        start += size
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return DarknetWeights(header, state, count, len(order), tuple(_warnings(state)))


def pack_weights(architecture: Architecture, state: Mapping[str, Tensor], header: Header) -> bytes:
    """The bytes of a .weights file. A file that was read and is written again is the same byte for byte.

    Raises UserError for a network that Darknet does not support, and for a state dict that does not fit it.
    """
    parts = [header.pack()]
    for name, shape in (tensor for tensors in tensors_in_order(architecture) for tensor in tensors):
        if name not in state or tuple(state[name].shape) != shape:
            raise UserError(f"has no {name} of shape {shape}", where=architecture.name, fix="give unfused weights")
        parts.append(state[name].detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).tobytes())
    return b"".join(parts)


def _read(path: Path, limit: int) -> tuple[Header, np.ndarray, int, int]:
    """The header, at most `limit` numbers, how many there are in the file, and how many bytes are left over."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
            if len(start) < 12:
                raise UserError("ends within its header", where=path, fix="get the file again")
            header = Header(*struct.unpack("<3i", start))
            seen = file.read(8 if header.is_wide else 4)
            if len(seen) < (8 if header.is_wide else 4):
                raise UserError("ends within its header", where=path, fix="get the file again")
            left = os.fstat(file.fileno()).st_size - file.tell()
            content = bytearray(file.read(min(left, 4 * limit)))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path) from None
    if not (0 <= header.major <= 10_000 and 0 <= header.minor <= 10_000):
        fix = "give a file that Darknet wrote"
        raise UserError(f"not Darknet weights: version {header.major}.{header.minor}", where=path, fix=fix)
    header = Header(header.major, header.minor, header.revision, int.from_bytes(seen, "little", signed=True))
    whole = len(content) // 4 * 4
    values = np.frombuffer(memoryview(content)[:whole], dtype="<f4").astype(np.float32, copy=False)
    return header, values, left // 4, left % 4


def not_in_darknet(architecture: Architecture, index: int) -> UserError:
    """The error for a layer that Darknet does not have."""
    return UserError(
        f"layer {index} ({architecture.layers[index].block}) has no counterpart in Darknet",
        where=architecture.name,
        fix="only networks that came from a .cfg can be written as one",
    )


def _length_advice(count: int, of: int, whole: bool, too_long: bool) -> str:
    if too_long:
        return "the file belongs to another .cfg, perhaps one with another number of classes"
    if whole:
        return f"it holds the first {count} of {of} convolutions; name it NAME.conv.{count} to load it as a backbone"
    return f"it ends within convolution {count + 1} of {of}: it is cut short, or belongs to another .cfg"


def _warnings(state: Mapping[str, Tensor]) -> list[str]:
    """Warnings about values that weights cannot have."""
    warnings = []
    if broken := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        warnings.append(f"{len(broken)} tensors hold numbers that are not finite (NaN or infinite), first {broken[0]}")
    if negative := [name for name, value in state.items() if name.endswith("running_var") and bool((value < 0).any())]:
        warnings.append(
            f"{len(negative)} tensors of variances are negative, first {negative[0]}; is this the right .cfg?"
        )
    return warnings
