"""The machine and the versions that produced a result, for results.json."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pycocotools", "simplejpeg")


def machine(device: torch.device) -> dict[str, Any]:
    """The machine, and the device that ran the model."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the packages that influence results."""
    found = {"yolo_cli": metadata.version("yolo-cli"), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def memory_gigabytes(device: torch.device) -> float:
    """Memory that torch has reserved on a GPU; on a CPU, the peak memory of this process. In GB."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) / 1e9
    try:
        import resource  # noqa: PLC0415 - on Unix only
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
