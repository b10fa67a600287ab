"""Errors of torch that have no class of their own and are recognized by their text.

Every text of torch that the package depends on is in this file, and tests/test_torch_errors.py provokes each of them.
"""

import re

import torch
import torch.distributed as dist

# The first is the CPU allocator's. The second is oneDNN's, which also raises it for other failures.
_OUT_OF_CPU_MEMORY = ("can't allocate memory", "could not create a primitive")
_WORKER_DIED = re.compile(r"DataLoader worker \(pid.*?\d\) (is killed by signal: \w+|exited unexpectedly)")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an operation failed because a GPU or the machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_CPU_MEMORY)


def dead_worker(error: BaseException) -> str:
    """How a DataLoader worker died, as "is killed by signal: Killed"; "" if the error is another one."""
    found = _WORKER_DIED.search(str(error))
    return found[1] if found else ""


def is_connection_error(error: BaseException | None) -> bool:
    """Whether a collective operation failed because of another process. Gloo raises plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def is_timeout(error: BaseException) -> bool:
    """Whether a connection error is a timeout: the other process is alive but does not take part."""
    return "imed out" in str(error)
