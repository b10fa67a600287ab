"""Selection of devices, default number of workers, and seeding of the global random generators."""

import os
import random

import numpy as np
import torch
from torch import Tensor

from yolo_cli.errors import UserError


def select_device(request: str) -> torch.device:
    """The device that `--device` names: "" (the first GPU, or the CPU), "cpu", "0", "cuda:1" or "mps".

    Raises UserError for a device that this machine does not have.
    """
    text = request.strip().lower()
    if text in ("", "auto"):
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    if text == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise UserError("no Apple GPU found", where="--device mps", fix="use --device cpu")
    number = text.removeprefix("cuda:") if text != "cuda" else "0"
    if "," in text:
        raise UserError("only yolo train runs on several devices", where=f"--device {request}", fix="name one device")
    if not number.isdigit():
        raise UserError("not a device", where=f"--device {request}", fix="give cpu, a GPU number such as 0, or mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number) >= count:
        raise UserError(f"this machine has {count} CUDA GPUs", where=f"--device {request}", fix="use --device cpu")
    return torch.device(f"cuda:{number}")


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """The type that training computes in where that is safe: bfloat16 on GPUs that have it, or float16; None: float32.

    bfloat16 has the range of float32, so that no gradient has to be scaled.
    """
    if device.type != "cuda":
        return None
    with torch.cuda.device(device):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device) -> torch.autocast:
    """A context in which the network computes in `mixed_precision`."""
    dtype = mixed_precision(device)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def check_half(half: bool, device: torch.device) -> None:
    """Raises UserError for `--half` without a CUDA GPU."""
    if half and device.type != "cuda":
        raise UserError("half precision needs a GPU", where="--half", fix="leave it out")


def device_names(request: str) -> list[str]:
    """One device name per process from `--device`: "0,1" and "cpu,cpu" give two.

    Raises UserError if a GPU is named twice, or CPU and GPUs are mixed.
    """
    names = [name.strip().removeprefix("cuda:") for name in request.lower().split(",")]
    if len(names) > 1:
        where = f"--device {request}"
        if any(not name.isdigit() for name in names) and set(names) != {"cpu"}:
            raise UserError("not a list of devices", where=where, fix="give GPU numbers such as 0,1, or cpu,cpu")
        if len(set(names)) < len(names) and names[0] != "cpu":
            raise UserError("a GPU is named twice", where=where, fix="name each GPU once")
    return names


def rank_device(request: str, local_rank: int, local_size: int) -> torch.device:
    """The device of one of `local_size` processes on this machine. Raises UserError if the machine lacks it."""
    names = device_names(request)
    if local_size > 1 and names[0] in ("", "auto"):
        return select_device(str(local_rank) if torch.cuda.is_available() else "cpu")
    if local_size > 1 and len(names) == 1 and names[0] != "cpu":
        raise UserError(f"{local_size} processes, one device", where=f"--device {request}", fix="leave it out")
    if len(names) not in (1, local_size):
        raise UserError(
            f"{len(names)} devices for {local_size} processes of this machine",
            where=f"--device {request}",
            fix="leave it out: each process uses the GPU of its local rank",
        )
    return select_device(names[local_rank % len(names)])


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(request: int, batch: int, processes: int = 1) -> int:
    """`request`, the value of `--workers`, or for -1 one per core of each process, at most 8 and at most `batch`."""
    return request if request >= 0 else min(max(cores() // processes, 1), 8, batch)


def to_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64: on its own device, or on the CPU if that is MPS, which has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, from which weight initialization draws."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
