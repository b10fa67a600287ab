"""What the processes of one machine share: how much room there is, and a label index that is copied to none of them."""

import os
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from yolo_cli.dataset.labels import LabelIndex

_SPARE = 2**28  # bytes of shared memory left to others: batches travel through it
_SHARED_MEMORY = "/dev/shm"
# The widest values first, so that every table begins at a multiple of its own width.
_TABLES = ("path_offsets", "offsets", "places", "sizes", "classes", "boxes")


def free_memory() -> int:
    """Bytes that shared memory can still take."""
    free = 2**62
    if os.path.isdir(_SHARED_MEMORY):
        free = shutil.disk_usage(_SHARED_MEMORY).free
    if os.path.isfile("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next((line for line in lines if line.startswith("MemAvailable:")), None)
        if available:
            free = min(free, int(available.split()[1]) * 1024)
    return free


class SharedIndex:
    """A label index, without its problems, that pickles as a handle to memory which all processes map.

    A forked worker has the index anyway; one that is spawned would get a copy of its own, a quarter of a gigabyte for a
    million images. Without the room in shared memory (containers often have 64 MB) it pickles whole.
    """

    def __init__(self, index: LabelIndex) -> None:
        self.index = replace(index, problems=())
        self._memory: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        tables = [getattr(self.index, name) for name in _TABLES]
        size = sum(table.nbytes for table in tables) + len(self.index.paths)
        if self._memory is None:
            if not size or size + _SPARE > free_memory():
                return {"index": self.index}
            self._memory = torch.empty(size, dtype=torch.uint8).share_memory_()
            parts = [*(table.reshape(-1).view(np.uint8) for table in tables), np.frombuffer(self.index.paths, np.uint8)]
            np.concatenate(parts, out=self._memory.numpy())
        layout = {name: (table.dtype.str, table.shape) for name, table in zip(_TABLES, tables, strict=True)}
        return {"memory": self._memory, "layout": layout, "fingerprint": self.index.fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._memory = state.get("memory")
        if self._memory is None:
            self.index = state["index"]
            return
        content, tables, start = self._memory.numpy(), {}, 0
        content.flags.writeable = False
        for name, (kind, shape) in state["layout"].items():
            tables[name] = np.ndarray(shape, kind, content, start)
            start += tables[name].nbytes
        paths = memoryview(content)[start:]
        self.index = LabelIndex(paths=paths, **tables, problems=(), fingerprint=state["fingerprint"])
