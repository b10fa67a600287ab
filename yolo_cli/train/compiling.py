"""`yolo train --compile`: the network as torch.compile translates it."""

import importlib.util
import os
import shutil
from collections.abc import Callable

import torch
from torch import nn

from yolo_cli.errors import UserError
from yolo_cli.model.heads import RawMaps

_COMPILERS = ("c++", "g++", "clang++")


def compile_network(network: nn.Module, device: torch.device) -> Callable[..., RawMaps]:
    """The network, compiled when it is first called. The module itself stays as it is, and so do names of parameters.

    Raises UserError if what torch.compile needs is not installed.
    """
    check_compiler(device)
    return torch.compile(network, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Raises UserError without a C++ compiler, and for a GPU without Triton."""
    own = os.environ.get("CXX", "")
    if not any(map(shutil.which, [own] if own else _COMPILERS)):
        what = f"there is no C++ compiler {own}" if own else "torch.compile needs a C++ compiler, and there is none"
        raise UserError(what, where="--compile", fix="install g++, or leave it out")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError("torch.compile needs Triton on a GPU", where="--compile", fix="pip install triton")
    if device.type == "mps":
        raise UserError("is for CPUs and CUDA GPUs", where="--compile --device mps", fix="leave it out")
