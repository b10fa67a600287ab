"""A label index in shared memory, so that no process has a copy of its own, and how much shared memory is free."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from yolo_cli.dataset.label_index import LabelIndex
from yolo_cli.errors import UserError

_RESERVE = 2**28  # bytes of shared memory left free for batches
_SHARED_MEMORY = "/dev/shm"
_CONTAINER = Path("/sys/fs/cgroup")
# The widest elements first, so that each array is aligned.
_ARRAYS = ("path_offsets", "offsets", "spans", "sizes", "classes", "boxes")


def free_memory(*, shared: bool = True) -> int:
    """Bytes of free memory; with `shared`, of memory that processes can share."""
    free = 2**62
    if shared and os.path.isdir(_SHARED_MEMORY):
        free = shutil.disk_usage(_SHARED_MEMORY).free
    if os.path.isfile("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next((line for line in lines if line.startswith("MemAvailable:")), None)
        if available:
            free = min(free, int(available.split()[1]) * 1024)
    return min(free, _free_in_container())


def _free_in_container() -> int:
    """Bytes up to the memory limit of a container (cgroup v2), not counting file caches, which can be freed."""
    try:
        limit, used = (
            (_CONTAINER / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
        counts = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(int(limit) - int(used) + int(counts["inactive_file"]), 0)
    except (OSError, ValueError, KeyError):  # no container, "max", or another version
        return 2**62


def shared_bytes(size: int) -> UInt8[torch.Tensor, " size"]:
    """Zeros in shared memory. Raises UserError if there is no room."""
    try:
        # share_memory_() would copy all of it.
        return torch.tensor([], dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))
    except RuntimeError:
        raise UserError(
            f"shared memory has no room for {size / 2**20:.0f} MB more",
            fix="use fewer --workers or a smaller --batch, or give it more (docker run --shm-size 4g)",
        ) from None


class SharedIndex:
    """A label index, without its problems, that pickles as a handle to shared memory.

    Forked workers share the index anyway. A spawned worker would get a copy of its own, a quarter of a gigabyte for a
    million images. Where shared memory has no room for it (containers often have 64 MB), it is pickled as a whole.
    """

    def __init__(self, index: LabelIndex) -> None:
        self.index = replace(index, problems=(), notes=())
        self._memory: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        arrays = [getattr(self.index, name) for name in _ARRAYS]
        size = sum(array.nbytes for array in arrays) + len(self.index.paths)
        if self._memory is None:
            if not size or size + _RESERVE > free_memory():
                return {"index": self.index}
            self._memory = torch.empty(size, dtype=torch.uint8).share_memory_()
            parts = [*(array.reshape(-1).view(np.uint8) for array in arrays), np.frombuffer(self.index.paths, np.uint8)]
            np.concatenate(parts, out=self._memory.numpy())
        layout = {name: (array.dtype.str, array.shape) for name, array in zip(_ARRAYS, arrays, strict=True)}
        return {
            "memory": self._memory,
            "layout": layout,
            "fingerprint": self.index.fingerprint,
            "ignored": self.index.ignored,  # rarely many
            "remote": self.index.remote,
            "spool": self.index.spool,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._memory = state.get("memory")
        if self._memory is None:
            self.index = state["index"]
            return
        content, start = self._memory.numpy(), 0
        arrays: dict[str, Any] = {}
        content.flags.writeable = False
        for name, (kind, shape) in state["layout"].items():
            arrays[name] = np.ndarray(shape, kind, content, start)
            start += arrays[name].nbytes
        paths = memoryview(content)[start:]
        others = {name: state[name] for name in ("fingerprint", "ignored", "remote", "spool")}
        self.index = LabelIndex(paths=paths, **arrays, problems=(), **others)
