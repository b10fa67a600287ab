"""Which device to run on, and the seeding of what cannot be passed a generator."""

import os
import random

import numpy as np
import torch

from yolo_cli.errors import UserError


def select_device(request: str) -> torch.device:
    """A device from `--device`: "" (the first GPU, else the CPU), "cpu", "0", "cuda:1", "mps".

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
        raise UserError("no Apple GPU here", where="--device mps", fix="use --device cpu")
    number = text.removeprefix("cuda:") if text != "cuda" else "0"
    if "," in text:
        raise UserError(
            "training on several devices is not there yet", where=f"--device {request}", fix="name one device"
        )
    if not number.isdigit():
        raise UserError("not a device", where=f"--device {request}", fix="give cpu, a GPU number such as 0, or mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number) >= count:
        raise UserError(f"this machine has {count} CUDA GPUs", where=f"--device {request}", fix="use --device cpu")
    return torch.device(f"cuda:{number}")


def default_workers(request: int, batch: int) -> int:
    """`--workers`, or for -1 as many as there are cores, at most 8 and at most the batch size."""
    if request >= 0:
        return request
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8, batch)


def seed_everything(seed: int) -> None:
    """Seed the global generators, which weight initialisation draws from. Called once by a command, never on import."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
