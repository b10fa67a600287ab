"""Where the processes of a job meet."""

import os
import socket
import time
from datetime import timedelta

import torch.distributed as dist

_ADDRESS = "yolo/address"
_PATIENCE = 600.0  # seconds to look for the main process


def connect_store(rank: int) -> dist.Store:
    """A store that the processes of this start of a job share, and no earlier start knew.

    The store of torch's elastic launcher outlives the processes that it starts anew, and still holds where the former
    ones listened: to connect there fails, or waits without end. So the main process opens a store of its own and leaves
    its address in the launcher's; an address of an earlier start is told by nobody listening there. Raises
    torch.distributed.DistError where the main process is not found.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    size = int(os.environ["WORLD_SIZE"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # nobody serves a store at the address: rank 0 does
        return dist.TCPStore(host, port, size, rank == 0, wait_for_workers=False)
    launcher = dist.TCPStore(host, port, size, False)
    if rank == 0:
        own = dist.TCPStore(host, 0, size, True, wait_for_workers=False)
        launcher.set(_ADDRESS, str(own.port))
        return own
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        number = int(launcher.get(_ADDRESS))
        if _is_served(host, number):
            return dist.TCPStore(host, number, size, False, timeout=timedelta(seconds=60))
        time.sleep(0.2)
    raise dist.DistNetworkError("the main process was not found")


def _is_served(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False
